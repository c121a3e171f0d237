"""What calls of the Connect protocol share: the method, the headers, and messages in JSON or binary."""

import binascii
from abc import abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from time import monotonic
from typing import Final, cast

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from accord_rpc.errors import FieldViolation, RpcError, invalid
from accord_rpc.pipeline.telemetry import REQUEST_ID_HEADER
from accord_rpc.policy import Method, has_sensitive_field
from accord_rpc.protocols.compression import GZIP, accepts_gzip, may_compress
from accord_rpc.protocols.context import MILLISECONDS, ProtocolContext
from accord_rpc.protocols.framing import FramingError, expand
from accord_rpc.protocols.json_codec import json_reader, json_writer
from accord_rpc.server.exchange import Exchange
from accord_rpc.status import STATUS_HEADER

# What the protocol consumes. The pipeline gets the other headers.
_CONSUMED: Final = frozenset(
    {
        *(b"accept-encoding", b"connect-accept-encoding", b"connect-content-encoding", b"connect-protocol-version"),
        *(b"connect-timeout-ms", b"content-encoding", b"content-length", b"content-type", b"cookie", b"te"),
    }
)


class Endpoint:
    """One method, with what its calls need. JSON is compiled at the first call that uses it."""

    def __init__(
        self,
        request: type[Message],
        response: type[Message],
        *,
        streams: bool = False,
        needs_http2: bool = False,
        safe: bool = False,
    ) -> None:
        self._request = request
        self._response = response
        self.streams = streams
        self.needs_http2 = needs_http2
        self.safe = safe
        self.compresses = may_compress(response)

    @classmethod
    @cache
    def of(cls, method: Method) -> "Endpoint":
        streams = method.request_streaming or method.response_streaming
        return cls(
            method.request,
            method.response,
            streams=streams,
            needs_http2=method.request_streaming and method.response_streaming,
            # Proxies and browsers record URLs, so they must not contain a secret.
            safe=method.safe and not streams and not has_sensitive_field(cast(Descriptor, method.request.DESCRIPTOR)),
        )

    @classmethod
    def unknown(cls, *, streams: bool) -> "Endpoint":
        """For a path without a method, whose calls the pipeline refuses."""
        return cls(Empty, Empty, streams=streams)

    @cached_property
    def read_json(self) -> Callable[[bytes], Message]:
        return json_reader(self._request)

    @cached_property
    def write_json(self) -> Callable[[bytes], bytes]:
        return json_writer(self._response)


class ConnectContext(ProtocolContext):
    """One call. Problems of its headers are raised by `read`, so that they are reported after access was decided."""

    __slots__ = ("_encoding", "_endpoint", "_exchange", "_gzips", "_is_json", "_problems")

    def __init__(
        self,
        endpoint: Endpoint,
        exchange: Exchange,
        *,
        is_json: bool,
        encoding: bytes,
        accept_encoding: bytes,
    ) -> None:
        """`encoding` and `accept_encoding` are the names of the headers that have them."""
        self._endpoint = endpoint
        self._exchange = exchange
        self._is_json = is_json
        self._encoding = b"identity"
        self._gzips = False
        self._problems: list[FieldViolation] = []
        metadata: list[tuple[str, str | bytes]] = []
        super().__init__(metadata, exchange.peer, exchange.peer_uris, None)
        self.take_cookies(exchange.headers)
        for name, value in exchange.headers:
            if name not in _CONSUMED:
                metadata.append((name.decode("latin-1"), self._value(name, value)))
            elif name == encoding:
                self._encoding = _combined(self._encoding, value.strip().lower() or b"identity")
            elif name == accept_encoding:
                self._gzips = endpoint.compresses and accepts_gzip(value)
            elif name == b"connect-timeout-ms":
                self._limit(value)
            elif name == b"connect-protocol-version" and value != b"1":
                self._problems.append(FieldViolation("connect-protocol-version", "must be 1"))

    @property
    def request_has_arrived(self) -> bool:
        return self._exchange.request_ended

    @abstractmethod
    def end(self, response: bytes | None) -> None:
        """Sends the response of a method without a stream of them, and the status."""

    def close(self) -> None:
        """The call has ended, or was cancelled."""

    def _value(self, name: bytes, value: bytes) -> str | bytes:
        if not name.endswith(b"-bin"):
            return value.decode("latin-1")
        try:
            return b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error:
            self._problems.append(FieldViolation(name.decode("latin-1"), "must be base64"))
            return b""

    def _limit(self, milliseconds: bytes) -> None:
        if MILLISECONDS.fullmatch(milliseconds):
            self.deadline = monotonic() + int(milliseconds) / 1000
        else:
            must = "must be a number of milliseconds, of at most 10 digits"
            self._problems.append(FieldViolation("connect-timeout-ms", must))

    async def _check(self) -> None:
        if self._encoding not in (b"identity", GZIP):
            await self.abort(grpc.StatusCode.UNIMPLEMENTED, "The compression is not supported: use gzip or identity.")

    async def _refuse(self, error: FramingError) -> Exception:
        """The exception to raise. A message that is too large ends the call here."""
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            await self.abort(error.code, error.message)
        return invalid(FieldViolation("", error.message))

    async def _expand(self, data: bytes) -> bytes:
        try:
            return expand(data, self._encoding)
        except FramingError as error:
            raise await self._refuse(error) from None

    def _request(self, data: bytes) -> bytes:
        """The message in binary. Raises INVALID_MESSAGE with the problems of the headers too."""
        if self._is_json:
            try:
                data = self._endpoint.read_json(data).SerializeToString()
            except RpcError as error:
                raise invalid(*self._problems, *error.violations) from None
        if self._problems:
            raise invalid(*self._problems)
        return data

    def _response(self, binary: bytes) -> bytes:
        return self._endpoint.write_json(binary) if self._is_json else binary

    def _own_headers(self) -> Iterator[tuple[bytes, bytes]]:
        """The request id, and what stages add."""
        yield from self.response_headers or ()
        for name, value in self.trailers:
            if name == REQUEST_ID_HEADER:
                yield name.encode(), _text(value)

    def _trailers(self) -> Iterator[tuple[str, bytes]]:
        """Without the request id, which is a header, and the details of an error, which are in its body."""
        for name, value in self.trailers:
            if name not in (REQUEST_ID_HEADER, STATUS_HEADER):
                yield name, _text(value)


def _combined(first: bytes, second: bytes) -> bytes:
    """Of a header that may repeat (RFC 9110, section 5.3)."""
    return second if first == b"identity" else first + b", " + second


def _text(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else b64encode(value).rstrip(b"=")
