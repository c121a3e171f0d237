"""Runs the generation that serves, replaces it in reloads, and ends it with the gateway."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from accord_gateway.errors import StartupError
from accord_gateway.process.generation import Generation
from accord_gateway.process.workers import KILL_AFTER, Workers
from accord_gateway.shutdown import Shutdown


class Supervisor:
    """`successor` creates the next generation, and `replaced` is called with it when it serves. `stopping` is called once when
    the gateway begins to stop."""

    def __init__(
        self,
        first: Generation,
        successor: Callable[[], Workers],
        replaced: Callable[[Workers], None],
        stopping: Callable[[], None],
        shutdown: Shutdown,
    ) -> None:
        self._current = first
        self._successor = successor
        self._replaced = replaced
        self._stopping = stopping
        self._shutdown = shutdown
        self._generations = list[Generation]()  # also those that start or drain
        self._serving = asyncio.Event()
        self._running = set[asyncio.Task[None]]()  # one for each

    async def run(self, serving: Callable[[int], None]) -> None:
        """Calls `serving` with the port. Returns after the shutdown, when all generations have ended. Raises StartupError."""
        stopping = asyncio.create_task(self._stop_on_shutdown())
        try:
            port = await self._start(self._current)
            self._serving.set()
            if not self._shutdown.requested.is_set():
                serving(port)
            await self._until_ended()
        except StartupError:
            await self._until_ended()
            if not self._shutdown.requested.is_set():
                raise
        finally:
            stopping.cancel()

    async def _start(self, generation: Generation) -> int:
        started = asyncio.get_running_loop().create_future()
        self._generations.append(generation)
        self._running.add(asyncio.create_task(self._run(generation, started)))
        return int(await started)

    async def _run(self, generation: Generation, started: "asyncio.Future[int]") -> None:
        try:
            started.set_result(await generation.start())
        except Exception as error:  # noqa: BLE001  # raised where it is started
            started.set_exception(error)
            generation.retire()
        try:
            await generation.wait()
        finally:
            self._generations.remove(generation)

    async def _until_ended(self) -> None:
        """A reload adds its generation before the former one ends."""
        while self._running:
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            self._running -= done
            for task in done:
                await task

    async def reload(self) -> float:
        """Returns how many seconds it took until the new generation served. Raises StartupError, and the former one goes on."""
        await self._serving.wait()
        began, successor = monotonic(), self._successor()
        await self._start(successor)
        if self._shutdown.requested.is_set():
            raise StartupError("The gateway is stopping.")
        former, self._current = self._current, successor
        self._replaced(successor)
        former.retire()
        return monotonic() - began

    async def _stop_on_shutdown(self) -> None:
        """Forwards the request and a forced shutdown, and kills what does not end."""
        await self._shutdown.requested.wait()
        self._stopping()
        self._stop_all()
        with suppress(TimeoutError):
            longest = max((each.drain_seconds for each in self._generations), default=0)
            await asyncio.wait_for(self._shutdown.forced.wait(), longest + KILL_AFTER)
            self._stop_all()
            await asyncio.sleep(KILL_AFTER)
        for generation in tuple(self._generations):
            generation.kill()

    def _stop_all(self) -> None:
        for generation in tuple(self._generations):
            generation.stop()
