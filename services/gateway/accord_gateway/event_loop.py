"""uvloop, with name lookups that do not delay the end of the process.

uvloop and asyncio run getaddrinfo in thread pools, and join these threads when the process ends. A DNS server that does not
respond then delays the end by up to half a minute.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, Final, TypeVar

import uvloop

# The timeout for one address of a name, so that an address that drops packets leaves time for the others.
ADDRESS_SECONDS: Final = 4.0

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    return uvloop.run(main, loop_factory=EventLoop)


class EventLoop(uvloop.Loop):
    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002  # the name in asyncio
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        return await _in_daemon_thread(partial(socket.getaddrinfo, host, port, family, type, proto, flags))

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        """Overridden because uvloop's method does not call `getaddrinfo` above."""
        if host is not None:
            lookup = {name: options.pop(name, 0) for name in ("family", "proto", "flags")}
            options["sock"] = await self._connected(host, port, lookup, options.pop("local_addr", None))
            if options.get("ssl") and options.get("server_hostname") is None:
                options["server_hostname"] = host
        return await super().create_connection(protocol_factory, **options)

    async def _connected(self, host: str, port: int, lookup: dict[str, int], local_addr: Any) -> socket.socket:
        error: OSError | None = None
        for family, kind, proto, _, address in await self.getaddrinfo(host, port, type=socket.SOCK_STREAM, **lookup):
            try:
                return await self._connected_to(socket.socket(family, kind, proto), address, local_addr)
            except OSError as raised:
                error = raised
        raise error or OSError(f"{host} has no address")

    async def _connected_to(self, sock: socket.socket, address: Any, local_addr: Any) -> socket.socket:
        try:
            sock.setblocking(False)
            if local_addr is not None:
                sock.bind(local_addr)
            async with asyncio.timeout(ADDRESS_SECONDS):
                await self.sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock


async def _in_daemon_thread(work: Callable[[], T]) -> T:
    """Leaves the thread behind when the caller is cancelled."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(settle_with: Callable[[], None]) -> None:
        if not done.cancelled():
            settle_with()

    def run() -> None:
        try:
            settle_with = partial(done.set_result, work())
        except BaseException as error:  # noqa: BLE001  # raised where the result is awaited
            settle_with = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, settle_with)

    Thread(target=run, name="name lookup", daemon=True).start()
    return await done
