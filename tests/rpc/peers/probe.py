"""The service that the peers call. Its messages are bytes, so that peers need no generated code."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Thread
from typing import Final, cast

import grpc
import uvloop

from accord_rpc.call import Context
from accord_rpc.protocols.dispatch import Dispatcher, header
from accord_rpc.protocols.grpc import GrpcProtocol
from accord_rpc.server.exchange import Exchange
from accord_rpc.server.server import Server

SERVICE: Final = "/peers.Probe/"
SPECIAL_MESSAGE: Final = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
"""Of gRPC's interop tests."""
COMPRESSED: Final = frozenset({b"/peers.Probe/CompressedUnary", b"/peers.Probe/CompressedRepeat"})
Chain = Callable[[object, Context], Awaitable[bytes | None]]

_encoding: ContextVar[bytes] = ContextVar("_encoding")
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class Probe:
    def __init__(self) -> None:
        self._begun = asyncio.Queue[None]()
        self._cancelled = asyncio.Queue[None]()

    def find(self, path: str) -> Chain:
        service, _, method = path.rpartition("/")
        return getattr(self, method, _unimplemented) if f"{service}/" == SERVICE else _unimplemented

    async def Unary(self, _: object, context: Context) -> bytes:
        """Returns the message. The trailers are the metadata that begins with x-, and the compression of the request."""
        message = cast(bytes, await context.read())
        metadata = [each for each in context.invocation_metadata() or () if each[0].startswith("x-")]
        context.set_trailing_metadata((*metadata, ("encoding", _encoding.get().decode())))
        return message

    async def CompressedUnary(self, _: object, context: Context) -> bytes:
        return cast(bytes, await context.read())

    async def CompressedRepeat(self, _: object, context: Context) -> None:
        """Returns the message, which is large enough to be compressed, and a small one."""
        await context.write(cast(bytes, await context.read()))
        await context.write(b"small")

    async def Join(self, _: object, context: Context) -> bytes:
        return b",".join([message async for message in _messages(context)])

    async def Repeat(self, _: object, context: Context) -> None:
        message = cast(bytes, await context.read())
        for _number in range(3):
            await context.write(message)

    async def Echo(self, _: object, context: Context) -> None:
        async for message in _messages(context):
            await context.write(message)

    async def Hold(self, _: object, context: Context) -> None:
        """Returns the first message, and does not end: Node.js ends its stream of requests before it cancels the call."""
        await context.write(cast(bytes, await context.read()))
        await self.Wait(_, context)

    async def Fail(self, _: object, context: Context) -> None:
        """The message is `<code> <text of the status>`, or `<code> special`."""
        code, _, text = cast(bytes, await context.read()).decode().partition(" ")
        await context.abort(_CODES[int(code)], SPECIAL_MESSAGE if text == "special" else text)

    async def Wait(self, _: object, context: Context) -> bytes:
        self._begun.put_nowait(None)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self._cancelled.put_nowait(None)
            raise
        return b""

    async def Begun(self, _: object, context: Context) -> bytes:
        """Returns when a call of Wait or Hold has begun."""
        await self._begun.get()
        return b""

    async def Cancelled(self, _: object, context: Context) -> bytes:
        """Returns when a call of Wait or Hold has been cancelled."""
        await self._cancelled.get()
        return b""

    async def SecondsLeft(self, _: object, context: Context) -> bytes:
        left = context.time_remaining()
        return b"none" if left is None else b"%d" % round(left)


async def _unimplemented(_: object, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "The method does not exist.")


async def _messages(context: Context) -> AsyncIterator[bytes]:
    while isinstance(message := await context.read(), bytes):
        yield message


@contextmanager
def serving() -> Iterator[str]:
    """Serves in a thread, because the peers block. Yields the address."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        started = Future[Callable[[], None]]()
        thread = Thread(target=lambda: uvloop.run(_serve(sock.dup(), started)))
        thread.start()
        stop = started.result(10)
        try:
            yield f"127.0.0.1:{sock.getsockname()[1]}"
        finally:
            stop()
            thread.join(10)


async def _serve(sock: socket.socket, started: Future[Callable[[], None]]) -> None:
    dispatcher, stopped, loop = (
        Dispatcher([GrpcProtocol(Probe(), COMPRESSED)]),
        asyncio.Event(),
        asyncio.get_running_loop(),
    )

    async def application(exchange: Exchange) -> None:
        _encoding.set(header(exchange, b"grpc-encoding"))
        await dispatcher(exchange)

    server = Server(application)
    await server.start([sock])
    started.set_result(lambda: cast(None, loop.call_soon_threadsafe(stopped.set)))
    await stopped.wait()
    await server.stop(None)
