"""HTTP/1.1 on a real socket: framing, order, limits and the end of connections. Times are not waited for: the checks run as if they
had passed."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from accord_rpc.server.exchange import Application, Exchange
from accord_rpc.server.http1 import Http1Connection
from accord_rpc.server.server import Server
from tests.rpc.server.serving import describe, echo, greet, read_all, serving

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def get(target: str = "/", headers: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n".encode()


def post(body: bytes, headers: str = "") -> bytes:
    return f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


async def three_parts(exchange: Exchange) -> None:
    exchange.start(200, ((b"content-type", b"text/plain"),))
    for part in (b"one ", b"", b"two "):
        await exchange.send(part)
    exchange.finish(b"three", ((b"x-trailer", b"dropped"),))


# --- requests ---
async def test_application_sees_the_request_without_the_headers_of_the_connection() -> None:
    request = (
        b"POST /a%20b?c=%20 HTTP/1.1\r\nHOST: example.org:80\r\nConnection: keep-alive, X-Kept\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        b"Upgrade: h2c\r\nX-Kept:  spaces \t\r\nX-Kept:\r\nX-Latin: \xe9\r\nContent-Length: 2\r\n\r\nhi"
    )
    async with serving(describe) as site, site.client() as client:
        seen = (await client.request(request)).json()
    assert seen.pop("peer").startswith("ipv4:127.0.0.1:")
    assert seen == {
        "method": "POST",
        "target": "/a%20b?c=%20",
        "authority": "example.org:80",
        "headers": [["x-kept", "spaces"], ["x-kept", ""], ["x-latin", "é"], ["content-length", "2"]],
        "http_version": 1,
        "secure": False,
        "body": "hi",
    }


@pytest.mark.parametrize(
    ("target", "path", "authority"),
    [
        ("http://b:81/path?query", "/path?query", "b:81"),
        ("HTTPS://b", "/", "b"),
        ("http://b?query", "/?query", "b"),
        ("http://[::1]:8080/", "/", "[::1]:8080"),
        ("//double//slash", "//double//slash", "a"),
    ],
)
async def test_target_in_absolute_form_replaces_host(target: str, path: str, authority: str) -> None:
    async with serving(describe) as site, site.client() as client:
        seen = (await client.request(get(target))).json()
    assert (seen["target"], seen["authority"]) == (path, authority)


async def test_options_may_concern_the_whole_server() -> None:
    async with serving(describe) as site, site.client() as client:
        assert (await client.request(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")).json()["target"] == "*"


async def test_connect_is_not_supported() -> None:
    async with serving(greet) as site, site.client() as client:
        response = await client.request(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
        assert (response.status, response.json()["code"]) == (501, 12)
        assert await client.rest() == b""


async def test_request_may_arrive_byte_by_byte() -> None:
    async with serving(echo) as site, site.client() as client:
        for request in (post(b"hello"), CHUNKED + b"3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\nC:\r\n\r\n"):
            for byte in request:
                client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await client.response()).body == b"hello"


async def test_chunks_of_one_packet_arrive_at_once() -> None:
    parts: list[bytes] = []

    async def application(exchange: Exchange) -> None:
        while (part := await exchange.receive()) is not None:
            parts.append(part)
        exchange.respond(204, ())

    async with serving(application) as site, site.client() as client:
        await client.request(CHUNKED + b"3\r\nhel\r\nA\r\nlo, worlds\r\n00\r\n\r\n")
    assert parts == [b"hello, worlds"]


async def test_empty_lines_before_a_request_are_ignored() -> None:
    async with serving(greet) as site, site.client() as client:
        assert (await client.request(b"\r\n" + GET)).body == b"hello /x"
        client.send(b"\r")
        await asyncio.sleep(0.001)
        assert (await client.request(b"\n\r\n" + GET)).body == b"hello /x"


async def test_many_empty_lines_before_a_request_are_refused() -> None:
    async with serving(greet) as site, site.client() as client:
        assert (await client.request(b"\r\n" * 8 + GET)).body == b"hello /x"
        assert (await client.request(b"\r\n" * 9 + GET)).status == 400


# --- responses ---
async def test_whole_response_has_a_length_and_a_date() -> None:
    async with serving(echo) as site, site.client() as client:
        response = await client.request(post(b"hello"))
    assert response.status == 200
    assert dict(response.headers).keys() == {"content-type", "date", "content-length"}
    assert response.header("content-length") == "5"


async def test_every_response_has_the_date_and_the_headers_of_the_server() -> None:
    own = ((b"strict-transport-security", b"max-age=1"),)
    for request in (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"no request\r\n\r\n"):
        async with serving(greet, headers=own) as site, site.client() as client:
            response = await client.request(request)
            assert response.header("date") is not None
            assert response.header("strict-transport-security") == "max-age=1"


async def test_response_in_parts_is_chunked() -> None:
    async with serving(three_parts) as site, site.client() as client:
        for _ in range(2):
            response = await client.request(GET)
            assert response.header("transfer-encoding") == "chunked"
            assert response.body == b"one two three"


async def test_parts_are_sent_at_once() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.start(200, ())
        for part in (b"one", b"two"):
            await exchange.send(part)
            await read_all(exchange)
            await asyncio.Event().wait()

    async with serving(application) as site, site.client() as client:
        client.send(GET)
        head = await client._reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        assert await client.read(8) == b"3\r\none\r\n"


@pytest.mark.parametrize("application", [greet, three_parts])
async def test_head_has_headers_and_no_body(application: Application) -> None:
    async with serving(application) as site, site.client() as client:
        response = await client.request(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", head=True)
        assert response.status == 200
        assert (await client.request(GET)).status == 200


async def test_head_has_the_length_that_get_would_have() -> None:
    async with serving(greet) as site, site.client() as client:
        response = await client.request(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", head=True)
        assert response.header("content-length") == str(len("hello /"))


@pytest.mark.parametrize("status", [204, 304])
async def test_response_without_content_has_no_length(status: int) -> None:
    async def application(exchange: Exchange) -> None:
        if exchange.target == b"/parts":
            exchange.start(status, ())
            exchange.finish()
        else:
            exchange.respond(status, ())

    async with serving(application) as site, site.client() as client:
        for target in ("/whole", "/parts"):
            response = await client.request(get(target))
            assert response.status == status
            assert [name for name, _ in response.headers] == ["date"]


async def test_response_cannot_be_split() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.respond(200, ((b"x-name", b"a\r\nset-cookie: b"),))

    async with serving(application) as site, site.client() as client:
        response = await client.request(GET)
        assert response.status == 500
        assert response.header("set-cookie") is None


async def test_headers_of_the_connection_are_the_servers() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.respond(200, ((b"connection", b"upgrade"), (b"content-length", b"7"), (b"x-kept", b"1")), b"hello")

    async with serving(application) as site, site.client() as client:
        response = await client.request(GET)
        assert (response.body, response.header("connection"), response.header("x-kept")) == (b"hello", None, "1")


async def test_application_that_fails_gives_500_and_serves_the_next_request() -> None:
    async def application(exchange: Exchange) -> None:
        if exchange.target == b"/x":
            raise ValueError("secret")
        exchange.respond(200, ())

    async with serving(application) as site, site.client() as client:
        response = await client.request(GET)
        assert response.status == 500
        assert b"secret" not in response.body
        assert (await client.request(get("/y"))).status == 200


async def test_application_that_fails_within_a_response_ends_the_connection() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.start(200, ())
        await exchange.send(b"half")
        raise ValueError

    async with serving(application) as site, site.client() as client:
        client.send(GET)
        assert not (await client.rest()).endswith(b"0\r\n\r\n")


async def test_application_that_does_not_respond_ends_the_connection() -> None:
    async def application(exchange: Exchange) -> None:
        pass

    async with serving(application) as site, site.client() as client:
        client.send(GET)
        assert await client.rest() == b""


# --- 100 Continue ---
async def test_continue_is_sent_when_the_application_reads() -> None:
    async def application(exchange: Exchange) -> None:
        if exchange.target == b"/denied":
            return exchange.respond(401, ())
        return exchange.respond(200, (), await read_all(exchange))

    async with serving(application) as site:
        async with site.client() as client:
            continues = await client.request(post(b"", "Expect: 100-continue\r\n").replace(b"h: 0", b"h: 5"))
            assert continues.status == 100
            assert (await client.request(b"hello")).body == b"hello"
            assert (await client.request(GET)).status == 200
        async with site.client() as client:
            denied = await client.request(
                b"POST /denied HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
            )
            assert (denied.status, denied.header("connection")) == (401, "close")
            assert await client.rest() == b""


async def test_continue_is_not_sent_if_the_body_has_arrived_or_is_empty() -> None:
    async with serving(echo) as site, site.client() as client:
        for body in (b"hello", b""):
            assert (await client.request(post(body, "Expect: 100-Continue\r\n"))).body == body


async def test_continue_is_not_sent_for_a_malformed_body() -> None:
    async with serving(echo) as site, site.client() as client:
        response = await client.request(CHUNKED.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n") + b"x\r\n")
        assert (response.status, response.header("connection")) == (400, "close")
        assert await client.rest() == b""


async def test_other_expectations_fail() -> None:
    async with serving(echo) as site, site.client() as client:
        assert (await client.request(post(b"hello", "Expect: 200-ok\r\n"))).status == 417


# --- several requests on a connection ---
async def test_pipelined_requests_are_served_one_at_a_time_in_order() -> None:
    running: list[bytes] = []

    async def application(exchange: Exchange) -> None:
        running.append(exchange.target)
        assert len(running) == 1
        await asyncio.sleep(0)
        body = await read_all(exchange)
        running.remove(exchange.target)
        exchange.respond(200, (), exchange.target + body)

    async with serving(application) as site, site.client() as client:
        client.send(get("/1") + post(b"two") + CHUNKED + b"5\r\nthree\r\n0\r\n\r\n" + get("/4"))
        bodies = [(await client.response()).body for _ in range(4)]
        assert bodies == [b"/1", b"/two", b"/three", b"/4"]


async def test_requests_that_wait_do_not_fill_the_memory() -> None:
    async def application(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async with serving(application) as site, site.client() as client:
        client.send(GET)
        await site.until(exchanges=1)
        (connection,) = site.server._connections
        for _ in range(200):
            client.send(GET * 2000)
            await asyncio.sleep(0)
        assert isinstance(connection, Http1Connection)
        assert len(connection._buffer) < 64 * 1024 + 300_000  # the limit and one read


async def test_body_is_not_read_faster_than_the_application_reads() -> None:
    reads = asyncio.Event()

    async def application(exchange: Exchange) -> None:
        await reads.wait()
        exchange.respond(200, (), b"%d" % len(await read_all(exchange)))

    size = 20_000_000
    async with serving(application) as site, site.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        client.send(bytes(size))
        await site.until(exchanges=1)
        (connection,) = site.server._connections
        await asyncio.sleep(0.02)
        assert isinstance(connection, Http1Connection)
        assert len(connection._buffer) < 64 * 1024 + 300_000
        reads.set()
        assert (await client.response()).body == b"%d" % size


async def test_short_body_that_no_one_reads_is_dropped() -> None:
    async with serving(greet) as site, site.client() as client:
        head, body = post(b"x" * 1000)[:-1000], b"x" * 1000
        first = await client.request(head)
        assert first.header("connection") is None
        assert (await client.request(body + GET)).body == b"hello /x"


async def test_rest_of_a_body_that_no_one_reads_must_arrive_in_time() -> None:
    async with serving(greet) as site, site.client() as client:
        head = post(b"x" * 1000)[:-1000]
        await client.request(head)
        client.send(b"x" * 1000)
        await asyncio.sleep(0.005)
        site.pass_time(74)  # the connection is idle
        await client.request(head)
        await site.until(exchanges=0)
        site.pass_time(4)
        assert site.server.connections == 1
        site.pass_time(6)
        assert await client.rest() == b""


async def test_long_body_that_no_one_reads_ends_the_connection_after_the_response() -> None:
    """The client still gets the response: closing at once would make TCP drop it."""
    async with serving(greet) as site, site.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + bytes(1_000_000))
        response = await client.response()
        assert (response.body, response.header("connection")) == (b"hello /", "close")
        client.send(bytes(2_000_000))
        assert await client.rest() == b""
        client.close()
        await site.until(connections=0)


@pytest.mark.parametrize("value", ["close", "Close", "x, close"])
async def test_client_may_close_after_the_response(value: str) -> None:
    async with serving(greet) as site, site.client() as client:
        response = await client.request(get("/x", f"Connection: {value}\r\n"))
        assert response.header("connection") == "close"
        assert await client.rest() == b""


@pytest.mark.parametrize("application", [greet, three_parts])
async def test_http_1_0_ends_with_the_response(application: Application) -> None:
    async with serving(application) as site, site.client() as client:
        response = await client.request(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert response.header("connection") == "close"
        assert response.header("transfer-encoding") is None
        assert response.body in (b"hello /x", b"one two three")
        assert await client.rest() == b""


# --- the end of a connection ---
@pytest.mark.parametrize("ending", ["abort", "close"])
async def test_client_that_disconnects_cancels_its_exchange(ending: str) -> None:
    cancelled = asyncio.Event()

    async def application(exchange: Exchange) -> None:
        try:
            await exchange.receive() if exchange.target == b"/" else await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serving(application) as site:
        for request in (GET, CHUNKED):
            cancelled.clear()
            async with site.client() as client:
                client.send(request)
                await site.until(exchanges=1)
                getattr(client, ending)()
                async with asyncio.timeout(1):
                    await cancelled.wait()
        await site.until(connections=0)


async def test_application_that_goes_on_after_a_disconnect_writes_nothing() -> None:
    outcome: list[str] = []

    async def application(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            exchange.start(200, ())
            try:
                await exchange.send(b"x")
            except asyncio.CancelledError:
                exchange.finish()
                outcome.append("cancelled again")

    async with serving(application) as site:
        async with site.client() as client:
            client.send(GET)
            await site.until(exchanges=1)
        await site.until(connections=0)
        await asyncio.sleep(0)
    assert outcome == ["cancelled again"]


async def test_sender_waits_for_a_client_that_reads_slowly() -> None:
    sent = 0

    async def application(exchange: Exchange) -> None:
        nonlocal sent
        exchange.start(200, ())
        for _ in range(200):
            await exchange.send(bytes(100_000))
            sent += 1
        exchange.finish()

    async with serving(application) as site, site.client(limit=1024) as client:
        client.send(GET)
        await asyncio.sleep(0.05)
        assert sent < 150
        assert len((await client.response()).body) == 20_000_000


async def test_client_that_reads_nothing_is_disconnected() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.respond(200, (), bytes(20_000_000))

    async with serving(application) as site, site.client(limit=1024) as client:
        client.send(GET)
        await site.until(exchanges=0)
        site.pass_time(0)
        site.pass_time(19)
        assert site.server.connections == 1
        site.pass_time(21)
        await site.until(connections=0)


async def test_clients_that_read_nothing_are_disconnected_when_their_responses_are_too_large_together() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.respond(200, (), bytes(20_000_000))

    async with serving(application, unsent_bytes=50_000_000) as site, AsyncExitStack() as clients:
        for number in range(1, 7):
            client = await clients.enter_async_context(site.client(limit=1024))
            client.send(GET)
            await client.read(1)
            assert site.server.connections <= min(number, 3)


async def test_client_that_reads_slowly_stays_connected() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.respond(200, (), bytes(20_000_000))

    async with serving(application) as site, site.client(limit=1024) as client:
        client.send(GET)
        for second in range(0, 100, 10):
            site.pass_time(second)
            await client.read(1_000_000)
        assert site.server.connections == 1


# --- limits ---
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/" + "x" * 9000), 414),
        (b"GET /" + b"x" * 9000, 414),
        (get("/", f"X-Long: {'x' * 17_000}\r\n"), 431),
        (get("/", f"X-Long: {'x' * 17_000}\r\n")[:-2], 431),
        (get("/", f"{'x' * 17_000}: long\r\n"), 431),
        (get("/", "A: b\r\n" * 100), 431),
        (get("/", "A: b\r\n" * 101)[:-2], 431),
        (get("/", "".join(f"X-{n}: {'x' * 400}\r\n" for n in range(41))), 431),
    ],
)
async def test_heads_are_limited(request_: bytes, status: int) -> None:
    async with serving(greet) as site, site.client() as client:
        response = await client.request(request_)
        assert (response.status, response.json()["code"]) == (status, 8)
        assert await client.rest() == b""


async def test_heads_at_the_limits_are_served() -> None:
    async with serving(greet) as site, site.client() as client:
        for request in (get("/" + "x" * 8000), get("/", f"X: {'x' * 16_000}\r\n"), get("/", "A: b\r\n" * 99)):
            assert (await client.request(request)).status == 200


async def test_headers_must_be_complete_in_time() -> None:
    async with serving(greet) as site, site.client() as client:
        client.send(GET[:-1])
        await site.until(connections=1)
        await asyncio.sleep(0.005)
        site.pass_time(4)
        assert (await client.request(b"\n")).status == 200
        client.send(GET[:-1])
        await asyncio.sleep(0.005)
        for _ in range(3):  # more bytes do not extend the time
            site.pass_time(4)
        site.pass_time(6)
        assert (await client.response()).status == 408
        assert await client.rest() == b""


async def test_client_that_does_not_close_a_connection_without_headers_is_disconnected() -> None:
    async with serving(greet) as site, site.client() as client:
        client.send(GET[:-1])
        await site.until(connections=1)
        await asyncio.sleep(0.005)
        site.pass_time(6)
        assert (await client.response()).status == 408
        assert site.server.connections == 1
        site.pass_time(3)
        await site.until(connections=0)


async def test_fault_of_one_connection_does_not_keep_the_others_from_being_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(connection: Http1Connection, now: float) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(Server, "TICK", 0.01)
    async with serving(greet) as site:
        async with site.client() as faulty:
            await faulty.request(GET)
            with monkeypatch.context() as patch:
                patch.setattr(Http1Connection, "tick", fail)
                await site.until(connections=0)
        async with site.client() as client:
            client.send(b"G")
            monkeypatch.setattr(Http1Connection, "tick", lambda connection, now: connection.abort())
            await site.until(connections=0)
    assert "a fault" in capsys.readouterr().out


async def test_idle_connection_is_closed() -> None:
    async with serving(greet) as site, site.client() as client:
        await client.request(GET)
        site.pass_time(74)
        assert (await client.request(GET)).status == 200
        site.pass_time(76)
        assert await client.rest() == b""


async def test_exchange_may_last_longer_than_a_connection_may_be_idle() -> None:
    goes_on = asyncio.Event()

    async def application(exchange: Exchange) -> None:
        await goes_on.wait()
        exchange.respond(200, ())

    async with serving(application) as site, site.client() as client:
        client.send(GET)
        await site.until(exchanges=1)
        site.pass_time(600)
        goes_on.set()
        assert (await client.response()).header("connection") is None


async def test_old_connection_closes_after_its_exchange() -> None:
    goes_on = asyncio.Event()

    async def application(exchange: Exchange) -> None:
        await goes_on.wait()
        exchange.respond(200, ())

    async with serving(application, age_grace_seconds=600) as site, site.client() as client:
        client.send(GET)
        await site.until(exchanges=1)
        site.pass_time(30 * 60 + 1)
        goes_on.set()
        assert (await client.response()).header("connection") == "close"
        assert await client.rest() == b""


async def test_too_old_connection_is_cut() -> None:
    async def application(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async with serving(application) as site, site.client() as client:
        client.send(GET)
        await site.until(exchanges=1)
        site.pass_time(32 * 60)
        assert await client.rest() == b""


async def test_client_that_never_stops_sending_is_cut() -> None:
    async with serving(greet) as site, site.client() as client:
        await client.request(b"NONSENSE\r\n\r\n")
        site.pass_time(1)
        assert site.server.connections == 1
        site.pass_time(3)
        await site.until(connections=0)


# --- draining ---
async def test_draining_closes_idle_connections_and_ends_others_with_their_response() -> None:
    goes_on = asyncio.Event()

    async def application(exchange: Exchange) -> None:
        if exchange.target == b"/slow":
            await goes_on.wait()
        exchange.respond(200, (), b"done")

    async with serving(application) as site, site.client() as idle, site.client() as busy, site.client() as late:
        await idle.request(GET)
        busy.send(get("/slow") + GET)
        late.send(GET[:-1])
        await site.until(connections=3, exchanges=1)
        await asyncio.sleep(0.005)
        stopping = asyncio.create_task(site.server.stop(5))
        assert await idle.rest() == b""
        response = await late.request(b"\n")
        assert (response.body, response.header("connection")) == (b"done", "close")
        goes_on.set()
        response = await busy.response()
        assert (response.body, response.header("connection")) == (b"done", "close")
        assert await busy.rest() == b""
        for client in (busy, late):
            client.close()
        await stopping
