"""gRPC on our own server, called by grpcio's client; and what no gRPC library sends, by raw HTTP/2."""

import asyncio
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc.aio import EOF

from accord_rpc.call import Context
from accord_rpc.protocols.dispatch import Dispatcher
from accord_rpc.protocols.framing import compress, frame
from accord_rpc.protocols.grpc import GrpcProtocol
from tests.api.http2 import Response, connected, gRPC
from tests.rpc.server.serving import SECONDS, Site, serving

MIB = 1024 * 1024
Chain = Callable[[object, Context], Awaitable[bytes | None]]


class Chains:
    """Methods by the last part of their path."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.more = asyncio.Event()

    def find(self, path: str) -> Chain:
        chain: Chain = getattr(self, path.rpartition("/")[2])
        return chain

    async def unary(self, _: object, context: Context) -> bytes | None:
        message = await context.read()
        return message if isinstance(message, bytes) else b"no message"

    async def collect(self, _: object, context: Context) -> bytes | None:
        parts = []
        while isinstance(message := await context.read(), bytes):
            parts.append(message)
        assert message is EOF
        return b",".join(parts)

    async def repeat(self, _: object, context: Context) -> bytes | None:
        message = await context.read()
        assert isinstance(message, bytes)
        for _number in range(3):
            await context.write(message)
        return None

    async def both(self, _: object, context: Context) -> bytes | None:
        while isinstance(message := await context.read(), bytes):
            await context.write(message)
        return None

    async def nothing(self, _: object, context: Context) -> bytes | None:
        return None

    async def metadata(self, _: object, context: Context) -> bytes | None:
        headers = [(name, value) for name, value in context.invocation_metadata() or () if name.startswith("x-")]
        context.set_trailing_metadata(tuple(headers))
        return repr(headers).encode()

    async def deadline(self, _: object, context: Context) -> bytes | None:
        left = context.time_remaining()
        return b"none" if left is None else b"%.3f" % left

    async def fail(self, _: object, context: Context) -> bytes | None:
        context.set_trailing_metadata((("x-detail-bin", b"\0\xff"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "100 % ünïcödé\n")

    async def fail_later(self, _: object, context: Context) -> bytes | None:
        await context.write(b"one")
        await context.abort(grpc.StatusCode.ABORTED, "later")

    async def wait(self, _: object, context: Context) -> bytes | None:
        self.begun.set()
        try:
            await self.more.wait()
        finally:
            self.ended.set()
        return b"waited"


@asynccontextmanager
async def served(compressed: Collection[bytes] = (), **limits: Any) -> AsyncIterator[tuple[Chains, Site, Any]]:
    chains = Chains()
    async with (
        serving(Dispatcher([GrpcProtocol(chains, compressed)]), **limits) as site,
        grpc.aio.insecure_channel(f"127.0.0.1:{site.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):
        yield chains, site, channel


async def unary(channel: Any, method: str, message: bytes = b"", **options: Any) -> bytes:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/test/{method}")
    return await call(message, timeout=SECONDS, **options)


async def failure(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def raw(site: Site, method: str, data: bytes = frame(b"hi"), headers: Any = (), base: Any = None) -> Response:
    async with connected(f"127.0.0.1:{site.port}") as wire:
        return await wire.call(f"/test/{method}", data, headers, base=base)


# --- the four kinds ---
@pytest.mark.parametrize("size", [0, 1, 16_384, 70_000, 3 * MIB])
async def test_unary_call_of_any_size(size: int) -> None:
    async with served() as (_, _, channel):
        assert await unary(channel, "unary", bytes(size)) == bytes(size)


async def test_stream_of_requests() -> None:
    async with served() as (_, _, channel):
        assert await channel.stream_unary("/test/collect")(iter([b"a", b"", b"c"])) == b"a,,c"


async def test_stream_of_responses() -> None:
    async with served() as (_, _, channel):
        assert [each async for each in channel.unary_stream("/test/repeat")(b"x" * 100_000)] == [b"x" * 100_000] * 3


async def test_stream_of_responses_may_be_empty() -> None:
    async with served() as (_, _, channel):
        assert [each async for each in channel.unary_stream("/test/nothing")(b"")] == []


async def test_ping_pong() -> None:
    async with served() as (_, _, channel):
        call = channel.stream_stream("/test/both")()
        for message in (b"1", b"22", b"x" * 200_000):
            await call.write(message)
            assert await call.read() == message
        await call.done_writing()
        assert await call.read() is EOF
        assert await call.code() == grpc.StatusCode.OK


async def test_calls_of_one_connection_are_served_at_a_time() -> None:
    async with served() as (_, site, channel):
        messages = [b"%d" % number for number in range(300)]  # more than the connection may have open
        assert await asyncio.gather(*(unary(channel, "unary", message) for message in messages)) == messages
        assert site.server.connections == 1


# --- compression ---
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_request_is_read(compression: grpc.Compression) -> None:
    async with served() as (_, _, channel):
        assert await unary(channel, "unary", b"compressed" * 100, compression=compression) == b"compressed" * 100


async def test_unknown_compression_is_unimplemented_and_the_response_lists_the_known_ones() -> None:
    async with served() as (_, site, _):
        response = await raw(site, "unary", headers=[("grpc-encoding", "br")])
    assert response.status == 12
    assert response.headers["grpc-accept-encoding"] == "identity,deflate,gzip"


async def test_message_that_expands_beyond_the_limit_is_refused() -> None:
    deflate = zlib.compressobj(9, wbits=31)
    bomb = deflate.compress(bytes(20 * MIB)) + deflate.flush()
    async with served() as (_, site, _):
        assert (await raw(site, "unary", frame(bomb, 1), [("grpc-encoding", "gzip")])).status == 8


@pytest.mark.parametrize("headers", [(), [("grpc-encoding", "gzip")]], ids=["identity", "gzip"])
async def test_message_that_is_not_compressed_as_declared_is_refused(headers: Any) -> None:
    async with served() as (_, site, _):
        assert (await raw(site, "unary", frame(b"nonsense", 1), headers)).status == 13


async def test_message_beyond_four_mebibytes_is_refused() -> None:
    async with served() as (_, _, channel):
        error = await failure(unary(channel, "unary", bytes(4 * MIB + 1)))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_large_messages_of_listed_methods_are_compressed_for_clients_that_accept_it() -> None:
    large, small = b"x" * 20_000, b"x" * 100
    accepts = [("grpc-accept-encoding", "identity,deflate,gzip")]
    async with served(compressed={b"/test/unary", b"/test/both"}) as (_, site, _):
        response = await raw(site, "unary", frame(large), accepts)
        assert response.headers["grpc-encoding"] == "gzip"
        assert response.data == frame(compress(large, b"gzip"), 1)
        response = await raw(site, "both", frame(large) + frame(small), accepts)
        assert response.headers["grpc-encoding"] == "gzip"
        assert response.data == frame(compress(large, b"gzip"), 1) + frame(small)
        for method, headers in (("unary", []), ("unary", [("grpc-accept-encoding", "deflate")]), ("collect", accepts)):
            response = await raw(site, method, frame(large), headers)
            assert "grpc-encoding" not in response.headers
            assert response.data == frame(large)


# --- metadata ---
async def test_metadata_goes_both_ways_and_names_may_repeat() -> None:
    metadata = (("x-text", "a"), ("x-text", "b"), ("x-bin", b"\0\1\xff"), ("x-empty", ""))
    async with served() as (_, _, channel):
        call: Any = channel.unary_unary("/test/metadata")(b"", metadata=metadata)
        seen = await call
        trailers = await call.trailing_metadata()
    assert seen == repr(list(metadata)).encode()
    assert [(name, value) for name, value in trailers if name.startswith("x-")] == list(metadata)


@pytest.mark.parametrize("value", ["AAH/", "AAE", "AAE=", "AA=="])
async def test_binary_metadata_may_be_padded_or_not(value: str) -> None:
    async with served() as (_, site, _):
        response = await raw(site, "metadata", headers=[("x-bin", value)])
    assert response.status == 0
    assert response.headers["x-bin"] == value.rstrip("=")


async def test_binary_metadata_that_is_not_base64_is_refused() -> None:
    async with served() as (_, site, _):
        assert (await raw(site, "metadata", headers=[("x-bin", "%")])).status == 13


async def test_headers_of_grpc_are_not_metadata() -> None:
    async with served() as (_, site, _):
        response = await raw(site, "metadata", headers=[("grpc-timeout", "1S"), ("grpc-accept-encoding", "gzip")])
    assert response.data == frame(b"[]")


# --- deadlines ---
@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("4000m", 4),
        ("5000000u", 5),
        ("99999999n", 0.1),
        ("99999999H", 359_999_996_400),
    ],
)
async def test_deadline_in_every_unit(sent: str, seconds: float) -> None:
    async with served() as (_, site, _):
        response = await raw(site, "deadline", headers=[("grpc-timeout", sent)])
    assert 0 <= seconds - float(response.data[5:]) < 0.5


async def test_call_without_a_deadline_has_none_and_a_longer_number_than_allowed_is_none() -> None:
    async with served() as (_, site, _):
        assert (await raw(site, "deadline")).data[5:] == b"none"
        assert (await raw(site, "deadline", headers=[("grpc-timeout", "123456789n")])).data[5:] == b"none"


@pytest.mark.parametrize("sent", ["", "1", "S", "-1S", "1h", "1.5S", "1 S", "one"])
async def test_malformed_deadline_is_refused(sent: str) -> None:
    async with served() as (_, site, _):
        assert (await raw(site, "deadline", headers=[("grpc-timeout", sent)])).status == 13


# --- status ---
async def test_error_has_its_code_message_and_details() -> None:
    async with served() as (_, _, channel):
        error = await failure(unary(channel, "fail"))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "100 % ünïcödé\n")
    assert dict(error.trailing_metadata() or ())["x-detail-bin"] == b"\0\xff"


async def test_error_without_a_message_is_sent_in_one_header_block() -> None:
    async with served() as (_, site, _):
        response = await raw(site, "fail")
    del response.headers["date"]
    assert response.headers == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "5",
        "grpc-message": "100 %25 %C3%BCn%C3%AFc%C3%B6d%C3%A9%0A",
        "x-detail-bin": b64encode(b"\0\xff").decode().rstrip("="),
    }


async def test_error_after_messages_ends_the_stream_of_responses() -> None:
    async with served() as (_, _, channel):
        call: Any = channel.unary_stream("/test/fail_later")(b"")
        assert await call.read() == b"one"
        assert (await failure(call.read())).details() == "later"


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
async def test_client_that_still_sends_gets_the_status_of_a_refused_call(kind: str) -> None:
    """grpcio's client reports INTERNAL for a status that arrives between its headers and its first message."""
    async with served() as (_, _, channel):
        for _ in range(20):
            call: Any = getattr(channel, kind)("/test/fail")(iter([b"a"]))
            error = await failure(call if kind == "stream_unary" else call.read())
            assert error.code() == grpc.StatusCode.NOT_FOUND


# --- requests that are not gRPC ---
@pytest.mark.parametrize("kind", ["text/plain", "application/grpcx", "application/grpc+json", ""])
async def test_another_content_type_gets_415(kind: str) -> None:
    async with served() as (_, site, _):
        response = await raw(site, "unary", base=[*gRPC("/test/unary")[:-1], ("content-type", kind)])
    assert response.headers[":status"] == "415"


async def test_another_method_gets_405() -> None:
    async with served() as (_, site, _):
        response = await raw(site, "unary", base=[(":method", "PUT"), *gRPC("/test/unary")[1:]])
    assert (response.headers[":status"], response.headers["allow"]) == ("405", "POST")


async def test_call_without_te_is_refused_because_a_proxy_would_drop_the_status() -> None:
    async with served() as (_, site, _):
        base = [each for each in gRPC("/test/unary") if each[0] != "te"]
        assert (await raw(site, "unary", base=base)).status == 13


# --- the end of calls ---
async def test_cancelled_call_ends_the_handler() -> None:
    async with served() as (chains, site, channel):
        call: Any = channel.unary_unary("/test/wait")(b"")
        await asyncio.wait_for(chains.begun.wait(), SECONDS)
        call.cancel()
        await asyncio.wait_for(chains.ended.wait(), SECONDS)
        await site.until(exchanges=0)
        assert await unary(channel, "unary", b"next") == b"next"


async def test_stop_lets_a_call_finish_and_refuses_connections() -> None:
    async with served() as (chains, site, channel):
        waiting = asyncio.create_task(unary(channel, "wait"))
        await asyncio.wait_for(chains.begun.wait(), SECONDS)
        stopping = asyncio.create_task(site.server.stop(SECONDS))
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="refused"):
            await asyncio.open_connection("127.0.0.1", site.port)
        await asyncio.sleep(0.15)
        chains.more.set()
        assert await waiting == b"waited"
        await stopping
        assert site.server.connections == 0


async def test_calls_of_a_connection_that_is_too_old_finish_and_later_ones_use_a_new_connection() -> None:
    async with served(age_seconds=60, keepalive_seconds=1e6) as (chains, site, channel):
        waiting = asyncio.create_task(unary(channel, "wait"))
        await asyncio.wait_for(chains.begun.wait(), SECONDS)
        site.pass_time(70)
        await asyncio.sleep(0.15)
        assert await unary(channel, "unary", b"later") == b"later"
        assert site.server.connections == 2
        chains.more.set()
        assert await waiting == b"waited"
        await site.until(connections=1)


async def test_no_call_is_lost_while_connections_age() -> None:
    async with served(age_seconds=0.05, keepalive_seconds=1e6) as (_, site, channel):
        until = asyncio.get_running_loop().time() + 0.8
        calls = 0
        while asyncio.get_running_loop().time() < until:
            site.pass_time(0)
            await asyncio.gather(*(unary(channel, "unary", b"x") for _ in range(10)))
            calls += 10
        assert calls > 100
