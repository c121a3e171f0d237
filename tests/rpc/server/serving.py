"""A server on a free port, and a client of HTTP/1.1 that sends bytes as they are written."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from accord_rpc.server.exchange import Application, Exchange, Headers
from accord_rpc.server.limits import ConnectionLimits
from accord_rpc.server.listening import Certificates
from accord_rpc.server.server import Server

SECONDS = 3.0  # in which everything happens that a test waits for


@dataclass
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} is repeated"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def request(self, data: bytes, *, head: bool = False) -> Response:
        self.send(data)
        return await self.response(head=head)

    async def response(self, *, head: bool = False) -> Response:
        """`head`: of a HEAD request, so that it has no body."""
        async with asyncio.timeout(SECONDS):
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
            pairs = [line.split(": ", 1) for line in lines[1:]]
            response = Response(int(lines[0].split(" ")[1]), [(name, value) for name, value in pairs], b"")
            if not head and response.status >= 200:
                response.body = await self._body(response)
            return response

    async def _body(self, response: Response) -> bytes:
        if response.header("transfer-encoding") == "chunked":
            return b"".join([chunk async for chunk in self._chunks()])
        length = response.header("content-length")
        if length is not None:
            return await self._reader.readexactly(int(length))
        return b"" if response.status in (204, 304) else await self._reader.read()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        assert await self._reader.readexactly(2) == b"\r\n"

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self._reader.readexactly(size)

    async def rest(self) -> bytes:
        """What the server sends until it closes the connection."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    def abort(self) -> None:
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()


class Site:
    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        client = Client(reader, writer)
        try:
            yield client
        finally:
            client.abort()

    def pass_time(self, seconds: float) -> None:
        """Checks the time limits of all connections as if so much time had passed."""
        for connection in tuple(self.server._connections):
            connection.tick(self.server.loop.time() + seconds)

    async def until(self, *, connections: int | None = None, exchanges: int | None = None) -> None:
        async with asyncio.timeout(SECONDS):
            while connections not in (None, self.server.connections) or exchanges not in (None, self.server.exchanges):
                await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    application: Application, certificates: Certificates | None = None, headers: Headers = (), **limits: Any
) -> AsyncIterator[Site]:
    server = Server(application, limits=ConnectionLimits(**limits), certificates=certificates, headers=headers)
    listener = socket.create_server(("127.0.0.1", 0))
    await server.start([listener])
    port = listener.getsockname()[1]
    try:
        yield Site(server, port)
    finally:
        await server.stop(None)


async def read_all(exchange: Exchange) -> bytes:
    parts = []
    while (part := await exchange.receive()) is not None:
        parts.append(part)
    return b"".join(parts)


async def echo(exchange: Exchange) -> None:
    """Responds with the body of the request."""
    exchange.respond(200, ((b"content-type", b"text/plain"),), await read_all(exchange))


async def describe(exchange: Exchange) -> None:
    """Responds with what the application sees."""
    seen = {
        "method": exchange.method.decode(),
        "target": exchange.target.decode(),
        "authority": exchange.authority.decode(),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in exchange.headers],
        "http_version": exchange.http_version,
        "secure": exchange.secure,
        "peer": exchange.peer,
        "body": (await read_all(exchange)).decode(),
    }
    exchange.respond(200, (), json.dumps(seen).encode())


async def greet(exchange: Exchange) -> None:
    """Responds without reading the body."""
    exchange.respond(200, (), b"hello " + exchange.target)
