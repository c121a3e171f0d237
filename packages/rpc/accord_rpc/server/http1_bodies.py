"""The body of an HTTP/1.1 request: of a known length, or in chunks. Performs no input or output.

Bodies are framed here and not by httptools: it can neither stop at the end of a message nor limit the length of chunk extensions."""

import re
from abc import ABC, abstractmethod
from typing import Final

from accord_rpc.server.limits import ConnectionLimits

_TOKEN: Final = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_TRAILERS: Final = re.compile(
    rb"(?:(?!(?i:content-length|transfer-encoding|connection|host):)%b:[\t -~\x80-\xff]*\r\n)*\r\n" % _TOKEN
)
_CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:;%b(?:=(?:%b|\"[\t !#-\[\]-~\x80-\xff]*\"))?)*\r\n" % (_TOKEN, _TOKEN)
)

# Bytes of chunk lines that a body may contain beyond two for each byte of data. Without it, chunks of one byte cost a microsecond each.
_CHUNK_OVERHEAD: Final = 64 * 1024


class Rejected(Exception):
    """The request is not passed to the application. `code` is a gRPC code. The message contains no input."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def malformed(message: str) -> Rejected:
    return Rejected(400, 3, message)


class RequestBody(ABC):
    """What is left of the body of a request."""

    __slots__ = ("ended",)

    ended: bool

    @abstractmethod
    def take(self, buffer: bytes) -> tuple[bytes, bytes]:
        """Splits the bytes of a connection into data of the body and the rest. The caller passes the rest again, with the bytes after it."""

    @abstractmethod
    def at_most(self, size: int) -> bool:
        """Whether so many bytes are known to complete the body."""


class SizedBody(RequestBody):
    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = not length

    def take(self, buffer: bytes) -> tuple[bytes, bytes]:
        data = buffer[: self._left]
        self._left -= len(data)
        self.ended = not self._left
        return data, buffer[len(data) :]

    def at_most(self, size: int) -> bool:
        return self._left <= size


class ChunkedBody(RequestBody):
    __slots__ = ("_left", "_limits", "_overhead", "_trailers")

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._left = 0  # of a chunk, with the line break that follows its data
        self._overhead = _CHUNK_OVERHEAD
        self._trailers = False
        self.ended = False

    def take(self, buffer: bytes) -> tuple[bytes, bytes]:
        parts: list[bytes] = []
        position = 0
        while not self.ended:
            if self._left > 2:
                data = buffer[position : position + self._left - 2]
                parts.append(data)
                end = position + len(data)
                self._left -= len(data)
            elif self._left:
                end = self._skip_line_break(buffer, position)
            elif self._trailers:
                end = self._skip_trailers(buffer, position)
            else:
                end = self._read_size(buffer, position)
            if end == position:
                break
            position = end
        return b"".join(parts), buffer[position:]

    def at_most(self, size: int) -> bool:
        return False

    def _skip_line_break(self, buffer: bytes, position: int) -> int:
        if not b"\r\n".startswith(buffer[position : position + 2]):
            raise malformed("A chunk is longer than its size.")
        if len(buffer) < position + 2:
            return position
        self._left = 0
        return position + 2

    def _read_size(self, buffer: bytes, position: int) -> int:
        limit = self._limits.chunk_line_bytes
        end = buffer.find(b"\n", position, position + limit) + 1
        if not end:
            if len(buffer) - position >= limit:
                raise malformed("The extensions of a chunk are too long.")
            return position
        line = _CHUNK_LINE.fullmatch(buffer, position, end)
        if not line:
            raise malformed("The size of a chunk is invalid.")
        size = int(line[1], 16)
        self._left = size + 2 if size else 0
        self._trailers = not size
        self._overhead = min(_CHUNK_OVERHEAD, self._overhead + 2 * size - (end + 2 - position))
        if self._overhead < 0:
            raise malformed("The chunks are too small.")
        return end

    def _skip_trailers(self, buffer: bytes, position: int) -> int:
        """Trailers are dropped: no protocol uses them in requests."""
        if buffer.startswith(b"\r\n", position):
            self.ended = True
            return position + 2
        limit = self._limits.header_bytes
        end = buffer.find(b"\r\n\r\n", position, position + limit)
        if end < 0:
            if len(buffer) - position >= limit:
                raise Rejected(431, 8, "The trailers are too long.")
            return position
        if not _TRAILERS.fullmatch(buffer, position, end + 4):
            raise malformed("The trailers are malformed.")
        self.ended = True
        return end + 4
