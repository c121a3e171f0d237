"""gRPC-Web (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md): gRPC for clients that cannot read trailers, in
binary, or as base64 for clients that cannot read binary bodies in parts."""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Collection
from typing import Final

import grpc
from grpc.aio import AbortError

from accord_rpc.pipeline.telemetry import REQUEST_ID_HEADER
from accord_rpc.protocols.dispatch import ProtocolHandler, header
from accord_rpc.protocols.framing import FramingError, frame
from accord_rpc.protocols.grpc import (
    ENCODING,
    MALFORMED,
    Chains,
    GrpcContext,
    Malformed,
    encoded_metadata,
    status_fields,
)
from accord_rpc.protocols.http_errors import SAFE_HEADERS, own_request_id
from accord_rpc.protocols.refused import Refused
from accord_rpc.server.exchange import Exchange, Headers

# The content types of requests, and those of their responses.
_BINARY: Final = {
    b"application/grpc-web": b"application/grpc-web+proto",
    b"application/grpc-web+proto": b"application/grpc-web+proto",
}
_TEXT: Final = {
    b"application/grpc-web-text": b"application/grpc-web-text+proto",
    b"application/grpc-web-text+proto": b"application/grpc-web-text+proto",
}
_RESPONSES: Final = _BINARY | _TEXT
_PREFIX: Final = b"application/grpc-web"
_TRAILERS: Final = 0x80
"""The flag of the frame that has the trailers."""
_NOT_BASE64: Final = "The body is not base64."
# A client may encode each message by itself, so that padding stands within the body.
_RUN: Final = re.compile(rb"[^=]*=+|[^=]+")


class GrpcWebProtocol(ProtocolHandler):
    """`compressed`: see `GrpcProtocol`."""

    def __init__(self, chains: Chains, compressed: Collection[bytes] = ()) -> None:
        self._chains = chains
        self._compressed = frozenset(compressed)

    def accepts(self, exchange: Exchange, content_type: bytes) -> bool:
        return content_type[: len(_PREFIX)].lower() == _PREFIX

    async def serve(self, exchange: Exchange) -> None:
        if exchange.method != b"POST":
            return self.refused.record(exchange, _refuse(exchange, 405, (b"allow", b"POST")))
        kind = header(exchange, b"content-type").partition(b";")[0].strip().lower()
        if kind not in _RESPONSES:
            accepted = (b"accept-post", b", ".join(_RESPONSES))
            return self.refused.record(exchange, _refuse(exchange, 415, accepted))
        try:
            compresses = exchange.target in self._compressed
            context = GrpcWebContext(exchange, _RESPONSES[kind], is_text=kind in _TEXT, compresses=compresses)
        except Malformed as malformed:
            head = ((b"content-type", _RESPONSES[kind]), *SAFE_HEADERS, own_request_id(exchange))
            status = status_fields(malformed.code, malformed.message, malformed.trailers)
            exchange.respond(200, (*head, *status))
            return self.refused.record(exchange, MALFORMED)
        try:
            response = await self._chains.find(exchange.target.decode("latin-1"))(None, context)
        except AbortError:
            response = None
        finally:
            context.close()
        context.end(response)
        return None


def _refuse(exchange: Exchange, status: int, header: tuple[bytes, bytes]) -> Refused:
    own = own_request_id(exchange)
    exchange.respond(status, (header, *SAFE_HEADERS, own))
    return Refused(status, own[1].decode())


class GrpcWebContext(GrpcContext):
    """One call. Raises Malformed if its headers are."""

    __slots__ = ("_kind", "_text")

    SENDS_TRAILERS = False

    def __init__(self, exchange: Exchange, kind: bytes, *, is_text: bool, compresses: bool) -> None:
        super().__init__(exchange, compresses=compresses)
        self.take_cookies(exchange.headers)
        self._kind = kind
        self._text = Base64Decoder() if is_text else None

    @property
    def request_is_read(self) -> bool:
        return self._text is None and super().request_is_read  # else the end of base64 must be checked

    async def _receive(self) -> bytes | None:
        data = await self._exchange.receive()
        if self._text is None:
            return data
        if data is None:
            self._text.end()
            return None
        return self._text.feed(data)

    async def write(self, message: bytes) -> None:
        if not self._exchange.started:
            self._exchange.start(200, self._head())
        await self._exchange.send(self._encoded(self._framed(message)))

    def end(self, response: bytes | None) -> None:
        exchange = self._exchange
        fields = status_fields(self.status or 0, self.message, encoded_metadata(self.trailers))
        if response is None and not exchange.started:
            return exchange.respond(200, (*self._head(with_request_id=False), *fields))
        trailers = frame(b"".join(b"%b: %b\r\n" % field for field in fields), _TRAILERS)
        if response is not None:
            return exchange.respond(200, self._head(), self._encoded(self._framed(response) + trailers))
        return exchange.finish(self._encoded(trailers))

    def _head(self, *, with_request_id: bool = True) -> Headers:
        head = [(b"content-type", self._kind), *SAFE_HEADERS, *(self.response_headers or ())]
        if self._gzips:
            head.append(ENCODING)
        if with_request_id:
            own = [(name, value) for name, value in self.trailers if name == REQUEST_ID_HEADER]
            head += encoded_metadata(own)
        return head

    def _encoded(self, data: bytes) -> bytes:
        return data if self._text is None else b64encode(data)


class Base64Decoder:
    """Decodes base64 in parts of any length, with padding anywhere."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> bytes:
        """Raises FramingError."""
        data = self._left + data
        whole = len(data) // 4 * 4
        self._left = data[whole:]
        try:
            return b"".join(b64decode(run, validate=True) for run in _RUN.findall(data[:whole]))
        except Base64Error:
            raise FramingError(grpc.StatusCode.INTERNAL, _NOT_BASE64) from None

    def end(self) -> None:
        """Raises FramingError if the body has ended within four characters."""
        if self._left:
            raise FramingError(grpc.StatusCode.INTERNAL, _NOT_BASE64)
