"""HTTP/1.1 messages: the head and the body of a request, the head of a response. Performs no input or output.

Refuses every message that another HTTP implementation could read differently, even where RFC 9112 permits a repair: a proxy that
disagrees about where a request ends lets an attacker put requests into the connections of others (request smuggling).

Bodies are framed here and not by httptools: it can neither stop at the end of a message nor limit the length of chunk extensions."""

import re
from abc import ABC, abstractmethod
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from accord_rpc.server.exchange import Headers
from accord_rpc.server.limits import ConnectionLimits

END_OF_HEAD: Final = b"\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

# Headers of the connection (RFC 9110, section 7.6.1), and those that the server answers itself. Applications neither see nor send them.
_HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"host",
    )
)
_OF_SERVER: Final = _HOP_BY_HOP | {b"content-length", b"date"}

# The grammar of RFC 9112, without its obsolete forms. httptools agrees, except for requests of RTSP, ICE and HTTP/0.9, and several spaces.
_HEAD: Final = re.compile(
    rb"[A-Z-]+ [!-\"$-~]+ HTTP/1\.[01]\r\n" rb"(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n)*" rb"\r\n"
)
_FIELDS: Final = re.compile(rb"(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n)*\r\n")
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
_INVALID_BYTES: Final = re.compile(rb"[^\t\n\r -~\x80-\xff]|\r(?!\n|\Z)|(?<!\r)\n")
_ABSOLUTE_TARGET: Final = re.compile(rb"(?i:https?)://([^/?]+)(/?.*)")
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[-0-9A-Za-z._~%!$&'()*+,;=]*)(?::[0-9]{0,5})?")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?\r\n")
_CONTENT_LENGTH_DIGITS: Final = 15

# Bytes of chunk lines that a body may contain beyond two for each byte of data. Without it, chunks of one byte cost a microsecond each.
_CHUNK_OVERHEAD: Final = 64 * 1024


class Rejected(Exception):
    """The request is not passed to the application. `code` is a gRPC code. The message contains no input."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def response(self) -> bytes:
        body = b'{"code":%d,"message":"%b"}' % (self.code, str(self).encode())
        headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
        return response_head(self.status, headers, content_length(body) + CLOSE) + body


def _malformed(message: str) -> Rejected:
    return Rejected(400, 3, message)


class RequestBody(ABC):
    """What is left of the body of a request."""

    __slots__ = ("ended",)

    ended: bool

    @abstractmethod
    def take(self, buffer: bytes) -> tuple[bytes, bytes]:
        """Splits the bytes of a connection into data of the body and the rest, which is to be passed again with what follows it."""

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
            raise _malformed("A chunk is longer than its size.")
        if len(buffer) < position + 2:
            return position
        self._left = 0
        return position + 2

    def _read_size(self, buffer: bytes, position: int) -> int:
        limit = self._limits.chunk_line_bytes
        end = buffer.find(b"\n", position, position + limit) + 1
        if not end:
            if len(buffer) - position >= limit:
                raise _malformed("The extensions of a chunk are too long.")
            return position
        line = _CHUNK_LINE.fullmatch(buffer, position, end)
        if not line:
            raise _malformed("The size of a chunk is invalid.")
        size = int(line[1], 16)
        self._left = size + 2 if size else 0
        self._trailers = not size
        self._overhead = min(_CHUNK_OVERHEAD, self._overhead + 2 * size - (end + 2 - position))
        if self._overhead < 0:
            raise _malformed("The chunks are too small.")
        return end

    def _skip_trailers(self, buffer: bytes, position: int) -> int:
        """Trailers are dropped: no protocol uses them in requests."""
        if buffer.startswith(b"\r\n", position):
            self.ended = True
            return position + 2
        limit = self._limits.header_bytes
        end = buffer.find(END_OF_HEAD, position, position + limit)
        if end < 0:
            if len(buffer) - position >= limit:
                raise Rejected(431, 8, "The trailers are too long.")
            return position
        if not _FIELDS.fullmatch(buffer, position, end + 4):
            raise _malformed("The trailers are malformed.")
        self.ended = True
        return end + 4


class Request:
    """The head of a request, checked. `body` is None if there is none."""

    __slots__ = ("authority", "body", "expects_continue", "headers", "keep_alive", "method", "target", "version_1_0")

    def __init__(self, method: bytes, fields: "_Fields", limits: ConnectionLimits, *, version_1_0: bool) -> None:
        self.method = method
        self.version_1_0 = version_1_0
        self.headers = fields.headers
        self.target, self.authority = _target(method, fields.target, self._host(fields.of("host")))
        self.body = self._body(fields, limits)
        self.keep_alive = not version_1_0 and b"close" not in _tokens(fields.of("connection"))
        self.expects_continue = self._expectation(fields.of("expect"))

    def _host(self, hosts: list[bytes]) -> bytes:
        if len(hosts) != 1 and not (self.version_1_0 and not hosts):
            raise _malformed("The request must have exactly one Host header.")
        if hosts and not _HOST.fullmatch(hosts[0]):
            raise _malformed("The Host header is invalid.")
        return hosts[0] if hosts else b""

    def _body(self, fields: "_Fields", limits: ConnectionLimits) -> RequestBody | None:
        codings, lengths = fields.of("transfer-encoding"), fields.of("content-length")
        if codings:
            if lengths or codings != [b"chunked"] or self.version_1_0:
                raise _malformed("Transfer-Encoding must be chunked, without Content-Length.")
            return ChunkedBody(limits)
        if not lengths:
            return None
        if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > _CONTENT_LENGTH_DIGITS:
            raise _malformed("Content-Length is invalid.")
        return SizedBody(int(lengths[0])) if lengths[0].strip(b"0") else None

    def _expectation(self, expectations: list[bytes]) -> bool:
        if self.version_1_0 or not expectations:
            return False
        if any(expectation.lower() != b"100-continue" for expectation in expectations):
            raise Rejected(417, 3, "The only supported expectation is 100-continue.")
        return self.body is not None


class _Fields:
    """What httptools reports of a head."""

    __slots__ = ("_own", "headers", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self._own: dict[bytes, list[bytes]] = {}

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name, value = name.lower(), value.rstrip(b"\t ")
        if name in _OF_SERVER:
            self._own.setdefault(name, []).append(value)
        if name not in _HOP_BY_HOP:
            self.headers.append((name, value))

    def of(self, name: str) -> list[bytes]:
        return self._own.get(name.encode(), [])


def parse_head(head: bytes, limits: ConnectionLimits) -> Request:
    """Parses the bytes up to and including the empty line. Raises Rejected."""
    check_size(head, limits)
    if not _HEAD.fullmatch(head):
        raise _malformed("The request is not valid HTTP/1.1.")
    fields = _Fields()
    parser = HttpRequestParser(fields)
    try:
        parser.feed_data(head)
    except HttpParserUpgrade:
        if head.startswith(b"CONNECT "):
            raise Rejected(501, 12, "CONNECT is not supported.") from None
        # Other upgrades are ignored, as RFC 9110, section 7.8, permits.
    except HttpParserError:
        raise _malformed("The request is not valid HTTP/1.1.") from None
    return Request(parser.get_method(), fields, limits, version_1_0=parser.get_http_version() == "1.0")


def without_empty_lines(buffer: bytes) -> bytes:
    """Some clients end a body with a line break (RFC 9112, section 2.2)."""
    lines = _EMPTY_LINES.match(buffer)
    return buffer[lines.end() :] if lines else buffer


def check_incomplete_head(buffer: bytes, start: int, limits: ConnectionLimits) -> None:
    """Rejects at once what cannot become a valid head. The bytes before `start` have been checked."""
    check_size(buffer, limits)
    if _INVALID_BYTES.search(buffer, max(0, start - 1)):
        raise _malformed("The request is not valid HTTP/1.1.")


def check_size(head: bytes, limits: ConnectionLimits) -> None:
    line = head.find(b"\r\n")
    if (len(head) if line < 0 else line) > limits.target_bytes + 32:  # the method and the version
        raise Rejected(414, 8, "The target of the request is too long.")
    if line >= 0 and len(head) - line > limits.header_bytes:
        raise Rejected(431, 8, "The headers are too long.")
    if head.count(b"\n") > limits.header_count + 2:  # the request line and the empty line
        raise Rejected(431, 8, "There are too many headers.")


def _target(method: bytes, target: bytes, host: bytes) -> tuple[bytes, bytes]:
    """The path with the query, and the authority (RFC 9112, section 3.2)."""
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target, host
    absolute = _ABSOLUTE_TARGET.fullmatch(target)
    if not absolute or not _HOST.fullmatch(absolute[1]):
        raise _malformed("The target of the request is invalid.")
    path = absolute[2]
    return path if path.startswith(b"/") else b"/" + path, absolute[1]


def _tokens(values: list[bytes]) -> set[bytes]:
    return {token.strip(b"\t ").lower() for value in values for token in value.split(b",")}


# --- responses ---
CHUNKED: Final = b"transfer-encoding: chunked\r\n"
CLOSE: Final = b"connection: close\r\n"
_STATUS_LINES: Final = {status: b"HTTP/1.1 %d \r\n" % status for status in range(200, 600)} | {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus if status >= 200
}


def content_length(body: bytes) -> bytes:
    return b"content-length: %d\r\n" % len(body)


def response_head(status: int, headers: Headers, own: bytes) -> bytes:
    """`own`: lines of the server, such as Content-Length. Raises ValueError if a header would add a line to the head."""
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] not in _OF_SERVER]
    added = b"".join(lines)
    if not added.count(b"\n") == added.count(b"\r") == len(lines) or b"\0" in added:
        raise ValueError("A response header contains a line break or NUL.")
    return b"%b%b%b%b\r\n" % (_STATUS_LINES[status], added, _date_line(int(time())), own)


@lru_cache(maxsize=1)
def _date_line(second: int) -> bytes:
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()
