"""Clients of HTTP/1.1 that send exactly what a test writes."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

SECONDS = 10  # until a response that does not come fails the test


@dataclass(frozen=True)
class Response:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """Of an error in the form of REST."""
        return str(self.json["details"][0]["reason"])

    @property
    def violations(self) -> dict[str, str]:
        details = [detail for detail in self.json["details"] if detail["@type"].endswith(".BadRequest")]
        return {each["field"]: each["description"] for detail in details for each in detail["fieldViolations"]}

    def header(self, name: str) -> str | None:
        """None if it is missing. Fails if it is repeated."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None


@asynccontextmanager
async def sent(
    address: str, method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.StreamReader]:
    """Sends a request, and yields what reads the response. A `body` that is not bytes is sent as JSON."""
    fields = {"host": address, "connection": "close"} | (dict(headers) if headers else {})
    payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    if body is not None:
        fields.setdefault("content-type", "application/json")
        fields.setdefault("content-length", str(len(payload)))
    if method == "POST" and body is None:
        fields.setdefault("content-length", "0")
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + payload)
    try:
        yield reader
    finally:
        writer.close()


async def read_head(reader: asyncio.StreamReader) -> tuple[int, tuple[tuple[str, str], ...]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = head.strip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(status.split()[1]), tuple((name.lower(), value.strip()) for name, _, value in pairs)


async def fetch(
    address: str, method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None
) -> Response:
    async with asyncio.timeout(SECONDS), sent(address, method, target, body, headers) as reader:
        status, fields = await read_head(reader)
        content = await reader.read()
    if ("transfer-encoding", "chunked") in fields:
        content = b"".join(chunks(content))
    return Response(status, fields, content)


class Http:
    """Connections to one server, which are kept and used again. A response that does not come fails the test."""

    def __init__(self, address: str, tls: ssl.SSLContext | None = None, *, name: str = "localhost") -> None:
        """`name` is in the certificate of the server."""
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._tls = tls
        self._name = name if tls else None
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def fetch(
        self, verb: str, target: str, body: bytes | None = None, headers: Iterable[tuple[str, str]] = ()
    ) -> Response:
        fields = [("host", self._host), *headers]
        if body is not None or verb == "POST":
            fields.append(("content-length", str(len(body or b""))))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        request = f"{verb} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")
        async with asyncio.timeout(SECONDS):
            while self._idle:
                try:
                    return await self._exchange(*self._idle.pop(), request)
                except (asyncio.IncompleteReadError, ConnectionError) as error:
                    if isinstance(error, asyncio.IncompleteReadError) and error.partial:
                        raise
                    # The server has closed the connection since: the request is sent on another.
            reader, writer = await asyncio.open_connection(
                self._host, self._port, ssl=self._tls, server_hostname=self._name
            )
            return await self._exchange(reader, writer, request)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> Response:
        done = False
        try:
            writer.write(request)
            status, fields = await read_head(reader)
            response = Response(status, fields, await _content(reader, status, dict(fields)))
            done = response.header("connection") != "close"
        finally:
            if done:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return response

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def _content(reader: asyncio.StreamReader, status: int, fields: Mapping[str, str]) -> bytes:
    if status in (204, 304):
        return b""
    if fields.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(fields["content-length"]))
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)


def chunks(content: bytes) -> list[bytes]:
    found = []
    while content:
        size, _, content = content.partition(b"\r\n")
        found.append(content[: int(size, 16)])
        content = content[int(size, 16) + 2 :]
    return found
