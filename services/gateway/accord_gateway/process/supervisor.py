"""Keeps the number of workers constant until the gateway stops."""

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic

import structlog

from accord_gateway.errors import StartupError
from accord_gateway.process.worker_handle import WorkerHandle
from accord_gateway.server.metrics import WorkerMetrics
from accord_gateway.shutdown import Shutdown
from accord_gateway.startup import ServeConfig

MIN_PAUSE, MAX_PAUSE = 0.1, 10.0  # seconds before a worker is replaced
STABLE = 30.0  # seconds; the end of a worker that ran for so long does not prolong the pause
KILL_AFTER = 10.0  # seconds after the end of the drain


class Supervisor:
    """All workers inherit the `sockets`. `first` already runs and imports modules, since before there was a configuration."""

    def __init__(
        self,
        first: WorkerHandle,
        config: ServeConfig,
        metrics: WorkerMetrics,
        shutdown: Shutdown,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        self._workers = {first}
        self._first = first
        self._config = config
        self._metrics = metrics
        self._sockets = sockets
        self._shutdown = shutdown
        self._log = structlog.get_logger()

    async def run(self, announce: Callable[[], None]) -> None:
        """Returns after the shutdown, when all workers have ended. Raises StartupError."""
        stopping = asyncio.create_task(self._stop_workers_on_shutdown())
        try:
            await self._start_first()
            await self._start_others()
            if not self._shutdown.requested.is_set():
                announce()
            await asyncio.gather(*(self._keep_running(worker) for worker in tuple(self._workers)))
        finally:
            stopping.cancel()

    async def _start_first(self) -> None:
        """Alone, so that an error that all workers would have is printed once."""
        if not await self._first.start_serving(self._config) and not self._shutdown.requested.is_set():
            await self._first.wait()
            raise StartupError("The first worker did not start. It printed the reason above.")

    async def _start_others(self) -> None:
        missing = self._config.settings.workers - 1
        others = [self._new_worker() for _ in range(missing) if not self._shutdown.requested.is_set()]
        await asyncio.gather(*(worker.start_serving(self._config) for worker in others))

    def _new_worker(self) -> WorkerHandle:
        worker = WorkerHandle(self._metrics.folder, self._sockets)
        self._workers.add(worker)
        return worker

    async def _keep_running(self, worker: WorkerHandle) -> None:
        """Replaces a worker that ends. The pause before it doubles while replacements end soon too."""
        pause = MIN_PAUSE
        while True:
            started = monotonic()
            status = await worker.wait()
            self._workers.discard(worker)
            self._metrics.forget_live(worker.pid)
            if self._shutdown.requested.is_set():
                return
            pause = MIN_PAUSE if monotonic() - started > STABLE else min(2 * pause, MAX_PAUSE)
            self._log.error("worker_died", pid=worker.pid, status=status, replaced_in_seconds=pause)
            if await self._shutdown_within(pause):
                return
            worker = self._new_worker()
            await worker.start_serving(self._config)

    async def _shutdown_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._shutdown.requested.wait(), seconds)
        return self._shutdown.requested.is_set()

    async def _stop_workers_on_shutdown(self) -> None:
        """Forwards the request and a forced shutdown, and kills the workers that do not end."""
        await self._shutdown.requested.wait()
        self._signal_workers(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._shutdown.forced.wait(), self._config.settings.drain_seconds + KILL_AFTER)
            self._signal_workers(signal.SIGTERM)
            await asyncio.sleep(KILL_AFTER)
        self._signal_workers(signal.SIGKILL)

    def _signal_workers(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.send_signal(number)
