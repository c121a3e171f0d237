"""Valid connections, from which the fuzzer makes others: each is a list of parts (lines of HTTP/1.1, frames of HTTP/2)."""

from collections.abc import Callable
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD: Final = 9  # bytes

_HTTP1: Final = (
    b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET http://a/stream?x=1 HTTP/1.1\r\nHost: b\r\nAccept: */*\r\nX-A: b\r\nX-A: c\r\n\r\n" * 3,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world",
    b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello worldGET /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n \r\n0\r\nT: u\r\n\r\n",
    b"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PUT /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd",
    b"GET /echo HTTP/1.0\r\n\r\n",
    b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
)


def seeds() -> list[list[bytes]]:
    http2 = [_connection(build) for build in (_get, _post, _streams, _resets, _windows, _goaway)]
    return [*http1(), *http2, _frames(_continuations()), _frames(_padded()), _frames(_control())]


def http1() -> list[list[bytes]]:
    return [request.splitlines(keepends=True) for request in _HTTP1]


def split(data: bytes) -> list[bytes]:
    """The preface and the frames of an HTTP/2 connection."""
    parts = [data[: len(PREFACE)]]
    position = len(PREFACE)
    while position < len(data):
        end = position + FRAME_HEAD + int.from_bytes(data[position : position + 3])
        parts.append(data[position:end])
        position = end
    return parts


def _connection(build: Callable[[H2Connection], None]) -> list[bytes]:
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    build(connection)
    return split(connection.data_to_send())


def _headers(method: str = "GET", path: str = "/echo") -> list[tuple[str, str]]:
    return [(":method", method), (":path", path), (":scheme", "http"), (":authority", "a"), ("x-long", "y" * 40)]


def _get(connection: H2Connection) -> None:
    connection.send_headers(1, _headers(), end_stream=True)


def _post(connection: H2Connection) -> None:
    connection.send_headers(1, [*_headers("POST"), ("content-length", "11")])
    connection.send_data(1, b"hello ")
    connection.send_data(1, b"world", end_stream=True)


def _streams(connection: H2Connection) -> None:
    for stream in (1, 3, 5, 7):
        connection.send_headers(stream, _headers("POST", "/stream"))
    for stream in (7, 1, 5, 3):
        connection.send_data(stream, b"x" * 100)
    for stream in (1, 3, 5, 7):
        connection.send_headers(stream, [("x-trailer", "1")], end_stream=True)


def _resets(connection: H2Connection) -> None:
    for stream in (1, 3, 5):
        connection.send_headers(stream, _headers("POST", "/unread"))
        connection.send_data(stream, b"x" * 10)
        connection.reset_stream(stream, 8)


def _windows(connection: H2Connection) -> None:
    connection.update_settings({4: 10, 5: 20_000})
    connection.increment_flow_control_window(1000)
    connection.send_headers(1, _headers(path="/stream"), end_stream=True)
    connection.increment_flow_control_window(50_000, 1)
    connection.ping(b"12345678")


def _goaway(connection: H2Connection) -> None:
    connection.send_headers(1, _headers(path="/stream"), end_stream=True)
    connection.close_connection()


def _frames(frames: list[Frame]) -> list[bytes]:
    return [PREFACE, SettingsFrame(0).serialize(), *(frame.serialize() for frame in frames)]


def _block(method: str = "GET") -> bytes:
    return Encoder().encode(_headers(method))


def _continuations() -> list[Frame]:
    block = _block()
    first = HeadersFrame(1, block[:5], flags=["END_STREAM"])
    return [first, ContinuationFrame(1, block[5:9]), ContinuationFrame(1, block[9:], flags=["END_HEADERS"])]


def _padded() -> list[Frame]:
    head = HeadersFrame(1, _block("POST"), pad_length=7, flags=["PADDED", "END_HEADERS", "PRIORITY"])
    body = DataFrame(1, b"hello", pad_length=100, flags=["PADDED", "END_STREAM"])
    return [PriorityFrame(1, depends_on=3, stream_weight=7), head, body]


def _control() -> list[Frame]:
    return [
        HeadersFrame(1, _block("POST"), flags=["END_HEADERS"]),
        PingFrame(0, b"12345678"),
        PingFrame(0, b"12345678", flags=["ACK"]),
        SettingsFrame(0, settings={1: 4096, 2: 0, 3: 100, 4: 65_535, 5: 16_384, 6: 8192}),
        SettingsFrame(0, flags=["ACK"]),
        WindowUpdateFrame(0, window_increment=1),
        WindowUpdateFrame(1, window_increment=2**31 - 1),
        RstStreamFrame(1, error_code=8),
        GoAwayFrame(0, last_stream_id=0, error_code=0, additional_data=b"bye"),
    ]
