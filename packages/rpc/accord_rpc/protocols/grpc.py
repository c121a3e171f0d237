"""gRPC over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).

Requests that violate the protocol get a status here, without details, before any stage of the pipeline has seen them."""

import asyncio
import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Collection, Sequence
from contextlib import suppress
from time import monotonic
from typing import ClassVar, Final, Protocol
from urllib.parse import quote

import grpc
from grpc.aio import EOF, AbortError

from accord_rpc.errors import FieldViolation, invalid
from accord_rpc.interceptor import Next
from accord_rpc.pipeline.refusals import Refusal, Refusals, is_health_check
from accord_rpc.pipeline.telemetry import request_id
from accord_rpc.protocols.compression import COMPRESS_FROM, GZIP, accepts_gzip
from accord_rpc.protocols.context import SECONDS_OF_UNIT, Metadata, ProtocolContext
from accord_rpc.protocols.dispatch import ProtocolHandler, header
from accord_rpc.protocols.framing import (
    ACCEPTED_ENCODINGS,
    COMPRESSED,
    ENCODINGS,
    FramingError,
    MessageReader,
    compress,
    frame,
)
from accord_rpc.protocols.refused import Refused
from accord_rpc.server.exchange import Exchange, Headers
from accord_rpc.status import STATUS_HEADER

MALFORMED: Final = Refused(400)
"""As it is logged; the HTTP status of gRPC is always 200."""
CONTENT_TYPES: Final = frozenset({b"application/grpc", b"application/grpc+proto"})
_HEAD: Final = ((b"content-type", b"application/grpc"),)
ENCODING: Final = (b"grpc-encoding", GZIP)
_COMPRESSED_HEAD: Final = (*_HEAD, ENCODING)
_REQUEST_SECONDS: Final = 0.025
_OK: Final = (b"grpc-status", b"0")
_TIMEOUT: Final = re.compile(rb"([0-9]+)([HMSmun])")
_MOST_TIMEOUT_DIGITS: Final = 8  # of the specification; a longer number is as good as no deadline
# What the protocol consumes. The pipeline gets the other headers.
_CONSUMED: Final = frozenset(
    {b"te", b"content-type", b"grpc-encoding", b"grpc-accept-encoding", b"grpc-timeout", b"accept-encoding", b"cookie"}
)
# Percent-encoding of grpc-message leaves all printable ASCII but "%".
_UNQUOTED: Final = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


class Chains(Protocol):
    """Finds the stages and the handler of a method. See `Routes`."""

    def find(self, path: str) -> Next: ...


class Malformed(Exception):
    """A header violates gRPC."""

    def __init__(self, code: grpc.StatusCode, message: str, trailers: Headers = ()) -> None:
        super().__init__(message)
        self.code = code.value[0]
        self.message = message
        self.trailers = trailers


class GrpcProtocol(ProtocolHandler):
    """`compressed` are the paths of the methods whose responses are compressed. See `may_compress`."""

    def __init__(self, chains: Chains, compressed: Collection[bytes] = ()) -> None:
        self._chains = chains
        self._compressed = frozenset(compressed)

    def accepts(self, exchange: Exchange, content_type: bytes) -> bool:
        return exchange.http_version == 2 and (
            content_type in CONTENT_TYPES or content_type.partition(b";")[0].rstrip() in CONTENT_TYPES
        )

    async def serve(self, exchange: Exchange) -> None:
        if exchange.method != b"POST":
            exchange.respond(405, ((b"allow", b"POST"),))
            return self.refused.record(exchange, Refused(405))
        try:
            context = GrpcContext(exchange, compresses=exchange.target in self._compressed)
        except Malformed as malformed:
            _respond_without_message(exchange, malformed.code, malformed.message, malformed.trailers)
            return self.refused.record(exchange, MALFORMED)
        chain = self._chains.find(exchange.target.decode("latin-1"))
        try:
            response = await chain(None, context)
        except AbortError:
            response = None
            if not (exchange.request_ended or exchange.started):
                await _wait_for_request(exchange)
        finally:
            context.close()
        context.end(response)
        return None


class QuickRefusals:
    """Refuses gRPC calls without a task, a context or a chain for each: under overload, what a refusal costs is lost for calls."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._heads: dict[Refusal, Headers] = {}

    def refuse(self, exchange: Exchange) -> bool:
        """Whether the exchange has its response. Others are refused by their protocol: those that still send, for whose end
        grpcio's client must be waited, and other content types."""
        if not exchange.request_ended or exchange.method != b"POST":
            return False
        if self._refusals.admit() or header(exchange, b"content-type") not in CONTENT_TYPES:
            return False
        path = exchange.target.decode("latin-1")
        if is_health_check(path):
            return False
        refusal = self._refusals.refuse(path)
        sent = header(exchange, b"x-request-id").decode("latin-1")
        head = self._heads.get(refusal) or self._head(refusal)
        exchange.respond(200, (*head, (b"x-request-id", request_id(sent).encode())))
        return True

    def _head(self, refusal: Refusal) -> Headers:
        status = refusal.status
        details = encoded_metadata(((STATUS_HEADER, status.details),))
        head = (*_HEAD, *status_fields(status.code.value[0], status.message, details))
        self._heads[refusal] = head
        return head


class GrpcContext(ProtocolContext):
    """One call. Raises Malformed if its headers are."""

    __slots__ = ("_exchange", "_gzips", "_reader")

    SENDS_TRAILERS: ClassVar = True
    """The status is in trailers, which the client must be able to receive."""

    def __init__(self, exchange: Exchange, *, compresses: bool = False) -> None:
        self._exchange = exchange
        self._gzips = False
        metadata: list[tuple[str, str | bytes]] = []
        encoding = deadline = te = None
        for name, value in exchange.headers:
            if name not in _CONSUMED:
                text = _binary(value) if name.endswith(b"-bin") else value.decode("latin-1")
                metadata.append((name.decode("latin-1"), text))
            elif name == b"grpc-timeout":
                deadline = _deadline(value)
            elif name == b"grpc-encoding":
                encoding = _encoding(value)
            elif name == b"te":
                te = value
            elif name == b"grpc-accept-encoding":
                self._gzips = compresses and accepts_gzip(value)
        if self.SENDS_TRAILERS and te != b"trailers":  # a proxy that removes it would also drop the status
            raise Malformed(grpc.StatusCode.INTERNAL, "The header te must be trailers.")
        self._reader = MessageReader(encoding)
        super().__init__(metadata, exchange.peer, exchange.peer_uris, deadline)

    @property
    def request_has_arrived(self) -> bool:
        return self._exchange.request_ended

    @property
    def request_is_read(self) -> bool:
        return self._exchange.body_is_read and self._reader.is_empty

    async def read(self) -> object:
        reader = self._reader
        try:
            while (found := reader.take()) is None:
                data = await self._receive()
                if data is None:
                    return self._end_of_request()
                reader.feed(data)
        except FramingError as error:
            await self.abort(error.code, error.message)
        return found[1]

    def _end_of_request(self) -> object:
        if not self._reader.is_empty:
            raise invalid(FieldViolation("", "the body ends within a message"))
        return EOF

    def _receive(self) -> Awaitable[bytes | None]:
        return self._exchange.receive()

    async def write(self, message: bytes) -> None:
        exchange = self._exchange
        if not exchange.started:
            exchange.start(200, _COMPRESSED_HEAD if self._gzips else _HEAD)
        await exchange.send(self._framed(message))

    def _framed(self, message: bytes) -> bytes:
        if self._gzips and len(message) >= COMPRESS_FROM:
            return frame(compress(message, GZIP), COMPRESSED)
        return frame(message)

    def close(self) -> None:
        """The call has ended, or was cancelled."""
        self._reader.close()

    def end(self, response: bytes | None) -> None:
        """Sends the response of a method without a stream of them, and the status."""
        exchange = self._exchange
        if response is not None:
            trailers = (_OK, *encoded_metadata(self.trailers))
            exchange.respond(200, _COMPRESSED_HEAD if self._gzips else _HEAD, self._framed(response), trailers)
        elif exchange.started:
            exchange.finish(b"", status_fields(self.status or 0, self.message, encoded_metadata(self.trailers)))
        else:
            _respond_without_message(exchange, self.status or 0, self.message, encoded_metadata(self.trailers))


async def _wait_for_request(exchange: Exchange) -> None:
    """grpcio's asyncio client reports INTERNAL for a call that is refused while it sends its request."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_REQUEST_SECONDS):
            while await exchange.receive() is not None:
                pass


def _respond_without_message(exchange: Exchange, code: int, message: str, trailers: Headers) -> None:
    """Trailers-Only: the status is in the head of the response."""
    exchange.respond(200, (*_HEAD, *status_fields(code, message, trailers)))


def status_fields(code: int, message: str, trailers: Headers) -> Headers:
    fields = [(b"grpc-status", b"%d" % code)]
    if message:
        fields.append((b"grpc-message", quote(message, safe=_UNQUOTED).encode()))
    return [*fields, *trailers]


def encoded_metadata(metadata: Metadata) -> Sequence[tuple[bytes, bytes]]:
    return [
        (name.encode(), value.encode() if isinstance(value, str) else b64encode(value).rstrip(b"="))
        for name, value in metadata
    ]


def _binary(value: bytes) -> bytes:
    try:
        return b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        raise Malformed(grpc.StatusCode.INTERNAL, "A binary header is not encoded in base64.") from None


def _encoding(value: bytes) -> bytes:
    if value not in ENCODINGS:
        accepted = ((b"grpc-accept-encoding", ACCEPTED_ENCODINGS),)
        raise Malformed(grpc.StatusCode.UNIMPLEMENTED, "The compression of the messages is not supported.", accepted)
    return value


def _deadline(timeout: bytes) -> float | None:
    found = _TIMEOUT.fullmatch(timeout)
    if found is None:
        raise Malformed(grpc.StatusCode.INTERNAL, "The grpc-timeout header is malformed.")
    if len(found[1]) > _MOST_TIMEOUT_DIGITS:
        return None
    return monotonic() + int(found[1]) * SECONDS_OF_UNIT[found[2]]
