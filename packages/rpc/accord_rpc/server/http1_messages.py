"""The heads of HTTP/1.1 requests and responses. Performs no input or output.

Refuses every message that another HTTP implementation could read differently, even where RFC 9112 permits a repair: a proxy that
disagrees about where a request ends lets an attacker put requests into the connections of others (request smuggling)."""

import re
from http import HTTPStatus
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from accord_rpc.server.exchange import Headers
from accord_rpc.server.http1_bodies import ChunkedBody, Rejected, RequestBody, SizedBody, malformed
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
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n){1,8}")
_INVALID_BYTES: Final = re.compile(rb"[^\t\n\r -~\x80-\xff]|\r(?!\n|\Z)|(?<!\r)\n")
_ABSOLUTE_TARGET: Final = re.compile(rb"(?i:https?)://([^/?]+)(/?.*)")
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[-0-9A-Za-z._~%!$&'()*+,;=]*)(?::[0-9]{0,5})?")
_CONTENT_LENGTH_DIGITS: Final = 15


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
            raise malformed("The request must have exactly one Host header.")
        if hosts and not _HOST.fullmatch(hosts[0]):
            raise malformed("The Host header is invalid.")
        return hosts[0] if hosts else b""

    def _body(self, fields: "_Fields", limits: ConnectionLimits) -> RequestBody | None:
        codings, lengths = fields.of("transfer-encoding"), fields.of("content-length")
        if codings:
            if lengths or codings != [b"chunked"] or self.version_1_0:
                raise malformed("Transfer-Encoding must be chunked, without Content-Length.")
            return ChunkedBody(limits)
        if not lengths:
            return None
        if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > _CONTENT_LENGTH_DIGITS:
            raise malformed("Content-Length is invalid.")
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
        raise malformed("The request is not valid HTTP/1.1.")
    fields = _Fields()
    parser = HttpRequestParser(fields)
    try:
        parser.feed_data(head)
    except HttpParserUpgrade:
        if head.startswith(b"CONNECT "):
            raise Rejected(501, 12, "CONNECT is not supported.") from None
        # Other upgrades are ignored, as RFC 9110, section 7.8, permits.
    except HttpParserError:
        raise malformed("The request is not valid HTTP/1.1.") from None
    return Request(parser.get_method(), fields, limits, version_1_0=parser.get_http_version() == "1.0")


def without_empty_lines(buffer: bytes) -> bytes:
    """Some clients end a body with a line break (RFC 9112, section 2.2). Raises Rejected if there are many: a client that sends
    nothing else would keep the event loop busy."""
    lines = _EMPTY_LINES.match(buffer)
    buffer = buffer[lines.end() :] if lines else buffer
    if buffer.startswith(b"\r\n"):
        raise malformed("There are too many empty lines before the request.")
    return buffer


def check_incomplete_head(buffer: bytes, start: int, limits: ConnectionLimits) -> None:
    """Rejects at once what cannot become a valid head. The bytes before `start` have been checked."""
    check_size(buffer, limits)
    if _INVALID_BYTES.search(buffer, max(0, start - 1)):
        raise malformed("The request is not valid HTTP/1.1.")


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
        raise malformed("The target of the request is invalid.")
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


def rejection(rejected: Rejected, own: bytes) -> bytes:
    """`own`: see `response_head`."""
    body = b'{"code":%d,"message":"%b"}' % (rejected.code, str(rejected).encode())
    headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
    return response_head(rejected.status, headers, own + content_length(body) + CLOSE) + body


def content_length(body: bytes) -> bytes:
    return b"content-length: %d\r\n" % len(body)


def response_head(status: int, headers: Headers, own: bytes) -> bytes:
    """`own`: lines of the server, such as Content-Length. Raises ValueError if a header would add a line to the head."""
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] not in _OF_SERVER]
    added = b"".join(lines)
    if not added.count(b"\n") == added.count(b"\r") == len(lines) or b"\0" in added:
        raise ValueError("A response header contains a line break or NUL.")
    return b"%b%b%b\r\n" % (_STATUS_LINES[status], added, own)
