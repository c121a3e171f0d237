"""Deletes expired rows at intervals, while the gateway serves."""

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
    """The result of a run. `ELSEWHERE`: another process was cleaning up, so this run stopped."""

    DONE = "done"
    ELSEWHERE = "elsewhere"
    FAILED = "failed"


class CleanUpMetrics:
    def __init__(self) -> None:
        self.deleted = Counter("accord_cleanup_deleted_total", "Rows that the clean-up deleted.", ["table"])
        self.runs = Counter("accord_cleanup_runs_total", "Runs of the clean-up, by outcome.", ["outcome"])


@cache
def clean_up_metrics() -> CleanUpMetrics:
    """The metrics of this process: prometheus_client registers each name only once."""
    return CleanUpMetrics()


class CleanUp:
    """Every process of an installation repeats it. A lock in the database lets one run at a time."""

    def __init__(self, database: Database, expired: Sequence[ExpiredRows], metrics: CleanUpMetrics) -> None:
        self._database = database
        self._expired = expired
        # Creating the labels now exposes them with the value 0.
        self._deleted = {each.table: metrics.deleted.labels(each.table) for each in expired}
        self._runs = {outcome: metrics.runs.labels(outcome) for outcome in Outcome}
        self._failing = False

    async def repeat(self, interval: timedelta) -> NoReturn:
        """Ends only by cancellation."""
        while True:
            # At random, so that processes that start together do not run together.
            await asyncio.sleep(interval.total_seconds() * random.uniform(0.5, 1))  # noqa: S311  # not a secret
            await self.run()

    async def run(self) -> Outcome:
        """Deletes all expired rows, each batch in its own transaction. Stops if another process is cleaning up."""
        try:
            outcome = Outcome.DONE if await self._delete_all() else Outcome.ELSEWHERE
        except Exception as error:  # noqa: BLE001  # the next run may succeed
            outcome = Outcome.FAILED
            self._log_change(failing=True, reason=repr(error))
        else:
            self._log_change(failing=False)
        self._runs[outcome].inc()
        return outcome

    async def _delete_all(self) -> bool:
        """False if another process is cleaning up."""
        for rows in self._expired:
            more = True
            while more:
                async with self._database.transaction() as tx:
                    if not await try_lock_cleanup(tx):
                        return False
                    deleted = await delete_batch(tx, rows)
                self._deleted[rows.table].inc(deleted)
                more = deleted == rows.batch
        return True

    def _log_change(self, *, failing: bool, **fields: str) -> None:
        """Logs the first failure after a success, and the first success after a failure."""
        if failing == self._failing:
            return
        self._failing = failing
        log = structlog.get_logger()
        log.error("not_cleaning_up", **fields) if failing else log.info("cleaning_up")
