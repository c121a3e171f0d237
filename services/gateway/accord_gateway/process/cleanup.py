"""Deletes what nobody needs any more, every now and then, for as long as the gateway serves."""

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from functools import cache
from typing import NoReturn

import structlog
from prometheus_client import Counter

from accord_db.engine.database import Database
from accord_db.queries.cleanup import ExpiredRows, delete_batch, try_lock_cleanup


class Outcome(StrEnum):
    """How a run ended. `ELSEWHERE`: another process cleans up just now, and was left to it."""

    DONE = "done"
    ELSEWHERE = "elsewhere"
    FAILED = "failed"


class CleanUpMetrics:
    def __init__(self) -> None:
        self.deleted = Counter("accord_cleanup_deleted_total", "Rows that the clean-up deleted.", ["table"])
        self.runs = Counter("accord_cleanup_runs_total", "Runs of the clean-up, by how they ended.", ["outcome"])


@cache
def clean_up_metrics() -> CleanUpMetrics:
    """Those of this process: prometheus_client has one registry, and takes each name once."""
    return CleanUpMetrics()


class CleanUp:
    """Runs in every process of an installation: whichever comes first does what there is to do."""

    def __init__(self, database: Database, due: Sequence[ExpiredRows], metrics: CleanUpMetrics) -> None:
        self._database = database
        self._due = due
        # All of them are asked for now, so that they are there to be read before anything has happened.
        self._deleted = {each.table: metrics.deleted.labels(each.table) for each in due}
        self._runs = {outcome: metrics.runs.labels(outcome) for outcome in Outcome}
        self._failing = False

    async def repeat(self, interval: timedelta) -> NoReturn:
        """Never ends by itself, whatever becomes of a run."""
        while True:
            # Processes that were started together do not stay so.
            await asyncio.sleep(interval.total_seconds() * random.uniform(0.5, 1))  # noqa: S311  # no secret
            await self.run()

    async def run(self) -> Outcome:
        """Deletes all that is due, a batch in each transaction, unless another process is at it."""
        try:
            outcome = Outcome.DONE if await self._delete_all() else Outcome.ELSEWHERE
        except Exception as error:  # noqa: BLE001  # whatever it is, the next run may fare better
            outcome = Outcome.FAILED
            self._say_once(failing=True, reason=repr(error))
        else:
            self._say_once(failing=False)
        self._runs[outcome].inc()
        return outcome

    async def _delete_all(self) -> bool:
        """Whether nobody else was at it."""
        for due in self._due:
            more = True
            while more:
                async with self._database.transaction() as tx:
                    if not await try_lock_cleanup(tx):
                        return False
                    deleted = await delete_batch(tx, due)
                self._deleted[due.table].inc(deleted)
                more = deleted == due.batch
        return True

    def _say_once(self, *, failing: bool, **about: str) -> None:
        if failing == self._failing:
            return
        self._failing = failing
        log = structlog.get_logger()
        log.error("not_cleaning_up", **about) if failing else log.info("cleaning_up")
