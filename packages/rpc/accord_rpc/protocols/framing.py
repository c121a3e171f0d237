"""Length-prefixed messages and their compression, as gRPC, gRPC-Web and the streams of Connect send them."""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import grpc

from accord_rpc.server.exchange import Exchange

MOST_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MOST_INCOMPLETE_BYTES: Final = 256 * 1024 * 1024
"""Of one process."""
TOO_LARGE: Final = "The message is larger than 4 MiB."
COMPRESSED: Final = 1
"""The flag of a compressed message."""
_PREFIX: Final = 5  # bytes: flags and length
_WINDOW_BITS: Final[Mapping[bytes, int]] = {b"gzip": 31, b"deflate": 15}
ENCODINGS: Final = frozenset({b"identity", *_WINDOW_BITS})
ACCEPTED_ENCODINGS: Final = b"identity,deflate,gzip"


class FramingError(Exception):
    """The body violates the protocol, or a message is too large."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def frame(message: bytes, flags: int = 0) -> bytes:
    return bytes((flags,)) + len(message).to_bytes(4, "big") + message


class Incomplete:
    """The bytes of requests that have begun to arrive. One per process: a call without its whole request holds no slot, and its
    sender could otherwise let the server hold 4 MiB for each."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def hold(self, size: int) -> None:
        """Raises FramingError if too many are held."""
        if self.held + size > self.limit:
            raise FramingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many messages arrive at a time.")
        self.held += size

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Raises FramingError."""
        self.hold(size)
        try:
            yield
        finally:
            self.held -= size


INCOMPLETE: Final = Incomplete(MOST_INCOMPLETE_BYTES)


class MessageReader:
    """Cuts a body into messages. `close` it at the end of the call: its bytes count until then."""

    __slots__ = ("_at", "_bytes", "_encoding", "_held", "_incomplete")

    def __init__(self, encoding: bytes | None = None, incomplete: Incomplete = INCOMPLETE) -> None:
        """`encoding` is that of compressed messages; None if the headers name none."""
        self._encoding = encoding
        self._bytes: bytes | bytearray = b""
        self._at = 0  # where the next message begins
        self._incomplete = incomplete
        self._held = 0

    @property
    def is_empty(self) -> bool:
        """Whether the bytes end with a message."""
        return self._at == len(self._bytes)

    def feed(self, data: bytes) -> None:
        if self._at == len(self._bytes):
            self._bytes, self._at = data, 0
            return
        if isinstance(self._bytes, bytes):
            self._bytes = bytearray(self._bytes)
        del self._bytes[: self._at]
        self._at = 0
        self._bytes += data

    def take(self) -> tuple[int, bytes] | None:
        """The flags and the expanded content of the next message; None until it has arrived. Raises FramingError, also if the process
        holds too many incomplete messages."""
        data, begin = self._bytes, self._at + _PREFIX
        if len(data) < begin:
            return None
        end = begin + int.from_bytes(data[begin - 4 : begin], "big")
        if end - begin > MOST_MESSAGE_BYTES:
            raise FramingError(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_LARGE)
        if len(data) < end:
            self._hold(len(data) - self._at)
            return None
        flags, message = data[self._at], bytes(data[begin:end])
        self._at = end
        self.close()
        return flags, (expand(message, self._encoding) if flags & COMPRESSED else message)

    def _hold(self, size: int) -> None:
        self._incomplete.hold(size - self._held)
        self._held = size

    def close(self) -> None:
        if self._held:
            self._incomplete.held -= self._held
            self._held = 0


async def read_body(exchange: Exchange, incomplete: Incomplete = INCOMPLETE) -> bytes:
    """A whole body that is one message. Raises FramingError."""
    parts: list[bytes] = []
    size = 0
    try:
        while (part := await exchange.receive()) is not None:
            incomplete.hold(len(part))
            size += len(part)
            parts.append(part)
            if size > MOST_MESSAGE_BYTES:
                raise FramingError(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_LARGE)
        return b"".join(parts)
    finally:
        incomplete.held -= size


def expand(data: bytes, encoding: bytes | None) -> bytes:
    """Raises FramingError, without having expanded more than a message may have."""
    if encoding is None or encoding not in _WINDOW_BITS:
        raise FramingError(grpc.StatusCode.INTERNAL, "A message is compressed, but the headers name no compression.")
    inflate = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        expanded = inflate.decompress(data, MOST_MESSAGE_BYTES + 1)
    except zlib.error:
        expanded = b""
    if len(expanded) > MOST_MESSAGE_BYTES:
        raise FramingError(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_LARGE)
    if not inflate.eof or inflate.unused_data:
        raise FramingError(grpc.StatusCode.INTERNAL, "A message is not compressed as its headers say.")
    return expanded


def compress(data: bytes, encoding: bytes) -> bytes:
    """`encoding` is gzip or deflate."""
    deflate = zlib.compressobj(1, wbits=_WINDOW_BITS[encoding])
    return deflate.compress(data) + deflate.flush()
