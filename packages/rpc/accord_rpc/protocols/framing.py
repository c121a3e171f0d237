"""Length-prefixed messages and their compression, as gRPC, gRPC-Web and the streams of Connect send them."""

import zlib
from collections.abc import Mapping
from typing import Final

import grpc

MOST_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MOST_INCOMPLETE_BYTES: Final = 256 * 1024 * 1024
"""Of one process."""
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
    """The bytes of messages that have begun to arrive. One per process: a call without its whole message holds no slot, and its
    sender could otherwise let the server hold 4 MiB for each."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0


class _Held:
    """The bytes of one reader. They no longer count when it has gone; most readers never make one."""

    __slots__ = ("_incomplete", "_size")

    def __init__(self, incomplete: Incomplete) -> None:
        self._incomplete = incomplete
        self._size = 0

    def add(self, size: int) -> None:
        """Raises FramingError if the process holds too many."""
        if self._incomplete.held + size > self._incomplete.limit:
            raise FramingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many messages arrive at a time.")
        self._incomplete.held += size
        self._size += size

    def __del__(self) -> None:
        self._incomplete.held -= self._size


_INCOMPLETE: Final = Incomplete(MOST_INCOMPLETE_BYTES)


class MessageReader:
    """Cuts a body into messages."""

    __slots__ = ("_at", "_bytes", "_encoding", "_held", "_incomplete")

    def __init__(self, encoding: bytes | None = None, incomplete: Incomplete = _INCOMPLETE) -> None:
        """`encoding` is that of compressed messages; None if the headers name none."""
        self._encoding = encoding
        self._bytes: bytes | bytearray = b""
        self._at = 0  # where the next message begins
        self._incomplete = incomplete
        self._held: _Held | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the bytes end with a message."""
        return self._at == len(self._bytes)

    def feed(self, data: bytes) -> None:
        """Raises FramingError if the process holds too many incomplete messages."""
        if self._at == len(self._bytes):
            self._bytes, self._at = data, 0
            return
        if self._held is None:
            self._held = _Held(self._incomplete)
        self._held.add(len(data))
        if isinstance(self._bytes, bytes):
            self._bytes = bytearray(self._bytes)
        del self._bytes[: self._at]
        self._at = 0
        self._bytes += data

    def take(self) -> tuple[int, bytes] | None:
        """The flags and the expanded content of the next message; None until it has arrived. Raises FramingError."""
        data, begin = self._bytes, self._at + _PREFIX
        if len(data) < begin:
            return None
        end = begin + int.from_bytes(data[begin - 4 : begin], "big")
        if end - begin > MOST_MESSAGE_BYTES:
            raise FramingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "The message is larger than 4 MiB.")
        if len(data) < end:
            return None
        flags, message = data[self._at], bytes(data[begin:end])
        self._at = end
        self._held = None
        return flags, (expand(message, self._encoding) if flags & COMPRESSED else message)


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
        raise FramingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "The message is larger than 4 MiB.")
    if not inflate.eof or inflate.unused_data:
        raise FramingError(grpc.StatusCode.INTERNAL, "A message is not compressed as its headers say.")
    return expanded


def compress(data: bytes, encoding: bytes) -> bytes:
    """`encoding` is gzip or deflate."""
    deflate = zlib.compressobj(1, wbits=_WINDOW_BITS[encoding])
    return deflate.compress(data) + deflate.flush()
