"""What serves with one version of the code and the settings, until a reload replaces it."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from socket import socket
from typing import TYPE_CHECKING

from accord_gateway.shutdown import Shutdown

if TYPE_CHECKING:
    from accord_gateway.startup import ServeConfig


class Generation(ABC):
    """If `start` raises, parts of it may still run, until `retire` and `wait`."""

    drain_seconds: int

    @abstractmethod
    async def start(self) -> int:
        """Returns the port when it serves. Raises StartupError."""

    @abstractmethod
    async def wait(self) -> None:
        """Returns when all of it has ended."""

    @abstractmethod
    def retire(self) -> None:
        """Lets running calls finish, while the next generation serves."""

    @abstractmethod
    def stop(self) -> None:
        """Lets running calls finish. The second call cancels them."""

    @abstractmethod
    def kill(self) -> None: ...


class ThisProcess(Generation):
    """The supervisor serves by itself, without a worker, until the first reload: WORKERS=1 starts sooner, and needs less memory."""

    def __init__(self, config: "ServeConfig", sockets: Sequence[socket]) -> None:
        """The sockets stay open."""
        self.drain_seconds = config.settings.drain_seconds
        self._config = config
        self._sockets = [sock.dup() for sock in sockets]
        self._shutdown = Shutdown()
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        from accord_gateway import lifecycle  # slow imports, which a supervisor of workers does not need

        port = asyncio.get_running_loop().create_future()
        serve = lifecycle.serve(self._config, self._shutdown, port.set_result, self._sockets)
        self._serving = asyncio.create_task(serve)
        await asyncio.wait({self._serving, port}, return_when=asyncio.FIRST_COMPLETED)
        if not port.done():
            serving, self._serving = self._serving, None
            await serving  # raises
        return int(port.result())

    async def wait(self) -> None:
        if self._serving is not None:
            await self._serving

    def retire(self) -> None:
        self._shutdown.retire()

    def stop(self) -> None:
        self._shutdown.request()

    def kill(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
