"""Calls that violate HTTP/2 or gRPC: each gets a definite response and does not affect other calls. After every test
the server still serves calls, all its slots are free, and its log contains no warning and no error.

Calls that violate gRPC's framing are rejected before the pipeline sees them: with a status (INTERNAL for most) and
without details. The two servers differ where grpcio is less strict than HTTP/2: headers with characters that RFC 9113
forbids (section 8.2.1) reset the stream of our own server, while grpcio passes them on (`is_grpcio`).
"""

import asyncio
import re
import zlib
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from resource import RUSAGE_SELF, getrusage
from time import perf_counter
from typing import Any

import grpc
import psycopg
import pytest
import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from h2.settings import SettingCodes

import accord_gateway.server.gateway as wiring
import accord_gateway.server.servers as servers
from accord.accounts.v1.accounts_pb2 import GetSessionRequest, SignUpRequest
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, ListTasksRequest
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_gateway.server.gateway import Gateway, Runtime, build_server
from accord_gateway.settings import Settings
from accord_rpc.contract import check
from accord_rpc.policy import Method
from tests.api.conftest import SECRET_KEY, Client, outcome, refusal
from tests.api.http2 import Headers, Response, connected, framed, gRPC
from tests.factories import Person

GET_SESSION = "/accord.accounts.v1.AccountService/GetSession"
SIGN_IN = "/accord.accounts.v1.AccountService/SignIn"
SIGN_UP = "/accord.accounts.v1.AccountService/SignUp"
SIGN_OUT = "/accord.accounts.v1.AccountService/SignOut"
GET = "/accord.tasks.v1.TaskService/GetTask"
CREATE = "/accord.tasks.v1.TaskService/CreateTask"

OK, INVALID, TOO_LATE, EXHAUSTED, UNKNOWN_METHOD, INTERNAL, UNAUTHENTICATED = 0, 3, 4, 8, 12, 13, 16
DEFAULT_DEADLINE, MAX_DEADLINE, HANDSHAKE = 1.0, 2.0, 0.5  # seconds; shorter than in production
MIB = 1024 * 1024
PROTOCOL_ERROR = 1  # of RST_STREAM
EMPTY = framed(b"")  # an empty message

Send = Callable[..., Awaitable[Response]]

pytestmark = pytest.mark.grpc


@pytest.fixture
def slots() -> int:
    return 20


@pytest.fixture
def is_grpcio() -> bool:
    return Settings().server == "grpcio"


@pytest.fixture
async def gateway(
    database: Database, listener: Listener, slots: int, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Gateway, str]]:
    """The production gateway with shorter timeouts and fewer slots."""
    options, limits = servers.channel_options, servers.connection_limits
    timeouts = {"grpc.server_handshake_timeout_ms": int(HANDSHAKE * 1000)}
    monkeypatch.setattr(
        wiring, "check", lambda *arguments: [_with_short_deadlines(method) for method in check(*arguments)]
    )
    monkeypatch.setattr(servers, "channel_options", lambda settings: list((dict(options(settings)) | timeouts).items()))
    monkeypatch.setattr(
        servers, "connection_limits", lambda settings: replace(limits(settings), handshake_seconds=HANDSHAKE)
    )
    settings = Settings(port=0, metrics_port=0, max_concurrent_calls=slots)
    gateway = build_server(Runtime(settings, SECRET_KEY, database, listener))
    await listener.start()  # without it, each call would look up its session
    port = gateway.server.listen()
    await gateway.server.start()
    yield gateway, f"127.0.0.1:{port}"
    await gateway.server.stop(None)


def _with_short_deadlines(method: Method) -> Method:
    policy = replace(method.policy, default_deadline=DEFAULT_DEADLINE, max_deadline=MAX_DEADLINE)
    return replace(method, policy=policy)


@pytest.fixture
def address(gateway: tuple[Gateway, str]) -> str:
    return gateway[1]


@pytest.fixture(autouse=True)
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines
    assert [line for line in lines if line["log_level"] != "info"] == []
    assert "acs_" not in repr(lines), "the log contains a token"


@pytest.fixture(autouse=True)
async def server_still_serves(
    log: list[Any], gateway: tuple[Gateway, str], client: Client, me: Person
) -> AsyncIterator[None]:
    yield
    await until_all_slots_are_free(gateway[0])
    await client.accounts.GetSession(GetSessionRequest(), metadata=me.headers)


async def until_all_slots_are_free(gateway: Gateway) -> None:
    async with asyncio.timeout(15):
        while gateway.slots.taken:
            await asyncio.sleep(0.01)


@pytest.fixture
async def send(address: str) -> Send:
    """Sends each call on a new connection: gRPC keeps rejecting headers that it has rejected before on a connection."""

    async def send(
        path: str, data: bytes | None, headers: Headers = (), *, end_stream: bool = True, base: Headers | None = None
    ) -> Response:
        async with connected(address) as wire:
            stream = wire.begin(path, headers, base=base, end_stream=end_stream and data is None)
            if data is not None:
                wire.send(stream, data, end_stream=end_stream)
            return await wire.response(stream)

    return send


def details(response: Response) -> Status:
    encoded = response.headers.get("grpc-status-details-bin", "")
    return Status.FromString(b64decode(encoded + "=" * (-len(encoded) % 4)))


def reason(response: Response) -> str | None:
    """The reason in ErrorInfo; None if gRPC and not Accord rejected the call."""
    found = [ErrorInfo.FromString(each.value) for each in details(response).details if each.Is(ErrorInfo.DESCRIPTOR)]
    return found[0].reason if found else None


async def statuses(responses: dict[str, Awaitable[Response]]) -> dict[str, int | None]:
    return dict(zip(responses, [each.status for each in await asyncio.gather(*responses.values())], strict=True))


# --- messages ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [GET, SIGN_IN])
async def test_message_of_five_mebibytes_is_refused(client: Client, me: Person, path: str) -> None:
    assert await code_of(call(client, path, bytes(5 * MIB), me)) == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_message_of_four_mebibytes_is_parsed(client: Client, me: Person) -> None:
    refused = await refusal(call(client, GET, b"\xff" * 4 * MIB, me))
    assert refused.reason == "INVALID_MESSAGE"


def call(client: Client, path: str, message: bytes, caller: Person) -> Awaitable[bytes]:
    """Sends the serialized message with the client of gRPC."""
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = client.channel.unary_unary(path)
    return method(message, metadata=caller.headers)


async def code_of(pending: Awaitable[object]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pending
    return caught.value.code()


@pytest.mark.parametrize("path", [GET_SESSION, SIGN_IN])
async def test_gzip_bomb_is_refused_before_it_is_expanded(send: Send, me: Person, path: str) -> None:
    bomb = framed(gzipped(bytes(60 * MIB)), compressed=True)
    assert len(bomb) < 64 * 1024
    before = getrusage(RUSAGE_SELF).ru_maxrss
    response = await send(path, bomb, [*me.headers, ("grpc-encoding", "gzip")])
    assert (response.status, response.data) == (EXHAUSTED, b"")
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 30 * 1024  # KiB


def gzipped(data: bytes) -> bytes:
    deflate = zlib.compressobj(9, wbits=31)
    return deflate.compress(data) + deflate.flush()


async def test_compressed_message_is_read(send: Send, me: Person) -> None:
    message = CreateTaskRequest(title="compressed" * 20).SerializeToString()
    response = await send(CREATE, framed(gzipped(message), compressed=True), [*me.headers, ("grpc-encoding", "gzip")])
    assert response.status == OK


async def test_unknown_encoding_is_refused(send: Send, me: Person, is_grpcio: bool) -> None:
    """With UNIMPLEMENTED and the encodings that the server accepts, as gRPC specifies. grpcio sends INTERNAL."""
    for encoding in ("", "nonsense", "br", "GZIP", "gzip,gzip"):
        response = await send(GET_SESSION, EMPTY, [*me.headers, ("grpc-encoding", encoding)])
        accepted = response.headers.get("grpc-accept-encoding")
        assert is_grpcio or (response.status, accepted) == (UNKNOWN_METHOD, "identity,deflate,gzip")
        assert not is_grpcio or response.status == INTERNAL


async def test_message_that_is_not_compressed_with_its_declared_encoding_is_refused(send: Send, me: Person) -> None:
    message = framed(b"nonsense", compressed=True)
    responses = {
        each: send(GET_SESSION, message, [*me.headers, ("grpc-encoding", each)])
        for each in ("gzip", "deflate", "identity")
    }
    responses["unset"] = send(GET_SESSION, message, me.headers)
    assert await statuses(responses) == dict.fromkeys(responses, INTERNAL)


async def test_message_with_a_length_prefix_of_four_gibibytes_is_refused(send: Send, me: Person) -> None:
    assert (await send(GET_SESSION, b"\0\xff\xff\xff\xff", me.headers, end_stream=False)).status == EXHAUSTED


UNPARSABLE_MESSAGES = (
    b"\xff",
    b"\xff" * 11,
    b"\x0a\x05ab",  # a string that is shorter than its length
    b"\x0a\x02\xff\xfe",  # a string that is not UTF-8
    b"\x0a\x03\xed\xa0\x80",  # half a surrogate pair
    b"\x0b",  # a group that does not end
    b"\x0c",  # the end of a group that did not begin
    b"\0\0",  # a field without a number
    Timestamp(seconds=1, nanos=2).SerializeToString(),
    ListTasksRequest(page_size=5, order_by="title").SerializeToString(),
    SignUpRequest(email="a@example.com").SerializeToString(),
)


@pytest.mark.parametrize("path", [GET, SIGN_IN])
async def test_unparsable_message_is_an_invalid_argument_without_names_of_types(
    client: Client, me: Person, path: str
) -> None:
    for message in UNPARSABLE_MESSAGES:
        refused = await refusal(call(client, path, message, me))
        assert (refused.code.value[0], refused.reason) == (INVALID, "INVALID_MESSAGE")
        text = f"{refused.message} {refused.violations}".lower()
        assert not [word for word in ("accord", "timestamp", "proto", "decode", "utf") if word in text]
        assert not re.search(r"\wrequest", text)


# --- calls with no message or more than one ---------------------------------------------------------------------------
@pytest.mark.parametrize("path", [GET_SESSION, SIGN_IN])
async def test_call_that_ends_before_its_message_is_an_invalid_argument(
    send: Send, me: Person, path: str, is_grpcio: bool
) -> None:
    """grpcio passes no part of a message on."""
    for data in (None, b"", b"\0\0", framed(b"x" * 100)[:50]):
        response = await send(path, data, me.headers)
        assert (response.status, reason(response)) == (INVALID, "INVALID_MESSAGE")
        (bad,) = [
            BadRequest.FromString(each.value) for each in details(response).details if each.Is(BadRequest.DESCRIPTOR)
        ]
        incomplete = bool(data) and not is_grpcio
        expected = "the body ends within a message" if incomplete else "the call carried no message"
        assert bad.field_violations[0].description == expected


async def test_half_sent_calls_end_at_the_deadline(address: str, me: Person) -> None:
    async with connected(address) as wire:
        began = perf_counter()
        streams = [
            wire.begin(path, headers) for path, headers in ((GET_SESSION, me.headers), (SIGN_IN, ())) for _ in range(3)
        ]
        for stream, data in zip(streams, [None, b"\0\0", framed(b"x" * 100)[:50]] * 2, strict=True):
            if data is not None:
                wire.send(stream, data)
        responses = [await wire.response(stream) for stream in streams]
        assert [(each.status, reason(each)) for each in responses] == [(TOO_LATE, "DEADLINE_EXCEEDED")] * 6
        assert DEFAULT_DEADLINE <= perf_counter() - began < 2 * DEFAULT_DEADLINE


async def test_call_that_arrives_byte_by_byte_ends_at_the_deadline(address: str, me: Person) -> None:
    async with connected(address) as wire:
        stream = wire.begin(GET, me.headers)
        for byte in framed(b"x" * 1000):
            if wire.responses[stream].ended.is_set():
                break
            wire.send(stream, bytes([byte]))
            await asyncio.sleep(0.02)
        assert wire.responses[stream].status == TOO_LATE


async def test_half_sent_call_ends_at_its_own_deadline_and_at_the_latest_at_the_maximum(send: Send, me: Person) -> None:
    expected = {
        "300m": 0.3,
        "1m": 0,
        "1n": 0,
        "0S": 0,
        "99999999H": MAX_DEADLINE,
        "18446744073709551616n": DEFAULT_DEADLINE,
    }

    async def seconds(grpc_timeout: str) -> float:
        began = perf_counter()
        assert (
            await send(GET_SESSION, None, [*me.headers, ("grpc-timeout", grpc_timeout)], end_stream=False)
        ).status == TOO_LATE
        return perf_counter() - began

    await send(GET_SESSION, EMPTY, me.headers)  # caches the session, so that no call below waits for the database
    for lasted, least in zip(await asyncio.gather(*map(seconds, expected)), expected.values(), strict=True):
        assert least <= lasted < least + DEFAULT_DEADLINE


async def test_malformed_timeout_is_refused(send: Send, me: Person) -> None:
    timeouts = ("", "0", "-1S", "1", "S", "1h", "1.5S", "nonsense")
    responses = {each: send(GET_SESSION, EMPTY, [*me.headers, ("grpc-timeout", each)]) for each in timeouts}
    assert await statuses(responses) == dict.fromkeys(timeouts, INTERNAL)


async def test_half_sent_call_without_a_credential_is_refused_at_once(send: Send) -> None:
    began = perf_counter()
    response = await send(GET_SESSION, None, end_stream=False)
    assert (response.status, reason(response)) == (UNAUTHENTICATED, "CREDENTIAL_MISSING")
    assert perf_counter() - began < DEFAULT_DEADLINE / 2


async def test_second_message_of_a_unary_call_is_refused(send: Send, me: Person, dsn: str) -> None:
    first, second = (framed(CreateTaskRequest(title=title).SerializeToString()) for title in ("first", "second"))
    assert (await send(CREATE, first + second, me.headers)).status == UNKNOWN_METHOD
    assert titles(dsn) == []
    assert (await send(CREATE, first, me.headers)).status == OK
    assert titles(dsn) == ["first"]


def titles(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("SELECT title FROM tasks ORDER BY id").fetchall()]


async def test_call_with_one_message_is_served_when_the_client_has_ended_its_request(
    send: Send, me: Person, dsn: str
) -> None:
    """Otherwise a second message could follow."""
    message = framed(CreateTaskRequest(title="first").SerializeToString())
    headers = [*me.headers, ("grpc-timeout", "50m")]
    assert (await send(CREATE, message, headers, end_stream=False)).status == TOO_LATE
    assert titles(dsn) == []


# --- headers ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [GET_SESSION, SIGN_IN, "/nowhere"])
async def test_headers_of_twenty_kilobytes_are_refused(send: Send, me: Person, path: str) -> None:
    one, many = [("x-big", "y" * 20_000)], [(f"x-{number}", "y" * 200) for number in range(100)]
    responses = {"one": send(path, EMPTY, [*me.headers, *one]), "many": send(path, EMPTY, [*me.headers, *many])}
    assert await statuses(responses) == {"one": EXHAUSTED, "many": EXHAUSTED}


async def test_headers_of_twelve_kilobytes_are_read(send: Send, me: Person) -> None:
    assert (await send(GET_SESSION, EMPTY, [*me.headers, ("x-big", "y" * 12_000)])).status == OK


@pytest.mark.parametrize("before_settings", [False, True])
async def test_server_survives_headers_that_decompress_to_megabytes(
    address: str, me: Person, before_settings: bool, is_grpcio: bool
) -> None:
    """HPACK repeats a header with one byte. grpcio does not apply the server's limits to a client that has not yet
    acknowledged them; it applies a built-in limit. Our own server closes the connection."""
    async with connected(address, before_settings=before_settings) as wire:
        stream = wire.begin(GET_SESSION, [*me.headers, *[("x-big", "y" * 3000)] * 1000])
        wire.send(stream, EMPTY, end_stream=True)
        status = (await wire.response(stream)).status
        assert status in {OK, EXHAUSTED} if is_grpcio and before_settings else status in {EXHAUSTED, None}
        assert status is not None or wire.closed.is_set()


CREDENTIALS: dict[str, tuple[Callable[[str], list[tuple[str, str | bytes]]], str]] = {
    "twice": (lambda good: [("authorization", good)] * 2, "CREDENTIAL_AMBIGUOUS"),
    "two": (lambda good: [("authorization", good), ("authorization", "Bearer other")], "CREDENTIAL_AMBIGUOUS"),
    "second is empty": (lambda good: [("authorization", good), ("authorization", "")], "CREDENTIAL_AMBIGUOUS"),
    "two kinds": (lambda good: [("authorization", good), ("x-api-key", "k")], "CREDENTIAL_AMBIGUOUS"),
    "joined": (lambda good: [("authorization", f"{good}, {good}")], "CREDENTIAL_INVALID"),
    "latin-1": (lambda good: [("authorization", b"Bearer \xff\xfe")], "CREDENTIAL_INVALID"),
    "UTF-8": (lambda good: [("authorization", "Bearer ünïcödé".encode())], "CREDENTIAL_INVALID"),
    "not ASCII after it": (lambda good: [("authorization", f"{good}ü".encode())], "CREDENTIAL_INVALID"),
    "10 KB": (lambda good: [("authorization", "Bearer " + "x" * 10_240)], "CREDENTIAL_INVALID"),
    "10 KB with a valid prefix": (lambda good: [("authorization", good + "A" * 10_240)], "CREDENTIAL_INVALID"),
    "two spaces": (lambda good: [("authorization", good.replace(" ", "  "))], "CREDENTIAL_INVALID"),
    "no token": (lambda good: [("authorization", "Bearer")], "CREDENTIAL_INVALID"),
    "another scheme": (lambda good: [("authorization", "Basic YTpi")], "CREDENTIAL_INVALID"),
    "key": (lambda good: [("x-api-key", good)], "CREDENTIAL_INVALID"),
    "cookie": (lambda good: [("cookie", f"session={good}")], "CREDENTIAL_MISSING"),
    "binary header": (lambda good: [("authorization-bin", "AAAA")], "CREDENTIAL_MISSING"),
}


async def test_credential_that_is_not_exactly_one_valid_token_is_refused(send: Send, me: Person) -> None:
    for name, (headers, expected) in CREDENTIALS.items():
        response = await send(GET_SESSION, EMPTY, headers(f"Bearer {me.token}"))
        assert (name, response.status, reason(response)) == (name, UNAUTHENTICATED, expected)
        assert me.token not in repr(response)


async def test_credential_with_characters_that_http2_forbids_is_refused(
    send: Send, me: Person, is_grpcio: bool
) -> None:
    good = f"Bearer {me.token}"
    for value in (f"{good}\r\nx-admin: true", f"{good}\n", f"{good}\0", f"{good} ", f" {good}", "Bearer "):
        response = await send(GET_SESSION, EMPTY, [("authorization", value)])
        assert response.status == (UNAUTHENTICATED if is_grpcio else None)
        assert is_grpcio or response.reset == PROTOCOL_ERROR
        assert me.token not in repr(response)


async def test_header_that_http2_forbids_is_refused(send: Send, me: Person) -> None:
    headers = {"Authorization": "x", "": "x", "a b": "x", "x-bin": "%", ":admin": "true"}
    responses = {name: send(GET_SESSION, EMPTY, [*me.headers, (name, value)]) for name, value in headers.items()}
    assert set((await statuses(responses)).values()) <= {INTERNAL, None}  # None: the stream was reset


UNPRINTABLE = (b"\xff\xfe", b"\xed\xa0\x80", b"x" * 10_000)
FORBIDDEN = (b"nul\0", b"line\r\nbreak", b"\x1b[31mred")


async def test_call_with_an_unstorable_user_agent_is_executed_and_audited(
    send: Send, dsn: str, is_grpcio: bool
) -> None:
    agents = (*UNPRINTABLE, *FORBIDDEN) if is_grpcio else UNPRINTABLE
    for number, agent in enumerate(agents):
        for password in ("a long enough password", "too short"):
            request = SignUpRequest(email=f"{number}@example.com", password=password, display_name="A")
            await send(SIGN_UP, framed(request.SerializeToString()), [("user-agent", agent)])
    with psycopg.connect(dsn) as connection:
        events = connection.execute("SELECT code, user_agent FROM audit_events ORDER BY occurred_at").fetchall()
    assert [code for code, _ in events] == ["OK", "INVALID_ARGUMENT"] * len(agents)
    assert all(text.isprintable() for _, text in events)


PATHS = (
    *("", "/", "//", "nowhere", "*", "/ü/ü", "/a b", "/\0", "/\x1b[31m", "/line\nbreak", "/" + "x" * 9000),
    *(GET + "/", "/" + GET, GET.lower(), GET.upper(), GET.replace("G", "%47"), GET.replace("/", "//"), GET + " "),
    *(GET + "?x=1", GET + "#x", GET.replace("/", "\\"), "http://localhost" + GET, GET.rpartition("/")[0], GET[:-1]),
)


async def test_path_that_is_not_exactly_a_method_is_unimplemented(
    send: Send, me: Person, log: list[Any], is_grpcio: bool
) -> None:
    for path in PATHS:
        response = await send(path, EMPTY, me.headers)
        if response.reset == PROTOCOL_ERROR and not is_grpcio:  # the path has characters that HTTP/2 forbids
            assert not path.startswith("/") or not path.isprintable() or " " in path or not path.isascii()
            continue
        assert (path, response.status, reason(response)) == (path, UNKNOWN_METHOD, "METHOD_UNKNOWN")
        assert log[-1]["method"].isprintable()


async def test_http_method_other_than_post_is_refused(send: Send, me: Person) -> None:
    verbs = ("GET", "PUT", "DELETE", "nonsense", "")
    bases = {verb: [(":method", verb), *gRPC(GET_SESSION)[1:]] for verb in verbs}
    responses = {verb: send("", EMPTY, me.headers, base=base) for verb, base in bases.items()}
    assert set((await statuses(responses)).values()) <= {INTERNAL, None}  # None: the stream was reset


async def test_call_without_a_required_header_is_refused(send: Send, me: Person) -> None:
    required = (":method", ":scheme", ":path", ":authority", "te")
    bases = {missing: [each for each in gRPC(GET_SESSION) if each[0] != missing] for missing in required}
    responses = {missing: send("", EMPTY, me.headers, base=base) for missing, base in bases.items()}
    assert set((await statuses(responses)).values()) <= {INTERNAL, None}


async def test_call_with_another_content_type_is_refused(send: Send, me: Person, is_grpcio: bool) -> None:
    """With the HTTP status 415, as gRPC specifies. grpcio ignores the header."""
    for kind in ("text/html", "nonsense", "application/grpcx", "application/grpc-web2", ""):
        base = [*gRPC(GET_SESSION)[:-1], ("content-type", kind)]
        response = await send("", EMPTY, me.headers, base=base)
        assert response.status == OK if is_grpcio else response.headers[":status"] == "415"


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=utf-8"])
async def test_content_type_of_grpc_is_accepted(send: Send, me: Person, kind: str) -> None:
    base = [*gRPC(GET_SESSION)[:-1], ("content-type", kind)]
    assert (await send("", EMPTY, me.headers, base=base)).status == OK


# --- connections ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("before_settings", [False, True])
async def test_connection_has_at_most_a_hundred_open_calls(
    address: str, client: Client, me: Person, before_settings: bool
) -> None:
    async with connected(address, before_settings=before_settings) as wire:
        wire.http.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 10_000  # ignores the server's setting
        wire.http.remote_settings.acknowledge()
        streams = [wire.begin(SIGN_IN) for _ in range(300)]
        for _ in range(20):
            await client.accounts.GetSession(GetSessionRequest(), metadata=me.headers)
        responses = [await wire.response(stream) for stream in streams]
        assert sum(response.status == TOO_LATE for response in responses) <= 100
        refused = wire.closed.is_set()  # our own server closes the connection of a client that ignores its settings
        assert refused or all(response.status is not None or response.reset is not None for response in responses)


async def test_call_is_refused_at_once_without_a_free_slot_and_served_with_one(
    gateway: tuple[Gateway, str], client: Client, me: Person, slots: int
) -> None:
    gateway[0].slots.taken += slots
    for headers in (me.headers, ()):  # before access is decided, so that a refusal costs little
        refused = await refusal(client.accounts.GetSession(GetSessionRequest(), metadata=headers))
        assert (refused.code, refused.retry_after) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 1.0)
    gateway[0].slots.taken -= slots
    await client.accounts.GetSession(GetSessionRequest(), metadata=me.headers)


@pytest.mark.parametrize("end_stream", [True, False], ids=["whole", "half-sent"])
async def test_refusal_of_a_full_gateway_has_a_request_id_and_a_time_to_wait(
    gateway: tuple[Gateway, str], send: Send, log: list[Any], slots: int, end_stream: bool
) -> None:
    gateway[0].slots.taken += slots
    response = await send(GET_SESSION, EMPTY, [("x-request-id", "mine")], end_stream=end_stream)
    gateway[0].slots.taken -= slots
    assert (response.status, reason(response)) == (EXHAUSTED, "RATE_LIMITED")
    assert response.headers["x-request-id"] == "mine"
    assert [detail.type_url.rpartition(".")[2] for detail in details(response).details] == ["ErrorInfo", "RetryInfo"]
    assert log == []


async def test_calls_take_slots_while_their_statements_run(
    gateway: tuple[Gateway, str], client: Client, me: Person, slots: int, dsn: str
) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("LOCK TABLE tasks")
        create = CreateTaskRequest(title="waits")
        waiting = [asyncio.ensure_future(client.tasks.CreateTask(create, metadata=me.headers)) for _ in range(slots)]
        async with asyncio.timeout(5):
            while gateway[0].slots.taken < slots:
                await asyncio.sleep(0.01)
        refused = await refusal(client.accounts.GetSession(GetSessionRequest(), metadata=me.headers))
        assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        connection.rollback()
    await asyncio.gather(*waiting)


async def test_health_checks_need_no_slot(gateway: tuple[Gateway, str], client: Client, slots: int) -> None:
    gateway[0].health.set_serving(True)
    gateway[0].slots.taken += slots
    for path in ("", "accord.tasks.v1.TaskService"):
        response = await HealthStub(client.channel).Check(HealthCheckRequest(service=path))
        assert response.status == HealthCheckResponse.SERVING
    watch = HealthStub(client.channel).Watch(HealthCheckRequest())
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    watch.cancel()
    gateway[0].slots.taken -= slots


@pytest.mark.parametrize("path", [SIGN_IN, CREATE], ids=["public", "signed in"])
async def test_two_thousand_requests_without_messages_do_not_block_other_callers(
    gateway: tuple[Gateway, str], address: str, client: Client, me: Person, path: str
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(20):
            wire = await stack.enter_async_context(connected(address))
            for _ in range(100):
                wire.begin(path, me.headers)
        for _ in range(12):
            calls = (
                client.accounts.GetSession(GetSessionRequest(), metadata=me.headers, timeout=MAX_DEADLINE)
                for _ in range(20)
            )
            assert await asyncio.gather(*map(outcome, calls)) == ["OK"] * 20
        assert gateway[0].slots.taken == 0


@pytest.mark.parametrize(
    "data", [None, framed(CreateTaskRequest(title="reset").SerializeToString())], ids=["headers", "calls"]
)
async def test_two_thousand_rapid_resets_leak_nothing(address: str, me: Person, data: bytes | None, dsn: str) -> None:
    """Our own server closes the connection after a thousand."""
    async with connected(address) as wire:
        for number in range(2_000):
            if wire.closed.is_set():
                break
            stream = wire.begin(CREATE, me.headers)
            if data is not None:
                wire.send(stream, data)
            wire.reset(stream)
            if number % 50 == 0:
                await asyncio.sleep(0)
    assert set(titles(dsn)) <= {"reset"}


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


NOT_HTTP2 = (
    b"",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"\x16\x03\x01\x02\0\x01\0",  # the beginning of TLS
    bytes(1000),
    PREFACE,
    PREFACE[:10],
    PREFACE + b"\xff" * 100,
    PREFACE + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x05\x01\x04\0\0\0\x01" + b"\xff" * 5,  # an invalid header block
)


async def test_connection_without_http2_is_closed(address: str) -> None:
    async def closed_after(data: bytes) -> None:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        async with asyncio.timeout(HANDSHAKE + 2):
            while await reader.read(65_536):
                pass
        writer.close()

    await asyncio.gather(*map(closed_after, NOT_HTTP2))


async def test_flood_of_pings_closes_the_connection(address: str) -> None:
    async with connected(address) as wire:
        for _ in range(50):
            wire.http.ping(b"12345678")
            wire.flush()
        async with asyncio.timeout(5):
            await wire.closed.wait()
