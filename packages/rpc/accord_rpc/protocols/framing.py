"""Length-prefixed messages and their compression, as gRPC, gRPC-Web and the streams of Connect send them."""

import zlib
from collections.abc import Mapping
from typing import Final

import grpc

MOST_MESSAGE_BYTES: Final = 4 * 1024 * 1024
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


class MessageReader:
    """Cuts a body into messages."""

    __slots__ = ("_bytes", "_encoding")

    def __init__(self, encoding: bytes | None = None) -> None:
        """`encoding` is that of compressed messages; None if the headers name none."""
        self._encoding = encoding
        self._bytes: bytes | bytearray = b""

    @property
    def is_empty(self) -> bool:
        """Whether the bytes end with a message."""
        return not self._bytes

    def feed(self, data: bytes) -> None:
        if not self._bytes:
            self._bytes = data
            return
        if isinstance(self._bytes, bytes):
            self._bytes = bytearray(self._bytes)
        self._bytes += data

    def take(self) -> tuple[int, bytes] | None:
        """The flags and the expanded content of the next message; None until it has arrived. Raises FramingError."""
        data = self._bytes
        if len(data) < _PREFIX:
            return None
        end = _PREFIX + int.from_bytes(data[1:_PREFIX], "big")
        if end - _PREFIX > MOST_MESSAGE_BYTES:
            raise FramingError(grpc.StatusCode.RESOURCE_EXHAUSTED, "The message is larger than 4 MiB.")
        if len(data) < end:
            return None
        message = bytes(data[_PREFIX:end])
        self._bytes = data[end:]
        flags = data[0]
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
    if not inflate.eof:
        raise FramingError(grpc.StatusCode.INTERNAL, "A message is not compressed as its headers say.")
    return expanded


def compress(data: bytes, encoding: bytes) -> bytes:
    """`encoding` is gzip or deflate."""
    deflate = zlib.compressobj(1, wbits=_WINDOW_BITS[encoding])
    return deflate.compress(data) + deflate.flush()
