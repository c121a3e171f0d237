"""Keeps the number of workers constant until a reload or the end of the gateway."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from accord_gateway.errors import StartupError
from accord_gateway.process.configuration import WorkerConfig
from accord_gateway.process.generation import Generation
from accord_gateway.process.worker_handle import WorkerHandle

MIN_PAUSE, MAX_PAUSE = 0.1, 10.0  # seconds before a worker is replaced
STABLE = 30.0  # seconds; the end of a worker that ran for so long does not prolong the pause
KILL_AFTER = 10.0  # seconds after the end of the drain


class Workers(Generation):
    """All of them have the configuration that `configure` returns for the first one."""

    drain_seconds = 0

    def __init__(
        self,
        number: int,
        new_worker: Callable[[int], WorkerHandle],
        ended: Callable[[int], None],
        configure: Callable[[WorkerHandle], Awaitable[WorkerConfig]],
    ) -> None:
        """`new_worker` starts the worker with the given number, from 0. `ended` is called with the process id of each that has ended."""
        self._number = number
        self._new_worker = new_worker
        self._ended = ended
        self._configure = configure
        self._workers: dict[int, WorkerHandle] = {}
        self._keeping: list[asyncio.Task[None]] = []
        self._ending = asyncio.Event()

    async def start(self) -> int:
        """Starts the first one alone, so that an error that all workers would have is reported once."""
        try:
            first = self._start(0)
            self.config = await self._configure(first)
            self.drain_seconds = self.config.drain_seconds
            await first.start_serving(self.config)
            others = [self._start(number) for number in range(1, self._number) if not self._ending.is_set()]
            starts = (worker.start_serving(self.config) for worker in others)
            for failure in await asyncio.gather(*starts, return_exceptions=True):
                if failure is not None:
                    raise failure
        except StartupError as error:
            raise StartupError(f"A worker did not start. {error}") from None
        finally:
            self._keeping = [asyncio.create_task(self._keep_running(number)) for number in self._workers]
        return 0

    def _start(self, number: int) -> WorkerHandle:
        worker = self._workers[number] = self._new_worker(number)
        return worker

    async def wait(self) -> None:
        await asyncio.gather(*self._keeping)

    def retire(self) -> None:
        self._ending.set()
        for worker in self._workers.values():
            worker.retire()
        asyncio.get_running_loop().call_later(self.drain_seconds + KILL_AFTER, self.kill)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        self._ending.set()
        for worker in self._workers.values():
            worker.send_signal(number)

    async def _keep_running(self, number: int) -> None:
        """Replaces a worker that ends. The pause before it doubles while replacements end soon too."""
        pause = MIN_PAUSE
        while True:
            worker, started = self._workers[number], monotonic()
            status = await worker.wait()
            self._ended(worker.pid)
            if self._ending.is_set():
                return
            pause = MIN_PAUSE if monotonic() - started > STABLE else min(2 * pause, MAX_PAUSE)
            log = structlog.get_logger()
            log.error("worker_died", pid=worker.pid, status=status, replaced_in_seconds=pause)
            if await self._ends_within(pause):
                return
            try:
                await self._start(number).start_serving(self.config)
            except StartupError as error:
                log.error("worker_not_started", reason=str(error))  # the reason suffices

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            return False
        return True
