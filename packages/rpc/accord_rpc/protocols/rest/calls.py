"""Calls of REST. A method that streams its responses sends one JSON document a line or, if the client accepts them, server-sent
events."""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

from grpc.aio import EOF

from accord_rpc.errors import FieldViolation, invalid
from accord_rpc.pipeline.telemetry import REQUEST_ID_HEADER, request_id
from accord_rpc.protocols.compression import COMPRESS_FROM, GZIP, accepts_gzip
from accord_rpc.protocols.context import Metadata, ProtocolContext
from accord_rpc.protocols.framing import TOO_LARGE, FramingError, compress, expand, read_body
from accord_rpc.protocols.http_errors import JSON_HEAD, SAFE_HEADERS
from accord_rpc.protocols.rest.binding import HeaderValue
from accord_rpc.protocols.rest.errors import ErrorResponse
from accord_rpc.protocols.rest.headers import HeaderError, problem, seconds_left
from accord_rpc.server.exchange import Exchange

if TYPE_CHECKING:
    from accord_rpc.protocols.rest.protocol import Endpoint

JSON: Final = b"application/json"
NDJSON: Final = b"application/x-ndjson"
EVENTS: Final = b"text/event-stream"
HEARTBEAT_SECONDS: Final = 15.0
_ACCEPTED: Final = ((b"accept", JSON), (b"accept-encoding", GZIP))
_FORWARDED: Final = frozenset(
    {b"forwarded", b"x-forwarded-for", b"user-agent", b"x-request-id", b"traceparent", b"tracestate"}
)
# What this protocol consumes. The pipeline gets the other headers.
_CONSUMED: Final = frozenset(
    {
        *(b"accept", b"accept-encoding", b"content-type", b"content-encoding", b"content-length", b"te", b"cookie"),
        *(b"if-match", b"if-none-match", b"idempotency-key", b"connect-timeout-ms", b"grpc-timeout"),
    }
)


class RestContext(ProtocolContext):
    """One call."""

    __slots__ = (
        "_endpoint",
        "_exchange",
        "_kind",
        "_problems",
        "_query",
        "_set",
        "_status",
        "_values",
        "conditional",
    )

    def __init__(self, endpoint: "Endpoint", exchange: Exchange, values: Sequence[str], query: str) -> None:
        self._endpoint = endpoint
        self._exchange = exchange
        self._values: Sequence[str] | None = values
        self._query = query
        self._problems: list[FieldViolation] = []
        self._set: list[HeaderValue] = []
        self._status: int | None = None  # the HTTP status of a request that is refused for its form
        self.conditional = False
        headers: dict[bytes, bytes] = {}
        metadata: list[tuple[str, str | bytes]] = []
        for name, value in exchange.headers:
            if name not in _CONSUMED:
                metadata.append((name.decode("latin-1"), value.decode("latin-1")))
            elif name in headers:
                headers[name] += b", " + value
            else:
                headers[name] = value
        super().__init__(metadata, exchange.peer, exchange.peer_uris, None)
        self.take_cookies(exchange.headers)
        self._kind = (headers.get(b"content-type", b""), headers.get(b"content-encoding", b"identity"))
        self.accept(headers)

    def accept(self, headers: dict[bytes, bytes]) -> None:
        """Reads what this protocol consumes. Problems are reported with those of the message, after access was decided."""
        for name in (b"if-match", b"idempotency-key"):
            if (value := headers.get(name)) is not None:
                self._add(name, value)
        for name in (b"connect-timeout-ms", b"grpc-timeout"):
            if name in headers:
                self._limit(name, headers[name])

    def _add(self, name: bytes, value: bytes) -> None:
        fields = self._endpoint.fields
        read = fields.if_match if name == b"if-match" else fields.idempotency_key
        self.conditional |= name == b"if-match"
        try:
            if (header := read(value.decode("latin-1"))) is not None:
                self._set.append(header)
        except HeaderError as error:
            self._problems.append(problem(name, error))

    def _limit(self, name: bytes, value: bytes) -> None:
        """The earlier deadline counts if both headers are there."""
        try:
            until = monotonic() + seconds_left(name, value)
        except HeaderError as error:
            self._problems.append(problem(name, error))
        else:
            self.deadline = until if self.deadline is None else min(until, self.deadline)

    @property
    def request_has_arrived(self) -> bool:
        return self._exchange.request_ended

    async def read(self) -> object:
        values, self._values = self._values, None
        if values is None:
            return EOF
        body = await self._body()
        return self._endpoint.binding.read(values, self._query, body, self._set, *self._problems)

    async def _body(self) -> bytes:
        try:
            body = await read_body(self._exchange)
        except FramingError as error:
            if error.message == TOO_LARGE:
                raise self._refused(413, "must be at most 4 MiB") from None
            await self.abort(error.code, error.message)
        return self._expanded(body) if body else b""

    def _expanded(self, body: bytes) -> bytes:
        kind, encoding = self._kind
        if self._endpoint.rule.body and not _is_json(kind):
            raise self._refused(415, "must be sent as application/json")
        if encoding.lower() == b"identity":
            return body
        if encoding.lower() != b"gzip":
            raise self._refused(415, "must be sent uncompressed, or compressed with gzip")
        try:
            return expand(body, b"gzip")
        except FramingError as error:
            raise self._refused(413 if error.message == TOO_LARGE else 400, "must be gzip of at most 4 MiB") from None

    def _refused(self, status: int, must: str) -> Exception:
        self._status = status
        return invalid(*self._problems, FieldViolation("", must))

    def end(self, response: bytes | None) -> None:
        """Sends the response, or the rest of it."""

    def close(self) -> None:
        """The call has ended, or was cancelled."""

    def error(self) -> ErrorResponse:
        error = ErrorResponse.of(self, conditional=self.conditional)
        if self._status is not None:
            error.status = self._status
            error.headers = (*error.headers, *(_ACCEPTED if self._status == 415 else ()))
        return error

    def _head(self) -> list[tuple[bytes, bytes]]:
        """The trailers of the call, which REST sends first, and what stages add."""
        own = {name: value for name, value in self.trailers if isinstance(value, str) and not name.endswith("-bin")}
        if REQUEST_ID_HEADER not in own:  # a call that was refused outside of its stages
            own[REQUEST_ID_HEADER] = request_id(_first(self.metadata, REQUEST_ID_HEADER))
        head = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in own.items()]
        return head + (self.response_headers or [])


class UnaryContext(RestContext):
    __slots__ = ("_gzips", "_known", "_tag")

    def accept(self, headers: dict[bytes, bytes]) -> None:
        super().accept(headers)
        self._gzips = accepts_gzip(headers.get(b"accept-encoding", b""))
        self._known = headers.get(b"if-none-match")
        if self._known is not None and self._endpoint.rule.verb != "GET":
            self._problems.append(FieldViolation("if-none-match", "is not supported by this method"))

    async def write(self, message: bytes) -> None:
        raise NotImplementedError  # the method does not stream

    def encoded(self, response: bytes) -> bytes:
        body, self._tag = self._endpoint.response.write(response)
        return body

    def end(self, response: bytes | None) -> None:
        """`response` is encoded."""
        if response is None:
            return self.error().send(self._exchange, *self._head())
        body, tag = response, self._tag
        head = [*JSON_HEAD, *self._head()]
        if tag is not None:
            head.append((b"etag", tag))
            if self._known is not None and (tag in self._known or self._known.strip() == b"*"):
                return self._exchange.respond(304, head[1:])
        elif self._gzips and len(body) >= COMPRESS_FROM and self._endpoint.compresses:
            # Only without an entity tag, which would have to differ from that of the uncompressed response.
            head.append((b"content-encoding", GZIP))
            body = compress(body, GZIP)
        return self._exchange.respond(200, head, body)


class StreamContext(RestContext):
    """Sends a heartbeat when nothing else was sent for `HEARTBEAT_SECONDS`, so that proxies keep the response open."""

    __slots__ = ("_beat", "_events", "_sent_at")

    def accept(self, headers: dict[bytes, bytes]) -> None:
        super().accept(headers)
        self._events = EVENTS in headers.get(b"accept", b"")
        self._sent_at = monotonic()
        self._beat = asyncio.get_running_loop().create_task(self._keep_alive())

    async def write(self, message: bytes) -> None:
        document, _ = self._endpoint.response.write(message)
        await self._send(b"data: %b\n\n" % document if self._events else document + b"\n")

    async def _send(self, data: bytes) -> None:
        self._start()
        self._sent_at = monotonic()
        await self._exchange.send(data)

    def _start(self) -> None:
        if not self._exchange.started:
            kind = EVENTS if self._events else NDJSON
            # nginx would collect the events of a response.
            head = [(b"content-type", kind), *SAFE_HEADERS, (b"x-accel-buffering", b"no"), *self._head()]
            self._exchange.start(200, head)

    async def _keep_alive(self) -> None:
        while True:
            quiet = monotonic() - self._sent_at
            if quiet < HEARTBEAT_SECONDS:
                await asyncio.sleep(HEARTBEAT_SECONDS - quiet)
            else:
                await self._send(b": \n\n" if self._events else b"\n")

    def close(self) -> None:
        self._beat.cancel()

    def end(self, response: bytes | None) -> None:
        failed = bool(self.status)
        if failed and not self._exchange.started:
            return self.error().send(self._exchange, *self._head())
        self._start()
        return self._exchange.finish(self._last() if failed else b"event: end\ndata: {}\n\n" if self._events else b"")

    def _last(self) -> bytes:
        body = self.error().body
        return b"event: error\ndata: %b\n\n" % body if self._events else b'{"error":%b}\n' % body


def forwarded_metadata(exchange: Exchange) -> list[tuple[str, str | bytes]]:
    """What a page hands on of its own request to a call that it makes for the client."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in exchange.headers if name in _FORWARDED]


def _first(metadata: Metadata, name: str) -> str:
    return next((str(value) for key, value in metadata if key == name), "")


def _is_json(content_type: bytes) -> bool:
    if content_type == JSON:
        return True
    kind, *parameters = content_type.lower().split(b";")
    return kind.strip() == JSON and all(
        parameter.strip() in (b"charset=utf-8", b'charset="utf-8"') for parameter in parameters
    )
