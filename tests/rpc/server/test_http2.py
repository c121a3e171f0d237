"""HTTP/2 on a real socket, from a client below the level of any library. Times are not waited for: the checks run as if they had
passed."""

import asyncio
import gc
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from accord_rpc.server.exchange import Application, Exchange
from accord_rpc.server.http2 import Http2Connection
from accord_rpc.server.limits import ConnectionLimits
from accord_rpc.server.listening import CertificateFiles, Certificates, bind_tcp, bind_unix
from accord_rpc.server.server import Server
from tests.api.http2 import FRAME, Response, Wire, connected
from tests.rpc.server.serving import SECONDS, Site, describe, echo, greet, read_all, serving

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0, 1, 2, 7, 8, 11
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = 65_535  # bytes; what a client grants unless it says otherwise


@asynccontextmanager
async def wire_to(application: Application, **limits: Any) -> AsyncIterator[tuple[Wire, Site]]:
    async with serving(application, **limits) as site, connected(f"127.0.0.1:{site.port}") as wire:
        yield wire, site


def head(path: str = "/", method: str = "GET") -> list[tuple[str, str]]:
    return [(":method", method), (":scheme", "http"), (":path", path), (":authority", "example.org")]


def begin(wire: Wire, path: str = "/", *, method: str = "GET", ended: bool = True) -> int:
    return wire.begin("", base=head(path, method), end_stream=ended)


async def get(wire: Wire, path: str = "/", method: str = "GET") -> Response:
    return await wire.response(begin(wire, path, method=method), SECONDS)


@asynccontextmanager
async def connected_without_listening(site: Site) -> AsyncIterator[Wire]:
    """A client that acknowledges no ping by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    wire = Wire(reader, writer)
    wire.http.initiate_connection()
    wire.flush()
    try:
        await frames_of(wire, SettingsFrame)
        await site.until(connections=1)
        yield wire
    finally:
        writer.close()


async def frames_of(wire: Wire, kind: type[Any]) -> list[Any]:
    """The frames of this kind in what has arrived and was not returned before; waits for one."""
    waiting = wire.unread
    async with asyncio.timeout(SECONDS):
        while not (found := [frame for frame in waiting if isinstance(frame, kind)]):
            header = await wire.reader.readexactly(9)
            frame, length = Frame.parse_frame_header(memoryview(header))
            frame.parse_body(memoryview(await wire.reader.readexactly(length)))
            waiting.append(frame)
    wire.unread = [frame for frame in waiting if not isinstance(frame, kind)]
    return found


async def closed(wire: Wire) -> None:
    async with asyncio.timeout(SECONDS):
        await wire.closed.wait()


def status(response: Response) -> str | None:
    return response.headers.get(":status")


# --- requests ---
async def test_application_sees_the_request_without_pseudo_headers() -> None:
    async with wire_to(describe) as (wire, _):
        stream = wire.begin("", [("x-a", "1"), ("x-a", "2")], base=head("/a%20b?c=%20", "PUT"))
        wire.send(stream, b"hi", end_stream=True)
        seen = json.loads((await wire.response(stream)).data)
    assert seen.pop("peer").startswith("ipv4:127.0.0.1:")
    assert seen == {
        "method": "PUT",
        "target": "/a%20b?c=%20",
        "authority": "example.org",
        "headers": [["x-a", "1"], ["x-a", "2"]],
        "http_version": 2,
        "secure": False,
        "body": "hi",
    }


async def test_host_that_differs_from_the_authority_resets_the_stream() -> None:
    async with wire_to(describe) as (wire, _):
        other = wire.begin("", [("host", "example.com")], base=head(), end_stream=True)
        assert (await wire.response(other)).reset == PROTOCOL_ERROR
        same = wire.begin("", [("host", "example.org")], base=head(), end_stream=True)
        assert json.loads((await wire.response(same)).data)["authority"] == "example.org"


async def test_cookies_that_a_client_sends_one_by_one_are_joined() -> None:
    async with wire_to(describe) as (wire, _):
        stream = wire.begin("", [("cookie", "a=1"), ("cookie", "b=2")], base=head(), end_stream=True)
        seen = json.loads((await wire.response(stream)).data)
    assert seen["headers"] == [["cookie", "a=1; b=2"]]


async def test_exchanges_of_one_connection_do_not_wait_for_each_other() -> None:
    slow = asyncio.Event()

    async def application(exchange: Exchange) -> None:
        if exchange.target == b"/slow":
            await slow.wait()
        exchange.respond(200, (), exchange.target)

    async with wire_to(application) as (wire, _):
        waiting = begin(wire, "/slow")
        assert (await get(wire, "/fast")).data == b"/fast"
        slow.set()
        assert (await wire.response(waiting)).data == b"/slow"


async def test_request_in_the_first_bytes_of_the_connection_is_served() -> None:
    async with serving(greet) as site, connected(f"127.0.0.1:{site.port}", before_settings=True) as wire:
        assert (await get(wire, "/x")).data == b"hello /x"


# --- responses ---
async def test_response_has_status_headers_body_and_trailers() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.respond(201, ((b"x-a", b"1"),), b"body", ((b"x-trailer", b"2"),))

    async with wire_to(application) as (wire, _):
        response = await get(wire)
    del response.headers["date"]
    assert (response.headers, response.data) == ({":status": "201", "x-a": "1", "x-trailer": "2"}, b"body")


async def test_every_response_has_the_date_and_the_headers_of_the_server() -> None:
    own = ((b"strict-transport-security", b"max-age=1"),)
    async with serving(greet, headers=own) as site, connected(f"127.0.0.1:{site.port}") as wire:
        many = wire.begin("", [("x-a", "1")] * 200, base=head(), end_stream=True)
        for response in (await get(wire), await wire.response(many)):
            sent = parsedate_to_datetime(response.headers["date"])
            assert abs((sent - datetime.now(UTC)).total_seconds()) < 5
            assert response.headers["strict-transport-security"] == "max-age=1"


async def test_response_in_parts_arrives_as_it_is_sent() -> None:
    more = asyncio.Event()

    async def application(exchange: Exchange) -> None:
        exchange.start(200, ())
        await exchange.send(b"one ")
        await more.wait()
        exchange.finish(b"two", ((b"x-trailer", b"1"),))

    async with wire_to(application) as (wire, _):
        stream = begin(wire)
        async with asyncio.timeout(SECONDS):
            while wire.responses[stream].data != b"one ":
                await asyncio.sleep(0.001)
        more.set()
        response = await wire.response(stream)
    assert (response.data, response.headers["x-trailer"]) == (b"one two", "1")


async def test_response_to_head_has_no_body() -> None:
    async with wire_to(greet) as (wire, _):
        response = await get(wire, method="HEAD")
    assert (status(response), response.data) == ("200", b"")


async def test_client_need_not_send_the_rest_of_a_request_that_has_its_response() -> None:
    async with wire_to(greet) as (wire, site):
        stream = begin(wire, method="POST", ended=False)
        response = await wire.response(stream)
        await site.until(exchanges=0)
    assert (response.data, response.reset or NO_ERROR) == (b"hello /", NO_ERROR)


async def test_application_that_raises_gets_500_and_the_connection_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    async def application(exchange: Exchange) -> None:
        if exchange.target == b"/fail":
            raise ValueError("broken")
        exchange.respond(200, ())

    async with wire_to(application) as (wire, _):
        assert status(await get(wire, "/fail")) == "500"
        assert status(await get(wire)) == "200"
    assert "exchange_failed" in capsys.readouterr().out


async def test_response_that_cannot_be_completed_is_reset() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.start(200, ())
        await exchange.send(b"part")
        raise ValueError("broken")

    async with wire_to(application) as (wire, _):
        assert (await get(wire)).reset == INTERNAL_ERROR


async def test_application_that_does_not_respond_is_reset(capsys: pytest.CaptureFixture[str]) -> None:
    async def application(exchange: Exchange) -> None:
        if exchange.target == b"/half":
            exchange.start(200, ())

    async with wire_to(application) as (wire, _):
        assert [(await get(wire, path)).reset for path in ("/none", "/half")] == [INTERNAL_ERROR] * 2
    assert "exchange_not_finished" in capsys.readouterr().out


# --- the end of exchanges ---
@asynccontextmanager
async def waiting_application(**limits: Any) -> AsyncIterator[tuple[Wire, Site, asyncio.Event, asyncio.Event]]:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def application(exchange: Exchange) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with wire_to(application, **limits) as (wire, site):
        yield wire, site, begun, cancelled


async def happens(event: asyncio.Event) -> None:
    async with asyncio.timeout(SECONDS):
        await event.wait()


async def test_reset_cancels_the_application() -> None:
    async with waiting_application() as (wire, site, begun, cancelled):
        stream = begin(wire)
        await happens(begun)
        wire.reset(stream)
        await happens(cancelled)
        await site.until(connections=1, exchanges=0)


async def test_disconnect_cancels_the_application() -> None:
    async with waiting_application() as (wire, site, begun, cancelled):
        begin(wire)
        await happens(begun)
        wire.writer.transport.abort()
        await happens(cancelled)
        await site.until(connections=0)


# --- flow control ---
async def test_body_larger_than_the_window_arrives_as_the_application_reads() -> None:
    async with wire_to(echo, stream_window=WINDOW, connection_window=WINDOW) as (wire, _):
        stream = begin(wire, method="POST", ended=False)
        sent = await upload(wire, stream, 300_000)
        wire.http.end_stream(stream)
        wire.flush()
        response = await wire.response(stream)
    assert (sent, len(response.data)) == (300_000, 300_000)


async def upload(wire: Wire, stream: int, size: int, seconds: float = SECONDS) -> int:
    """Sends as much of the size as the server's windows allow in this time."""
    sent = 0
    try:
        async with asyncio.timeout(seconds):
            while sent < size:
                room = min(wire.http.local_flow_control_window(stream), 16_384, size - sent)
                if room > 0:
                    wire.http.send_data(stream, bytes(room))
                    wire.flush()
                    sent += room
                await asyncio.sleep(0 if room > 0 else 0.001)
    except TimeoutError:
        pass
    return sent


async def test_client_may_send_no_more_than_the_window_while_the_application_does_not_read() -> None:
    async with waiting_application(stream_window=20_000) as (wire, _, begun, _cancelled):
        stream = begin(wire, method="POST", ended=False)
        await happens(begun)
        assert await upload(wire, stream, 100_000, seconds=0.05) == 20_000


async def test_body_that_no_one_reads_does_not_use_up_the_window_of_the_connection() -> None:
    sent = asyncio.Event()

    async def application(exchange: Exchange) -> None:
        await sent.wait()
        exchange.respond(200, ())

    async with wire_to(application, connection_window=WINDOW) as (wire, _):
        for _ in range(3):
            sent.clear()
            stream = begin(wire, method="POST", ended=False)
            assert await upload(wire, stream, 60_000) == 60_000
            sent.set()
            assert status(await wire.response(stream)) == "200"


async def test_send_waits_for_a_client_that_does_not_read() -> None:
    sent = 0

    async def application(exchange: Exchange) -> None:
        nonlocal sent
        exchange.start(200, ())
        for _ in range(100):
            await exchange.send(bytes(10_000))
            sent += 10_000
        exchange.finish()

    async with serving(application) as site, connected(f"127.0.0.1:{site.port}") as wire:
        wire._handle = lambda event: None  # type: ignore[method-assign]  # grants no window
        begin(wire)
        await asyncio.sleep(0.05)
        assert WINDOW <= sent < WINDOW + 2 * 64 * 1024
        site.pass_time(5)
        assert site.server.exchanges == 1


async def test_finished_response_that_a_client_does_not_read_is_reset() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.respond(200, (), bytes(500_000))

    async with wire_to(application, write_stall_seconds=20) as (wire, site):
        handle = wire._handle
        wire._handle = lambda event: None  # type: ignore[method-assign]  # grants no window
        stream = begin(wire)
        await asyncio.sleep(0.05)
        site.pass_time(1)
        assert site.server.exchanges == 1
        wire._handle = handle  # type: ignore[method-assign]
        site.pass_time(22)
        assert (await wire.response(stream)).reset == CANCEL
        await site.until(exchanges=0)


async def test_connection_with_the_most_unread_responses_is_closed_when_all_have_too_many() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.respond(200, (), bytes(500_000))

    async with (
        wire_to(application, unsent_bytes=4_000_000) as (reads, site),
        connected(f"127.0.0.1:{site.port}") as wire,
    ):
        wire._handle = lambda event: None  # type: ignore[method-assign]  # grants no window
        for _ in range(6):
            begin(wire)
        await site.until(exchanges=6)
        for _ in range(3):
            assert (await get(reads)).headers[":status"] == "200"
        await asyncio.wait_for(wire.closed.wait(), SECONDS)
        assert len((await get(reads)).data) == 500_000


async def test_closed_connection_and_its_unread_responses_need_no_garbage_collector() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.respond(200, (), bytes(500_000))

    async with serving(application) as site:
        gc.collect()
        gc.disable()
        try:
            async with connected(f"127.0.0.1:{site.port}") as wire:
                wire._handle = lambda event: None  # type: ignore[method-assign]  # grants no window
                begin(wire)
                begin(wire, method="POST", ended=False)
                await site.until(exchanges=2)
            await site.until(connections=0)
            await asyncio.sleep(0.01)  # until the tasks and callbacks of the connection have ended
            assert [each for each in gc.get_objects() if isinstance(each, Http2Connection)] == []
        finally:
            gc.enable()


# --- limits ---
async def test_streams_beyond_the_limit_are_refused_before_the_client_knows_it() -> None:
    async with waiting_application(streams=3) as (wire, _, begun, _cancelled):
        await happens_after_streams(wire, 5)
        assert [wire.responses[stream].reset for stream in (7, 9)] == [REFUSED_STREAM] * 2 or wire.closed.is_set()
        assert begun.is_set()


async def happens_after_streams(wire: Wire, count: int) -> None:
    wire.http.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
    wire.http.remote_settings.acknowledge()
    for _ in range(count):
        begin(wire)
    async with asyncio.timeout(SECONDS):
        while not (wire.closed.is_set() or wire.responses[2 * count - 1].ended.is_set()):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "headers", [[("x-big", "y" * 2000)], [(f"x-{number}", "y") for number in range(40)]], ids=["bytes", "count"]
)
async def test_request_with_too_many_headers_gets_431_and_the_connection_goes_on(
    headers: list[tuple[str, str]],
) -> None:
    async with wire_to(greet, header_bytes=1900, header_count=30) as (wire, _):
        stream = wire.begin("", headers, base=head(), end_stream=True)
        response = await wire.response(stream)
        assert (status(response), response.status) == ("431", 8)
        assert status(await get(wire)) == "200"


async def test_headers_far_beyond_the_limit_close_the_connection() -> None:
    async with wire_to(greet, header_bytes=1000) as (wire, site):
        wire.begin("", [("x-big", "y" * 10_000)], base=head(), end_stream=True)
        await closed(wire)
        await site.until(connections=0)


async def test_header_block_in_many_frames_closes_the_connection() -> None:
    async with wire_to(greet) as (wire, _):
        frame = HeadersFrame(1, wire.http.encoder.encode(head()), flags=["END_STREAM"])
        wire.writer.write(frame.serialize())
        for _ in range(20):
            wire.writer.write(ContinuationFrame(1, b"").serialize())
        await closed(wire)


async def test_header_block_that_arrives_byte_by_byte_closes_the_connection() -> None:
    async with wire_to(greet, header_seconds=5) as (wire, site):
        await get(wire)
        frame = HeadersFrame(3, wire.http.encoder.encode(head()), flags=["END_STREAM", "END_HEADERS"]).serialize()
        for byte in frame[:12]:
            wire.writer.write(bytes([byte]))
            await asyncio.sleep(0.002)
        site.pass_time(4)
        assert site.server.connections == 1
        site.pass_time(6)
        await closed(wire)


async def test_frame_without_an_effect_does_not_close_the_connection() -> None:
    async with wire_to(greet, header_seconds=5) as (wire, site):
        await get(wire)
        wire.writer.write(PriorityFrame(1, depends_on=0, stream_weight=1).serialize())
        await asyncio.sleep(0.01)
        site.pass_time(6)
        assert status(await get(wire)) == "200"


async def test_settings_with_many_entries_close_the_connection() -> None:
    async with wire_to(greet, settings_entries=8) as (wire, _):
        frame = SettingsFrame(0).serialize()[:9]
        payload = b"\x00\x04\x00\x00\xff\xff" * 20
        wire.writer.write(len(payload).to_bytes(3, "big") + frame[3:] + payload)
        await closed(wire)


async def test_many_resets_close_the_connection() -> None:
    async with wire_to(echo, resets=50, resets_per_second=1) as (wire, site):
        for _ in range(100):
            if not wire.closed.is_set():
                wire.reset(begin(wire, method="POST", ended=False))
                await asyncio.sleep(0)
        await closed(wire)
        await site.until(connections=0, exchanges=0)


async def test_many_pings_close_the_connection_and_those_between_exchanges_do_not() -> None:
    async with wire_to(greet, pings_per_minute=5) as (wire, _):
        for _ in range(8):
            wire.http.ping(b"12345678")
            assert status(await get(wire)) == "200"
        for _ in range(8):
            wire.http.ping(b"12345678")
        wire.flush()
        await closed(wire)


async def test_many_settings_close_the_connection() -> None:
    async with wire_to(greet, pings_per_minute=5) as (wire, _):
        for _ in range(10):
            wire.writer.write(SettingsFrame(0).serialize())
        await closed(wire)


@pytest.mark.parametrize("kind", ["window update", "priority", "empty data", "unknown type"])
async def test_many_frames_that_carry_nothing_close_the_connection(kind: str) -> None:
    async with wire_to(read_and_greet, overhead_bytes=4096) as (wire, site):
        stream = begin(wire, method="POST", ended=False)
        await site.until(exchanges=1)
        frames = {
            "window update": WindowUpdateFrame(0, window_increment=1).serialize(),
            "priority": PriorityFrame(stream, depends_on=0, stream_weight=1).serialize(),
            "empty data": DataFrame(stream).serialize(),
            "unknown type": b"\0\0\0\xee\0" + bytes(4),
        }
        wire.writer.write(frames[kind] * 2_000)
        await closed(wire)
        await site.until(connections=0, exchanges=0)
    assert wire.error == ENHANCE_YOUR_CALM


async def test_client_that_grants_a_window_for_each_part_of_a_response_is_served() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.start(200, ())
        for _ in range(2_000):
            await exchange.send(b"part")
            await asyncio.sleep(0)  # one frame for each
        exchange.finish()

    async with wire_to(application, overhead_bytes=1024) as (wire, _):
        for _ in range(2):
            assert (await get(wire)).data == b"part" * 2_000
        assert wire.error is None


async def test_data_that_was_on_its_way_when_its_stream_was_reset_does_not_close_the_connection() -> None:
    async with wire_to(greet, overhead_bytes=16 * 1024) as (wire, _):
        for _ in range(10):
            stream = begin(wire, method="POST", ended=False)
            assert (await wire.response(stream)).data == b"hello /"
            for _ in range(3):
                wire.writer.write(DataFrame(stream, bytes(FRAME)).serialize())
        assert status(await get(wire)) == "200"
        assert wire.error is None


@pytest.mark.parametrize("value", ["x" * 20_000, "x" * 10_000 + "\n"], ids=["too large", "malformed"])
async def test_refused_requests_with_long_headers_do_not_close_the_connection(value: str) -> None:
    async with wire_to(greet, overhead_bytes=16 * 1024) as (wire, _):
        for number in range(20):
            # Varied, so that compression does not shorten it.
            stream = wire.begin("", [("x-a", f"{number}{value}")], base=head(), end_stream=True)
            response = await wire.response(stream)
            assert (status(response), response.reset) in (("431", None), (None, PROTOCOL_ERROR))
        assert status(await get(wire)) == "200"


async def read_and_greet(exchange: Exchange) -> None:
    await read_all(exchange)
    await greet(exchange)


async def test_bytes_that_are_not_http2_close_the_connection() -> None:
    async with serving(greet) as site, site.client() as client:
        client.send(PREFACE + b"\xff" * 100)
        await client.rest()
        await site.until(connections=0)


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE], ids=["nothing", "half a preface", "a preface"])
async def test_connection_without_a_handshake_is_closed(sent: bytes) -> None:
    async with serving(greet, handshake_seconds=5) as site, site.client() as client:
        client.send(sent)
        await site.until(connections=1)
        await asyncio.sleep(0.01)
        site.pass_time(4)
        assert site.server.connections == 1
        site.pass_time(6)
        await client.rest()
        await site.until(connections=0)


async def test_connections_of_one_address_are_limited() -> None:
    async with serving(greet, connections_per_address=2) as site, site.client(), site.client():
        await site.until(connections=2)
        async with site.client() as third:
            assert await third.rest() == b""
        assert site.server.connections == 2


async def test_connections_in_all_are_limited_and_closed_ones_make_room() -> None:
    async with serving(greet, connections=1) as site:
        async with site.client(), site.client() as second:
            assert await second.rest() == b""
        await site.until(connections=0)
        async with connected(f"127.0.0.1:{site.port}") as wire:
            assert status(await get(wire)) == "200"


# --- time ---
async def test_idle_connection_is_closed_with_goaway() -> None:
    async with wire_to(greet, idle_seconds=60, keepalive_seconds=1e6) as (wire, site):
        assert status(await get(wire)) == "200"
        site.pass_time(50)
        assert status(await get(wire)) == "200"
        site.pass_time(61)
        await closed(wire)
        await site.until(connections=0)


async def test_stream_that_was_on_its_way_when_the_connection_ends_is_served_however_long_that_takes() -> None:
    async with (
        serving(greet, goaway_seconds=10, keepalive_seconds=1e6) as site,
        connected_without_listening(site) as wire,
    ):
        site.pass_time(16 * 60)
        [goaway] = await frames_of(wire, GoAwayFrame)
        assert goaway.last_stream_id == 2**31 - 1
        assert not any(isinstance(frame, PingFrame) for frame in wire.unread)
        [ping] = await frames_of(wire, PingFrame)  # after GOAWAY, so that who acknowledges it has read both
        await asyncio.sleep(0.2)
        wire.begin("", base=head(), end_stream=True)
        [body] = await frames_of(wire, DataFrame)
        assert body.data == b"hello /"
        wire.writer.write(PingFrame(0, ping.opaque_data, flags=["ACK"]).serialize())
        [goaway] = await frames_of(wire, GoAwayFrame)
        assert goaway.last_stream_id == 1
        await site.until(connections=0)


async def test_client_that_does_not_acknowledge_the_end_of_the_connection_is_disconnected() -> None:
    async with serving(greet, goaway_seconds=0.05) as site, connected_without_listening(site):
        site.pass_time(16 * 60)
        await site.until(connections=0)


async def test_exchanges_of_an_old_connection_are_cancelled_after_the_grace() -> None:
    async with waiting_application(age_seconds=60, age_grace_seconds=30, keepalive_seconds=1e6) as (
        wire,
        site,
        begun,
        cancelled,
    ):
        begin(wire)
        await happens(begun)
        site.pass_time(97)
        await happens(cancelled)
        await site.until(connections=0)


async def test_silent_client_is_pinged_and_disconnected_if_it_does_not_acknowledge() -> None:
    async with serving(greet, keepalive_seconds=60, keepalive_timeout_seconds=20) as site:
        async with connected(f"127.0.0.1:{site.port}"):
            for _ in range(3):
                site.pass_time(61)
                await asyncio.sleep(0.02)  # it acknowledges
            assert site.server.connections == 1
        async with site.client() as dead:
            dead.send(PREFACE + SettingsFrame(0).serialize())
            await site.until(connections=1)
            await asyncio.sleep(0.02)
            site.pass_time(61)
            site.pass_time(70)
            assert site.server.connections == 1
            site.pass_time(82)
            await site.until(connections=0)


# --- stopping ---
async def test_stop_without_grace_cancels_exchanges() -> None:
    async with waiting_application() as (wire, site, begun, cancelled):
        begin(wire)
        await happens(begun)
        await site.server.stop(None)
        assert cancelled.is_set()
        assert site.server.connections == 0


# --- sockets ---
async def test_server_listens_on_a_unix_socket_and_replaces_one_that_no_process_uses(tmp_path: Path) -> None:
    path = tmp_path / "accord.sock"
    for _ in range(2):
        server = Server(describe)
        await server.start([bind_unix(path)])
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert json.loads((await reader.read()).partition(b"\r\n\r\n")[2])["peer"] == "unix:"
        writer.close()
        await server.stop(None)
    assert path.is_socket()


async def test_unix_socket_in_use_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "accord.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            bind_unix(path)


async def test_shared_port_is_bound_by_several_sockets_and_others_are_not() -> None:
    (first,) = bind_tcp("127.0.0.1", 0, shared=True)
    port = first.getsockname()[1]
    (second,) = bind_tcp("127.0.0.1", port, shared=True)
    first.listen()
    with pytest.raises(OSError, match="in use"):
        bind_tcp("127.0.0.1", port)
    first.close()
    second.close()


# --- TLS ---
class Authority:
    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.certificate, self.key, self.clients = folder / "cert.pem", folder / "key.pem", folder / "clients.pem"
        self.ca.cert_pem.write_to_path(self.clients)
        self.issue("localhost")

    def issue(self, name: str) -> None:
        issued = self.ca.issue_cert(name)
        issued.private_key_pem.write_to_path(self.key)
        issued.cert_chain_pems[0].write_to_path(self.certificate)

    def client(self, *alpn: str, uri: str = "") -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        context.set_alpn_protocols(list(alpn))
        if uri:
            self.ca.issue_cert(uri).configure_cert(context)
        return context


@asynccontextmanager
async def secure_site(authority: Authority, *, mutual: bool = False, **limits: Any) -> AsyncIterator[Site]:
    files = CertificateFiles(authority.certificate, authority.key, authority.clients if mutual else None)
    certificates = Certificates(files)
    server = Server(describe, certificates=certificates, limits=ConnectionLimits(**limits))
    (listener,) = bind_tcp("127.0.0.1", 0)
    await server.start([listener])
    yield Site(server, listener.getsockname()[1])
    await server.stop(None)


@asynccontextmanager
async def secure_wire(site: Site, context: ssl.SSLContext, name: str = "localhost") -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=context, server_hostname=name)
    wire = Wire(reader, writer)
    wire.http.initiate_connection()
    wire.flush()
    listening = asyncio.create_task(wire.listen())
    yield wire
    listening.cancel()
    writer.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_clients_choose_the_version_of_http_in_the_tls_handshake(authority: Authority) -> None:
    async with secure_site(authority) as site:
        async with secure_wire(site, authority.client("h2")) as wire:
            seen = json.loads((await get(wire)).data)
            assert (seen["http_version"], seen["secure"]) == (2, True)
        async with site.client(ssl=authority.client("http/1.1"), server_hostname="localhost") as client:
            response = await client.request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (response.json()["http_version"], response.json()["secure"]) == (1, True)


async def test_application_sees_the_uris_of_a_verified_client_certificate(authority: Authority) -> None:
    seen: list[Any] = []

    async def application(exchange: Exchange) -> None:
        seen.extend(exchange.peer_uris)
        exchange.respond(200, ())

    async with secure_site(authority, mutual=True) as site:
        site.server._application = application
        context = authority.client("h2")
        authority.ca.issue_cert("client", common_name="client").configure_cert(context)
        async with secure_wire(site, context) as wire:
            assert status(await get(wire)) == "200"
        with pytest.raises((ssl.SSLError, ConnectionError, TimeoutError)):
            async with secure_wire(site, authority.client("h2")) as wire:
                await wire.response(begin(wire), 0.5)
                raise ConnectionResetError  # the server closed the connection
    assert seen == []


async def test_renewed_certificate_is_used_for_new_connections(authority: Authority) -> None:
    async with secure_site(authority) as site, secure_wire(site, authority.client("h2")) as wire:
        authority.issue("renewed.example.com")
        site.server._certificates.reload_if_changed()  # type: ignore[union-attr]
        async with secure_wire(site, authority.client("h2"), "renewed.example.com") as renewed:
            assert status(await get(renewed)) == "200"
        assert status(await get(wire)) == "200"


async def test_unusable_certificate_does_not_replace_the_current_one(
    authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    async with secure_site(authority) as site:
        authority.key.write_text("not a key")
        for _ in range(3):
            site.server._certificates.reload_if_changed()  # type: ignore[union-attr]
        async with secure_wire(site, authority.client("h2")) as wire:
            assert status(await get(wire)) == "200"
    assert capsys.readouterr().out.count("certificate_not_taken_up") == 1


async def test_connection_without_a_tls_handshake_is_closed(authority: Authority) -> None:
    async with secure_site(authority, handshake_seconds=0.1) as site, site.client() as client:
        await site.until(connections=1)
        await client.rest()
        await site.until(connections=0)


async def test_body_is_read_to_its_end_by_read_all() -> None:
    async def application(exchange: Exchange) -> None:
        exchange.respond(200, (), str(len(await read_all(exchange))).encode())

    async with wire_to(application) as (wire, _):
        stream = begin(wire, method="POST", ended=False)
        await upload(wire, stream, 200_000)
        wire.http.send_headers(stream, [("x-trailer", "1")], end_stream=True)
        wire.flush()
        assert (await wire.response(stream)).data == b"200000"
