"""Connect calls with one message each way: the body of the request and of the response."""

from base64 import b64decode
from binascii import Error as Base64Error
from typing import Final
from urllib.parse import unquote_to_bytes

from grpc.aio import EOF

from accord_rpc.errors import FieldViolation, invalid
from accord_rpc.protocols.compression import COMPRESS_FROM, GZIP
from accord_rpc.protocols.connect.calls import ConnectContext, Endpoint
from accord_rpc.protocols.framing import FramingError, compress, read_body
from accord_rpc.protocols.http_errors import JSON_HEAD, SAFE_HEADERS, connect_error, ended_with, hints, http_status
from accord_rpc.protocols.json_codec.writer import to_json
from accord_rpc.server.exchange import Exchange

_PROTO_HEAD: Final = ((b"content-type", b"application/proto"), *SAFE_HEADERS)
_PARAMETERS: Final = (b"base64", b"compression", b"connect", b"encoding", b"message")


class UnaryContext(ConnectContext):
    __slots__ = ("_was_read",)

    def __init__(self, endpoint: Endpoint, exchange: Exchange, *, is_json: bool) -> None:
        super().__init__(
            endpoint, exchange, is_json=is_json, encoding=b"content-encoding", accept_encoding=b"accept-encoding"
        )
        self._was_read = False

    async def read(self) -> object:
        if self._was_read:
            return EOF
        self._was_read = True
        await self._check()
        body = await self._body()
        return self._request(body if self._encoding == b"identity" or not body else await self._expand(body))

    async def _body(self) -> bytes:
        try:
            return await read_body(self._exchange)
        except FramingError as error:
            await self.abort(error.code, error.message)

    async def write(self, message: bytes) -> None:
        raise NotImplementedError  # the method does not stream

    def encoded(self, response: bytes) -> bytes:
        return self._response(response)

    def end(self, response: bytes | None) -> None:
        trailers = [(b"trailer-" + name.encode(), value) for name, value in self._trailers()]
        own = (*self._own_headers(), *trailers)
        if response is None:
            self._fail(own)
            return
        body, head = response, (*(JSON_HEAD if self._is_json else _PROTO_HEAD), *own)
        if self._gzips and len(body) >= COMPRESS_FROM:
            body, head = compress(body, GZIP), (*head, (b"content-encoding", GZIP))
        self._exchange.respond(200, head, body)

    def _fail(self, own: tuple[tuple[bytes, bytes], ...]) -> None:
        """Errors are JSON, whatever the messages are."""
        status = ended_with(self)
        if self._encoding not in (b"identity", GZIP):
            own = (*own, (b"accept-encoding", GZIP))
        head = (*JSON_HEAD, *hints(status), *own)
        self._exchange.respond(http_status(status), head, to_json(connect_error(status)))


class Query:
    """The parameters of a GET, percent-decoded once."""

    def __init__(self, query: bytes) -> None:
        self.problems: list[FieldViolation] = []
        self._given: dict[bytes, bytes] = {}
        for pair in query.split(b"&") if query else ():
            name, _, value = pair.partition(b"=")
            if name not in _PARAMETERS:
                self.problems.append(FieldViolation("query", "has a parameter that is not one of Connect"))
            elif name in self._given:
                self.problems.append(FieldViolation(name.decode(), "must be given once"))
            else:
                self._given[name] = unquote_to_bytes(value.replace(b"+", b" "))
        if self._given.get(b"connect", b"v1") != b"v1":
            self.problems.append(FieldViolation("connect", "must be v1"))

    @property
    def encoding(self) -> bytes:
        return self._given.get(b"encoding", b"")

    @property
    def compression(self) -> bytes:
        return self._given.get(b"compression", b"identity")

    def message(self) -> bytes | None:
        """None, and another problem, if it is missing or malformed."""
        message = self._given.get(b"message")
        if message is None:
            self.problems.append(FieldViolation("message", "must be given"))
            return None
        if self._given.get(b"base64", b"0") != b"1":
            return message
        text = message.rstrip(b"=")
        try:
            return b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except Base64Error:
            self.problems.append(FieldViolation("message", "must be URL-safe base64"))
            return None


class GetContext(UnaryContext):
    """A call whose message is in the query."""

    __slots__ = ("_message",)

    def __init__(self, endpoint: Endpoint, exchange: Exchange, query: Query, *, is_json: bool) -> None:
        super().__init__(endpoint, exchange, is_json=is_json)
        self._encoding = query.compression
        self._message = query.message()
        self._problems += query.problems

    async def _body(self) -> bytes:
        if self._message is None:
            raise invalid(*self._problems)
        return self._message
