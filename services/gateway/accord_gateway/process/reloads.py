"""Requests to reload: SIGHUP, and `accord reload`, which connects to a socket in the state folder and gets the outcome."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, TypedDict

import structlog

from accord_gateway.errors import StartupError

SOCKET_NAME: Final = "reload.sock"
REQUEST: Final = b"reload\n"


class Outcome(TypedDict):
    """`error` is empty if the new workers serve."""

    error: str
    seconds: float


class Reloads:
    """Runs one reload at a time. Requests that arrive meanwhile share the next one, because the settings may have changed again."""

    def __init__(self, reload: Callable[[], Awaitable[float]]) -> None:
        self._reload = reload
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[Outcome] | None = None

    def request(self) -> "asyncio.Task[Outcome]":
        if self._next is None:
            self._next = asyncio.create_task(self._run())
        return self._next

    async def _run(self) -> Outcome:
        async with self._lock:
            self._next = None
            log = structlog.get_logger()
            try:
                seconds = round(await self._reload(), 2)
            except StartupError as error:
                structlog.get_logger().error("not_reloaded", reason=str(error))  # the reason suffices
                return Outcome(error=str(error), seconds=0)
            log.info("reloaded", seconds=seconds)
            return Outcome(error="", seconds=seconds)


@asynccontextmanager
async def reload_requests(reloads: Reloads, folder: Path) -> AsyncIterator[None]:
    """Accepts them until the block ends. Without its socket the gateway still reloads on SIGHUP."""
    try:
        with _short(folder) as short:
            listener = _bind(short / SOCKET_NAME)
    except OSError as error:
        structlog.get_logger().warning("no_reload_command", folder=str(folder), reason=error.strerror)
        yield
        return
    server = await asyncio.start_unix_server(lambda reader, writer: _respond(reloads, reader, writer), sock=listener)
    try:
        yield
    finally:
        server.close()
        with suppress(OSError):
            (folder / SOCKET_NAME).unlink()


def _bind(path: Path) -> socket.socket:
    from accord_rpc.server.listening import bind_unix

    return bind_unix(path, mode=0o600)


async def _respond(reloads: Reloads, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        if await reader.readline() == REQUEST:
            outcome = await asyncio.shield(reloads.request())
            writer.write(json.dumps(outcome).encode())
        writer.close()


@contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """A path of the folder that fits into the 107 bytes of a socket's address, where the system has one."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        short = Path(f"/proc/self/fd/{descriptor}")
        yield short if short.exists() else folder
    finally:
        os.close(descriptor)


def request_reload(folder: Path) -> Outcome | None:
    """Waits for the outcome. None if no gateway runs with this state folder, or it ended first. Raises OSError."""
    if not (folder / SOCKET_NAME).is_socket():
        return None
    with _short(folder) as short, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gateway:
        try:
            gateway.connect(str(short / SOCKET_NAME))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        gateway.sendall(REQUEST)
        response = gateway.makefile("rb").read()
    outcome: Outcome | None = json.loads(response) if response else None
    return outcome


def reload_on_hangup(reloads: Reloads, shut_down: Callable[[], None]) -> None:
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        handler = reloads.request if hangup_reloads() else shut_down
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, handler)


def hangup_reloads() -> bool:
    """False if the process has a terminal: SIGHUP then means that it was closed, and shuts down, unless `nohup` ignores it."""
    return signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
