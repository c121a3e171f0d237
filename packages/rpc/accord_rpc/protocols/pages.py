"""Pages beside the API. They are no calls, so no stage of the pipeline counts them, unless a page is guarded."""

import asyncio
import gzip
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final, TypeAlias

from grpc.aio import EOF, AbortError

from accord_rpc.interceptor import Next
from accord_rpc.protocols.compression import GZIP, accepts_gzip
from accord_rpc.protocols.context import ProtocolContext
from accord_rpc.protocols.dispatch import ProtocolHandler, header
from accord_rpc.protocols.refused import Refused
from accord_rpc.protocols.rest.errors import ErrorResponse
from accord_rpc.server.exchange import Application, Exchange, Headers

JsonSource: TypeAlias = Callable[[Exchange], Awaitable[tuple[int, object]]]
"""Returns the HTTP status, and the value."""

_METHODS: Final = (b"GET", b"HEAD")
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_NOT_STORED: Final = (b"cache-control", b"no-store")


class Pages(ProtocolHandler):
    """Serves `GET` and `HEAD` of each path. A path is without its query."""

    def __init__(self, pages: Mapping[str, Application]) -> None:
        self._pages = {path.encode(): page for path, page in pages.items()}

    def accepts(self, exchange: Exchange, content_type: bytes) -> bool:
        return path_of(exchange) in self._pages

    async def serve(self, exchange: Exchange) -> None:
        if exchange.method in _METHODS:
            await self._pages[path_of(exchange)](exchange)
        else:
            respond(exchange, HTTPStatus.METHOD_NOT_ALLOWED, ((b"allow", b"GET, HEAD"),))
            self.refused.record(exchange, Refused(HTTPStatus.METHOD_NOT_ALLOWED.value))


class StaticPage:
    """A file, compressed once, at its first request. Clients revalidate it with its ETag."""

    def __init__(self, load: Callable[[], bytes], content_type: str, headers: Headers = ()) -> None:
        self._load = load
        self._headers = ((b"content-type", content_type.encode()), *headers)
        self._content: _Content | None = None

    async def __call__(self, exchange: Exchange) -> None:
        if self._content is None:
            self._content = await asyncio.to_thread(lambda: _Content(self._load()))
        content = self._content
        headers = (*self._headers, (b"cache-control", b"no-cache"), (b"vary", b"accept-encoding"))
        if _matches(header(exchange, b"if-none-match"), content.etag):
            respond(exchange, HTTPStatus.NOT_MODIFIED, (*headers, (b"etag", content.etag)))
        elif accepts_gzip(header(exchange, b"accept-encoding")):
            encoding = (b"content-encoding", GZIP)
            respond(exchange, HTTPStatus.OK, (*headers, (b"etag", content.etag), encoding), content.compressed)
        else:
            respond(exchange, HTTPStatus.OK, (*headers, (b"etag", content.etag)), gzip.decompress(content.compressed))


class _Content:
    """Kept compressed, because nearly all clients take it so."""

    def __init__(self, body: bytes) -> None:
        self.compressed = gzip.compress(body, mtime=0)
        self.etag = f'W/"{hashlib.sha256(body).hexdigest()[:16]}"'.encode()


class JsonPage:
    """A value that changes. `max_age` is in seconds; caches do not store it without."""

    def __init__(self, source: JsonSource, max_age: int | None = None) -> None:
        self._source = source
        self._cache = _NOT_STORED if max_age is None else (b"cache-control", f"public, max-age={max_age}".encode())

    async def __call__(self, exchange: Exchange) -> None:
        status, value = await self._source(exchange)
        cache = self._cache if status == HTTPStatus.OK else _NOT_STORED
        respond(exchange, status, ((b"content-type", b"application/json"), cache), json.dumps(value).encode())


class GuardedPage:
    """A page for the callers that a chain of the pipeline admits. Others receive the error of a REST call."""

    def __init__(self, page: Application, chain: Next) -> None:
        self._page = page
        self._chain = chain

    async def __call__(self, exchange: Exchange) -> None:
        context = _GuardContext(exchange)
        try:
            await self._chain(None, context)
        except AbortError:
            ErrorResponse.of(context, conditional=False).send(exchange)
        else:
            await self._page(exchange)


class _GuardContext(ProtocolContext):
    """A call with an empty message."""

    __slots__ = ("_message",)

    def __init__(self, exchange: Exchange) -> None:
        headers = [(name, value) for name, value in exchange.headers if name != b"cookie"]
        metadata = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        super().__init__(metadata, exchange.peer, exchange.peer_uris, None)
        self.take_cookies(exchange.headers)
        self._message: object = b""

    async def read(self) -> object:
        message, self._message = self._message, EOF
        return message

    async def write(self, message: bytes) -> None:
        raise NotImplementedError  # the method does not stream


def respond(exchange: Exchange, status: int, headers: Headers, body: bytes = b"") -> None:
    exchange.respond(status, (*headers, *_HEADERS), body)


def path_of(exchange: Exchange) -> bytes:
    return exchange.target.partition(b"?")[0]


def _matches(if_none_match: bytes, etag: bytes) -> bool:
    """Weakly, as RFC 9110, section 13.1.2, has it."""
    tags = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
    return b"*" in tags or etag.removeprefix(b"W/") in tags
