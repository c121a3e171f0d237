"""All workers of a gateway, kept at their number until the gateway stops."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

import structlog

from accord_gateway.errors import StartupError
from accord_gateway.process.worker_handle import Worker
from accord_gateway.server.metrics import WorkerMetrics
from accord_gateway.shutdown import Shutdown
from accord_gateway.startup import ServeConfig

SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds, before a worker that died is replaced
STEADY = 30.0  # seconds; a worker that lived so long died by accident
KILL_AFTER = 10.0  # seconds more than a drain may take


class Supervisor:
    """All workers of a gateway. `first` was started before there were orders, and has had time to import."""

    def __init__(self, first: Worker, orders: ServeConfig, figures: WorkerMetrics, stop: Shutdown) -> None:
        self._workers = {first}
        self._first = first
        self._orders = orders
        self._figures = figures
        self._stop = stop
        self._log = structlog.get_logger()

    async def run(self, announce: Callable[[], None]) -> None:
        """Returns when the gateway was asked to stop, and every worker is gone. Raises StartRefused."""
        dismissal = asyncio.create_task(self._dismiss_when_asked())
        try:
            await self._begin()
            if not self._stop.asked.is_set():
                announce()
            await asyncio.gather(*(self._keep(worker) for worker in tuple(self._workers)))
        finally:
            dismissal.cancel()

    async def _begin(self) -> None:
        """The first alone, so that what is wrong with all of them is said once."""
        if not await self._first.begin(self._orders) and not self._stop.asked.is_set():
            await self._first.ended()
            raise StartupError("The first worker did not start; what it said is above.")
        others = [self._hire() for _ in range(1, self._orders.settings.workers) if not self._stop.asked.is_set()]
        await asyncio.gather(*(worker.begin(self._orders) for worker in others))

    def _hire(self) -> Worker:
        worker = Worker(self._figures.folder)
        self._workers.add(worker)
        return worker

    async def _keep(self, worker: Worker) -> None:
        """Replaces a worker that dies, with ever longer pauses if its successors die too."""
        pause = SHORTEST_PAUSE
        while True:
            since = monotonic()
            status = await worker.ended()
            self._workers.discard(worker)
            self._figures.forget_live(worker.pid)
            if self._stop.asked.is_set():
                return
            pause = SHORTEST_PAUSE if monotonic() - since > STEADY else min(2 * pause, LONGEST_PAUSE)
            self._log.error("worker_died", pid=worker.pid, status=status, replaced_in_seconds=pause)
            if await self._stopped_within(pause):
                return
            worker = self._hire()
            await worker.begin(self._orders)

    async def _stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.asked.wait(), seconds)
        return self._stop.asked.is_set()

    async def _dismiss_when_asked(self) -> None:
        await self._stop.asked.wait()
        self._tell(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.hurried.wait(), self._orders.settings.drain_seconds + KILL_AFTER)
            self._tell(signal.SIGTERM)
            await asyncio.sleep(KILL_AFTER)
        self._tell(signal.SIGKILL)

    def _tell(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.tell(number)
