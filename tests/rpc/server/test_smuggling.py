"""Requests that two implementations could read differently. Each is refused, and its connection closed: what follows it on the
connection is never served."""

import asyncio
from contextlib import suppress

import httptools
import pytest

from accord_rpc.server.exchange import Exchange
from accord_rpc.server.http1_bodies import Rejected
from accord_rpc.server.http1_messages import END_OF_HEAD, parse_head, without_empty_lines
from accord_rpc.server.limits import ConnectionLimits
from tests.api.http2 import connected
from tests.rpc.server import fuzz_seeds
from tests.rpc.server.fuzz_connections import make
from tests.rpc.server.serving import echo, greet, read_all, serving

HTTP2_HEAD = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")]
START = b"POST /first HTTP/1.1\r\nHost: a\r\n"
FOLLOWING = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"

HEADS = {
    "length and chunked": START + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": START + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "chunked and length 0": START + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two equal lengths": START + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "two different lengths": START + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nab",
    "a list of lengths": START + b"Content-Length: 2, 2\r\n\r\nab",
    "a negative length": START + b"Content-Length: -2\r\n\r\nab",
    "a length with a plus sign": START + b"Content-Length: +2\r\n\r\nab",
    "a hexadecimal length": START + b"Content-Length: 0x2\r\n\r\nab",
    "a length with an underscore": START + b"Content-Length: 1_0\r\n\r\n0123456789",
    "a length of other digits": START + "Content-Length: ٢\r\n\r\nab".encode(),
    "an empty length": START + b"Content-Length: \r\n\r\n",
    "a length with a space inside": START + b"Content-Length: 1 2\r\n\r\n",
    "a length over 64 bits": START + b"Content-Length: 18446744073709551618\r\n\r\nab",
    "a length with 400 digits": START + b"Content-Length: " + b"0" * 400 + b"2\r\n\r\nab",
    "another coding": START + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "another coding before chunked": START + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "another coding after chunked": START + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "identity": START + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked twice": START + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in two headers": START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity in a second header": START
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked in upper case": START + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
    "chunked in quotes": START + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked after a vertical tab": START + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "an empty coding": START + b"Transfer-Encoding: \r\n\r\n0\r\n\r\n",
    "a word that ends with chunked": START + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /first HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": START + b"X-Long: one\r\n two\r\n\r\n",
    "a folded coding": START + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a space before the first header": b"POST /first HTTP/1.1\r\n Host: a\r\n\r\n",
    "a space before the colon": START + b"Content-Length : 2\r\n\r\nab",
    "a tab before the colon": START + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "a space in a name": START + b"Content Length: 2\r\n\r\n",
    "a name without a colon": START + b"Content-Length\r\n\r\n",
    "an empty name": START + b": 2\r\n\r\n",
    "a NUL in a name": START + b"X-\x00A: 2\r\n\r\n",
    "a byte over 127 in a name": START + b"X-\xe9: 2\r\n\r\n",
    "a NUL in a value": START + b"X-A: b\x00c\r\n\r\n",
    "a control character in a value": START + b"X-A: b\x01c\r\n\r\n",
    "a backspace in a value": START + b"X-A: b\x7fc\r\n\r\n",
    "a bare CR in a value": START + b"X-A: b\rContent-Length: 2\r\n\r\n",
    "a bare LF in a value": START + b"X-A: b\nContent-Length: 2\r\n\r\n",
    "a bare LF after the request line": b"POST /first HTTP/1.1\nHost: a\r\n\r\n",
    "bare LFs alone": b"POST /first HTTP/1.1\nHost: a\n\n",
    "a bare LF at the end": START + b"\n",
    "a bare CR at the end": START + b"\r\r\n\r\n",
    "two spaces in the request line": b"POST  /first HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tab in the request line": b"POST\t/first HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space at the end of the request line": b"POST /first HTTP/1.1 \r\nHost: a\r\n\r\n",
    "a space in the target": b"POST /first x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment": b"POST /first#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a byte over 127 in the target": b"POST /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a bare LF before the request": b"\n" + START + b"\r\n",
    "a bare CR before the request": b"\r" + START + b"\r\n",
    "HTTP/0.9": b"GET /first\r\n\r\n",
    "HTTP/1.2": b"GET /first HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2.0 without its preface": b"GET /first HTTP/2.0\r\nHost: a\r\n\r\n",
    "RTSP": b"GET /first RTSP/1.0\r\nHost: a\r\n\r\n",
    "ICE": b"SOURCE /first ICE/1.0\r\nHost: a\r\n\r\n",
    "an unknown method": b"FETCH /first HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method in lower case": b"get /first HTTP/1.1\r\nHost: a\r\n\r\n",
    "a greeting of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no Host": b"GET /first HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /first HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "a Host with a path": b"GET /first HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a Host with a user": b"GET /first HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "a list of Hosts": b"GET /first HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a target with a user": b"GET http://u@a/first HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target of another scheme": b"GET ftp://a/first HTTP/1.1\r\nHost: a\r\n\r\n",
    "an asterisk without OPTIONS": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a relative target": b"GET first HTTP/1.1\r\nHost: a\r\n\r\n",
}
BODIES = {
    "a chunk without a size": b"\r\nab\r\n0\r\n\r\n",
    "a chunk size with 0x": b"0x2\r\nab\r\n0\r\n\r\n",
    "a negative chunk size": b"-2\r\nab\r\n0\r\n\r\n",
    "a chunk size with a plus sign": b"+2\r\nab\r\n0\r\n\r\n",
    "a chunk size with an underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "a chunk size over 64 bits": b"10000000000000002\r\nab\r\n0\r\n\r\n",
    "a chunk size that is no number": b"two\r\nab\r\n0\r\n\r\n",
    "a space before the chunk size": b" 2\r\nab\r\n0\r\n\r\n",
    "a space after the chunk size": b"2 \r\nab\r\n0\r\n\r\n",
    "a bare LF after the chunk size": b"2\nab\r\n0\r\n\r\n",
    "a bare CR after the chunk size": b"2\rab\r\n0\r\n\r\n",
    "a bare CR in a chunk extension": b"2;a\rb\r\nab\r\n0\r\n\r\n",
    "a NUL in a chunk extension": b"2;a\x00b\r\nab\r\n0\r\n\r\n",
    "a long chunk extension": b"2;" + b"a" * 300 + b"\r\nab\r\n0\r\n\r\n",
    "a chunk extension without end": b"2;" + b"a" * 300,
    "a chunk that is longer than its size": b"2\r\nabc\r\n0\r\n\r\n",
    "a chunk that is shorter than its size": b"4\r\nab\r\n0\r\n\r\n",
    "a bare LF after a chunk": b"2\r\nab\n0\r\n\r\n",
    "a malformed trailer": b"2\r\nab\r\n0\r\nA : b\r\n\r\n",
    "a length in the trailers": b"2\r\nab\r\n0\r\nContent-Length: 2\r\n\r\n",
    "a coding in the trailers": b"2\r\nab\r\n0\r\nA: b\r\ntransfer-encoding: chunked\r\n\r\n",
    "a space in a chunk extension": b"2;a =b\r\nab\r\n0\r\n\r\n",
    "an open quote in a chunk extension": b'2;a="b\r\nab\r\n0\r\n\r\n',
    "a folded trailer": b"2\r\nab\r\n0\r\nA: b\r\n c\r\n\r\n",
    "trailers without end": b"2\r\nab\r\n0\r\n" + b"A: b\r\n" * 3000,
    "chunks of one byte without end": b"1\r\na\r\n" * 30_000,
}


@pytest.mark.parametrize("request_", HEADS.values(), ids=HEADS)
async def test_request_is_refused_before_the_application_sees_it(request_: bytes) -> None:
    served: list[bytes] = []

    async def application(exchange: Exchange) -> None:
        served.append(exchange.target)
        exchange.respond(200, ())

    async with serving(application) as site, site.client() as client:
        response = await client.request(request_ + FOLLOWING)
        assert response.status == 400
        assert response.header("connection") == "close"
        assert response.header("content-type") == "application/json"
        assert response.json()["code"] == 3
        assert await client.rest() == b""
        assert served == []


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_malformed_body_ends_the_connection(body: bytes) -> None:
    served: list[bytes] = []

    async def application(exchange: Exchange) -> None:
        served.append(exchange.target)
        exchange.respond(200, (), await read_all(exchange))

    async with serving(application) as site, site.client() as client:
        response = await client.request(CHUNKED + body + FOLLOWING)
        assert response.status in (400, 431)
        assert response.header("connection") == "close"
        assert await client.rest() == b""
        assert served == [b"/first"]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_malformed_body_that_no_one_reads_ends_the_connection_too(body: bytes) -> None:
    async with serving(greet) as site, site.client() as client:
        response = await client.request(CHUNKED + body + FOLLOWING)
        assert response.body == b"hello /first"
        assert response.header("connection") == "close"
        assert await client.rest() == b""


async def test_refusals_do_not_depend_on_packets() -> None:
    async with serving(echo) as site:
        for request in (*HEADS.values(), *(CHUNKED + body for body in BODIES.values())):
            async with site.client() as client:
                size = 1 + len(request) // 50
                for start in range(0, len(request), size):
                    client.send(request[start : start + size])
                    await asyncio.sleep(0)
                client.send(FOLLOWING)
                assert (await client.response()).status in (400, 431), request
                assert await client.rest() == b"", request


async def test_refusal_echoes_no_input() -> None:
    async with serving(greet) as site, site.client() as client:
        response = await client.request(b"GET /<script> HTTP/1.1\r\nHost: <script>\r\n<script>: x\r\n\r\n")
        assert response.status == 400
        assert b"script" not in response.body


async def test_unread_body_is_not_taken_for_a_request() -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    async with serving(greet) as site, site.client() as client:
        response = await client.request(START + b"Content-Length: %d\r\n\r\n" % len(smuggled) + smuggled + FOLLOWING)
        assert response.body == b"hello /first"
        assert (await client.response()).body == b"hello /smuggled"
        assert site.server.exchanges == 0


HTTP2_HEADERS = {
    "transfer-encoding": ("transfer-encoding", "chunked"),
    "connection": ("connection", "keep-alive, x-a"),
    "a line break in a value": ("x-a", "b\r\nx-c: d"),
    "a line break in a name": ("x-a\r\nx-c", "d"),
    "a name in upper case": ("X-A", "b"),
    "two lengths": ("content-length", "2"),
}


@pytest.mark.parametrize("header", HTTP2_HEADERS.values(), ids=HTTP2_HEADERS)
async def test_http2_request_that_http1_would_read_differently_is_refused(header: tuple[str, str]) -> None:
    served: list[bytes] = []

    async def application(exchange: Exchange) -> None:
        served.append(exchange.target)
        exchange.respond(200, ())

    async with serving(application) as site, connected(f"127.0.0.1:{site.port}") as wire:
        stream = wire.begin("", [("content-length", "3"), header], base=HTTP2_HEAD)
        assert (await wire.response(stream)).headers.get(":status") is None
        assert served == []


@pytest.mark.parametrize("data", [b"abcd", b"ab"], ids=["longer", "shorter"])
async def test_http2_body_of_another_length_than_announced_is_not_served(data: bytes) -> None:
    async with serving(echo) as site, connected(f"127.0.0.1:{site.port}") as wire:
        response = await wire.call("", data, [("content-length", "3")], base=HTTP2_HEAD)
        assert response.headers.get(":status") is None
        await site.until(exchanges=0)


# --- agreement with another implementation ---
class Messages:
    """The requests that llhttp finds, bodies included."""

    def __init__(self) -> None:
        self.complete: list[tuple[bytes, bytes]] = []

    def on_message_begin(self) -> None:
        self._target = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.complete.append((self._target, self._body))


def messages_of_llhttp(data: bytes) -> list[tuple[bytes, bytes]]:
    messages = Messages()
    with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
        httptools.HttpRequestParser(messages).feed_data(data)
    return messages.complete


def messages_of_accord(data: bytes) -> list[tuple[bytes, bytes]]:
    complete = []
    with suppress(Rejected):
        while (end := (data := without_empty_lines(data)).find(END_OF_HEAD) + 4) > 3:
            request, data = parse_head(data[:end], ConnectionLimits()), data[end:]
            body = b""
            if request.body is not None:
                body, data = request.body.take(data)
                if not request.body.ended:
                    break
            complete.append((request.target, body))
            if not request.keep_alive:
                break
    return complete


def test_accepted_requests_end_where_llhttp_ends_them() -> None:
    corpus = [
        [line.replace(b"http://a", b"") for line in seed]
        for seed in fuzz_seeds.http1()
        if b"Upgrade" not in b"".join(seed)
    ]
    accepted = 0
    for number in range(3000):
        data = b"".join(make(1, number, corpus).writes)
        ours = messages_of_accord(data)
        assert ours == messages_of_llhttp(data)[: len(ours)], data
        accepted += len(ours)
    assert accepted > 1000
