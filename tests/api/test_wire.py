"""What arrives from callers that keep to no rules of HTTP/2 or gRPC: each gets a definite answer, and takes nothing from
the others. After every test here the server answers as ever, all its slots are free, and its log tells of no fault.

What breaks gRPC's own framing is answered by gRPC itself before Accord sees it: with a status (INTERNAL for most), and
without details.
"""

import asyncio
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
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from h2.settings import SettingCodes

import accord_gateway.server.gateway as wiring
from accord.accounts.v1.accounts_pb2 import GetSessionRequest, SignUpRequest
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, ListTasksRequest
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_gateway.server.gateway import Gateway, Runtime, build_server, listen
from accord_gateway.settings import Settings
from accord_rpc.contract import check
from accord_rpc.policy import Method
from tests.api.conftest import SECRET_KEY, Client, outcome, refusal
from tests.api.http2 import Answer, Headers, connected, framed, gRPC
from tests.factories import Person

WHO = "/accord.accounts.v1.AccountService/GetSession"
SIGN_IN = "/accord.accounts.v1.AccountService/SignIn"
SIGN_UP = "/accord.accounts.v1.AccountService/SignUp"
SIGN_OUT = "/accord.accounts.v1.AccountService/SignOut"
GET = "/accord.tasks.v1.TaskService/GetTask"
CREATE = "/accord.tasks.v1.TaskService/CreateTask"

OK, INVALID, TOO_LATE, EXHAUSTED, UNKNOWN_METHOD, INTERNAL, NOBODY = 0, 3, 4, 8, 12, 13, 16
DEFAULT_DEADLINE, MAX_DEADLINE, HANDSHAKE = 1.0, 2.0, 0.5  # seconds; shorter than in life, to be waited for
MIB = 1024 * 1024
NOTHING = framed(b"")  # the whole of an empty message

Send = Callable[..., Awaitable[Answer]]


@pytest.fixture
def slots() -> int:
    return 20


@pytest.fixture
async def gateway(
    database: Database, listener: Listener, slots: int, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Gateway, str]]:
    """The gateway as it is, but for its patience and its size."""
    options = wiring.channel_options
    patience = {"grpc.server_handshake_timeout_ms": int(HANDSHAKE * 1000)}
    monkeypatch.setattr(wiring, "check", lambda *given: [_hurried(method) for method in check(*given)])
    monkeypatch.setattr(wiring, "channel_options", lambda given: list((dict(options(given)) | patience).items()))
    settings = Settings(port=0, metrics_port=0, max_concurrent_calls=slots)
    gateway = build_server(Runtime(settings, SECRET_KEY, database, listener))
    port = listen(gateway.server, settings)
    await gateway.server.start()
    yield gateway, f"127.0.0.1:{port}"
    await gateway.server.stop(None)


def _hurried(method: Method) -> Method:
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
    assert "acs_" not in repr(lines), "a token is in the log"


@pytest.fixture(autouse=True)
async def as_ever(log: list[Any], gateway: tuple[Gateway, str], client: Client, me: Person) -> AsyncIterator[None]:
    yield
    await until_all_slots_are_free(gateway[0])
    await client.accounts.GetSession(GetSessionRequest(), metadata=me.headers)


async def until_all_slots_are_free(gateway: Gateway) -> None:
    async with asyncio.timeout(15):
        while gateway.slots.taken:
            await asyncio.sleep(0.01)


@pytest.fixture
async def send(address: str) -> Send:
    """Sends one call on a connection of its own: gRPC goes on to refuse what looks like something it has refused."""

    async def send(
        path: str, data: bytes | None, headers: Headers = (), *, over: bool = True, base: Headers | None = None
    ) -> Answer:
        async with connected(address) as wire:
            stream = wire.begin(path, headers, base=base, over=over and data is None)
            if data is not None:
                wire.send(stream, data, over=over)
            return await wire.answer(stream)

    return send


def details(answer: Answer) -> Status:
    encoded = answer.headers.get("grpc-status-details-bin", "")
    return Status.FromString(b64decode(encoded + "=" * (-len(encoded) % 4)))


def reason(answer: Answer) -> str | None:
    """Why Accord refused; None if it was not Accord that did."""
    found = [ErrorInfo.FromString(each.value) for each in details(answer).details if each.Is(ErrorInfo.DESCRIPTOR)]
    return found[0].reason if found else None


async def statuses(answers: dict[str, Awaitable[Answer]]) -> dict[str, int | None]:
    return dict(zip(answers, [each.status for each in await asyncio.gather(*answers.values())], strict=True))


# --- messages ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [GET, SIGN_IN])
async def test_message_of_five_mebibytes_is_refused(client: Client, me: Person, path: str) -> None:
    assert await code_of(ask(client, path, bytes(5 * MIB), me)) == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_message_of_four_mebibytes_is_read(client: Client, me: Person) -> None:
    refused = await refusal(ask(client, GET, b"\xff" * 4 * MIB, me))
    assert refused.reason == "INVALID_MESSAGE"


def ask(client: Client, path: str, message: bytes, who: Person) -> Awaitable[bytes]:
    """Through gRPC's own client."""
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = client.channel.unary_unary(path)
    return method(message, metadata=who.headers)


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


@pytest.mark.parametrize("path", [WHO, SIGN_IN])
async def test_gzip_bomb_is_refused_before_it_is_expanded(send: Send, me: Person, path: str) -> None:
    bomb = framed(gzipped(bytes(60 * MIB)), compressed=True)
    assert len(bomb) < 64 * 1024
    before = getrusage(RUSAGE_SELF).ru_maxrss
    answer = await send(path, bomb, [*me.headers, ("grpc-encoding", "gzip")])
    assert (answer.status, answer.data) == (EXHAUSTED, b"")
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 30 * 1024  # KiB


def gzipped(data: bytes) -> bytes:
    deflate = zlib.compressobj(9, wbits=31)
    return deflate.compress(data) + deflate.flush()


async def test_message_that_is_compressed_as_it_says_is_read(send: Send, me: Person) -> None:
    message = CreateTaskRequest(title="compressed" * 20).SerializeToString()
    answer = await send(CREATE, framed(gzipped(message), compressed=True), [*me.headers, ("grpc-encoding", "gzip")])
    assert answer.status == OK


async def test_encoding_that_is_not_known_is_refused(send: Send, me: Person) -> None:
    encodings = ("", "nonsense", "br", "GZIP", "gzip,gzip")
    answers = {each: send(WHO, NOTHING, [*me.headers, ("grpc-encoding", each)]) for each in encodings}
    assert await statuses(answers) == dict.fromkeys(encodings, INTERNAL)


async def test_message_that_is_not_compressed_as_it_says_is_refused(send: Send, me: Person) -> None:
    message = framed(b"nonsense", compressed=True)
    answers = {
        each: send(WHO, message, [*me.headers, ("grpc-encoding", each)]) for each in ("gzip", "deflate", "identity")
    }
    answers["unset"] = send(WHO, message, me.headers)
    assert await statuses(answers) == dict.fromkeys(answers, INTERNAL)


async def test_message_that_claims_to_have_four_gibibytes_is_refused(send: Send, me: Person) -> None:
    assert (await send(WHO, b"\0\xff\xff\xff\xff", me.headers, over=False)).status == EXHAUSTED


NO_MESSAGES_OF_THESE = (
    b"\xff",
    b"\xff" * 11,
    b"\x0a\x05ab",  # a text that is shorter than it says
    b"\x0a\x02\xff\xfe",  # a text that is not UTF-8
    b"\x0a\x03\xed\xa0\x80",  # half a surrogate pair
    b"\x0b",  # a group that does not end
    b"\x0c",  # the end of a group that did not begin
    b"\0\0",  # a field without a number
    Timestamp(seconds=1, nanos=2).SerializeToString(),
    ListTasksRequest(page_size=5, order_by="title").SerializeToString(),
    SignUpRequest(email="a@example.com").SerializeToString(),
)


@pytest.mark.parametrize("path", [GET, SIGN_IN])
async def test_bytes_of_something_else_are_an_invalid_argument_without_names_of_types(
    client: Client, me: Person, path: str
) -> None:
    for message in NO_MESSAGES_OF_THESE:
        refused = await refusal(ask(client, path, message, me))
        assert (refused.code.value[0], refused.reason) == (INVALID, "INVALID_MESSAGE")
        told = f"{refused.message} {refused.violations}".lower()
        assert not [word for word in ("accord", "request", "timestamp", "proto", "decode", "utf") if word in told]


# --- calls without a message, and with too many -----------------------------------------------------------------------
@pytest.mark.parametrize("path", [WHO, SIGN_IN])
async def test_call_that_ends_before_its_message_is_an_invalid_argument(send: Send, me: Person, path: str) -> None:
    for data in (None, b"", b"\0\0", framed(b"x" * 100)[:50]):
        answer = await send(path, data, me.headers)
        assert (answer.status, reason(answer)) == (INVALID, "INVALID_MESSAGE")
        (bad,) = [
            BadRequest.FromString(each.value) for each in details(answer).details if each.Is(BadRequest.DESCRIPTOR)
        ]
        assert bad.field_violations[0].description == "the call carried no message"


async def test_half_sent_calls_end_at_the_deadline(address: str, me: Person) -> None:
    async with connected(address) as wire:
        began = perf_counter()
        streams = [wire.begin(path, headers) for path, headers in ((WHO, me.headers), (SIGN_IN, ())) for _ in range(3)]
        for stream, data in zip(streams, [None, b"\0\0", framed(b"x" * 100)[:50]] * 2, strict=True):
            if data is not None:
                wire.send(stream, data)
        answers = [await wire.answer(stream) for stream in streams]
        assert [(each.status, reason(each)) for each in answers] == [(TOO_LATE, "DEADLINE_EXCEEDED")] * 6
        assert DEFAULT_DEADLINE <= perf_counter() - began < 2 * DEFAULT_DEADLINE


async def test_call_that_arrives_byte_by_byte_ends_at_the_deadline(address: str, me: Person) -> None:
    async with connected(address) as wire:
        stream = wire.begin(GET, me.headers)
        for byte in framed(b"x" * 1000):
            if wire.answers[stream].over.is_set():
                break
            wire.send(stream, bytes([byte]))
            await asyncio.sleep(0.02)
        assert wire.answers[stream].status == TOO_LATE


async def test_half_sent_call_ends_when_it_said_but_never_later_than_the_maximum(send: Send, me: Person) -> None:
    expected = {
        "300m": 0.3,
        "1m": 0,
        "1n": 0,
        "0S": 0,
        "99999999H": MAX_DEADLINE,
        "18446744073709551616n": DEFAULT_DEADLINE,
    }

    async def seconds(said: str) -> float:
        began = perf_counter()
        assert (await send(WHO, None, [*me.headers, ("grpc-timeout", said)], over=False)).status == TOO_LATE
        return perf_counter() - began

    await send(WHO, NOTHING, me.headers)  # the session is known from now on: nobody waits for the database
    for lasted, least in zip(await asyncio.gather(*map(seconds, expected)), expected.values(), strict=True):
        assert least <= lasted < least + DEFAULT_DEADLINE


async def test_timeout_that_is_none_is_refused(send: Send, me: Person) -> None:
    said = ("", "0", "-1S", "1", "S", "1h", "1.5S", "nonsense", "\0")
    answers = {each: send(WHO, NOTHING, [*me.headers, ("grpc-timeout", each)]) for each in said}
    assert await statuses(answers) == dict.fromkeys(said, INTERNAL)


async def test_half_sent_call_without_a_credential_is_refused_at_once(send: Send) -> None:
    began = perf_counter()
    answer = await send(WHO, None, over=False)
    assert (answer.status, reason(answer)) == (NOBODY, "CREDENTIAL_MISSING")
    assert perf_counter() - began < DEFAULT_DEADLINE / 2


async def test_second_message_of_a_call_that_has_one_is_not_read(send: Send, me: Person, dsn: str) -> None:
    first, second = (framed(CreateTaskRequest(title=title).SerializeToString()) for title in ("first", "second"))
    assert (await send(CREATE, first + second, me.headers)).status == OK
    assert titles(dsn) == ["first"]


def titles(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("SELECT title FROM tasks ORDER BY id").fetchall()]


async def test_call_is_answered_though_its_side_stays_open(send: Send, me: Person) -> None:
    assert (await send(WHO, NOTHING, me.headers, over=False)).status == OK


# --- headers ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [WHO, SIGN_IN, "/nowhere"])
async def test_headers_of_twenty_kilobytes_are_refused(send: Send, me: Person, path: str) -> None:
    one, many = [("x-big", "y" * 20_000)], [(f"x-{number}", "y" * 200) for number in range(100)]
    answers = {"one": send(path, NOTHING, [*me.headers, *one]), "many": send(path, NOTHING, [*me.headers, *many])}
    assert await statuses(answers) == {"one": EXHAUSTED, "many": EXHAUSTED}


async def test_headers_of_twelve_kilobytes_are_read(send: Send, me: Person) -> None:
    assert (await send(WHO, NOTHING, [*me.headers, ("x-big", "y" * 12_000)])).status == OK


@pytest.mark.parametrize("hasty", [False, True])
async def test_headers_that_unfold_to_megabytes_are_survived(address: str, me: Person, hasty: bool) -> None:
    """HPACK says with one byte what it has said before. A client that has not yet acknowledged the server's limits is
    not held to them by gRPC; it is let go at a limit of gRPC's own."""
    async with connected(address, hasty=hasty) as wire:
        stream = wire.begin(WHO, [*me.headers, *[("x-big", "y" * 3000)] * 1000])
        wire.send(stream, NOTHING, over=True)
        assert (await wire.answer(stream)).status in ({OK, EXHAUSTED} if hasty else {EXHAUSTED})


CREDENTIALS: dict[str, tuple[Callable[[str], list[tuple[str, str | bytes]]], str]] = {
    "twice": (lambda good: [("authorization", good)] * 2, "CREDENTIAL_AMBIGUOUS"),
    "two": (lambda good: [("authorization", good), ("authorization", "Bearer other")], "CREDENTIAL_AMBIGUOUS"),
    "second is empty": (lambda good: [("authorization", good), ("authorization", "")], "CREDENTIAL_AMBIGUOUS"),
    "two kinds": (lambda good: [("authorization", good), ("x-api-key", "k")], "CREDENTIAL_AMBIGUOUS"),
    "joined": (lambda good: [("authorization", f"{good}, {good}")], "CREDENTIAL_INVALID"),
    "CR LF": (lambda good: [("authorization", f"{good}\r\nx-admin: true")], "CREDENTIAL_INVALID"),
    "LF": (lambda good: [("authorization", f"{good}\n")], "CREDENTIAL_INVALID"),
    "NUL": (lambda good: [("authorization", f"{good}\0")], "CREDENTIAL_INVALID"),
    "latin-1": (lambda good: [("authorization", b"Bearer \xff\xfe")], "CREDENTIAL_INVALID"),
    "UTF-8": (lambda good: [("authorization", "Bearer ünïcödé".encode())], "CREDENTIAL_INVALID"),
    "not ASCII after it": (lambda good: [("authorization", f"{good}ü".encode())], "CREDENTIAL_INVALID"),
    "10 KB": (lambda good: [("authorization", "Bearer " + "x" * 10_240)], "CREDENTIAL_INVALID"),
    "10 KB that begin well": (lambda good: [("authorization", good + "A" * 10_240)], "CREDENTIAL_INVALID"),
    "two spaces": (lambda good: [("authorization", good.replace(" ", "  "))], "CREDENTIAL_INVALID"),
    "no token": (lambda good: [("authorization", "Bearer")], "CREDENTIAL_INVALID"),
    "another scheme": (lambda good: [("authorization", "Basic YTpi")], "CREDENTIAL_INVALID"),
    "key": (lambda good: [("x-api-key", good)], "CREDENTIAL_INVALID"),
    "cookie": (lambda good: [("cookie", f"session={good}")], "CREDENTIAL_MISSING"),
    "binary header": (lambda good: [("authorization-bin", "AAAA")], "CREDENTIAL_MISSING"),
}


async def test_credential_that_is_not_exactly_one_good_token_is_refused(send: Send, me: Person) -> None:
    for name, (headers, expected) in CREDENTIALS.items():
        answer = await send(WHO, NOTHING, headers(f"Bearer {me.token}"))
        assert (name, answer.status, reason(answer)) == (name, NOBODY, expected)
        assert me.token not in repr(answer)


async def test_header_that_http2_does_not_allow_is_refused(send: Send, me: Person) -> None:
    headers = {"Authorization": "x", "": "x", "a b": "x", "x-bin": "%", ":admin": "true"}
    answers = {name: send(WHO, NOTHING, [*me.headers, (name, value)]) for name, value in headers.items()}
    assert await statuses(answers) == dict.fromkeys(headers, INTERNAL)


USER_AGENTS = (b"nul\0", b"\xff\xfe", b"line\r\nbreak", b"\x1b[31mred", b"\xed\xa0\x80", b"x" * 10_000)


async def test_user_agent_that_no_row_can_hold_keeps_nothing_from_being_done_and_audited(send: Send, dsn: str) -> None:
    for number, agent in enumerate(USER_AGENTS):
        for password in ("a long enough password", "too short"):
            request = SignUpRequest(email=f"{number}@example.com", password=password, display_name="A")
            await send(SIGN_UP, framed(request.SerializeToString()), [("user-agent", agent)])
    with psycopg.connect(dsn) as connection:
        events = connection.execute("SELECT code, user_agent FROM audit_events ORDER BY occurred_at").fetchall()
    assert [code for code, _ in events] == ["OK", "INVALID_ARGUMENT"] * len(USER_AGENTS)
    assert all(text.isprintable() for _, text in events)


PATHS = (
    *("", "/", "//", "nowhere", "*", "/ü/ü", "/a b", "/\0", "/\x1b[31m", "/line\nbreak", "/" + "x" * 9000),
    *(GET + "/", "/" + GET, GET.lower(), GET.upper(), GET.replace("G", "%47"), GET.replace("/", "//"), GET + " "),
    *(GET + "?x=1", GET + "#x", GET.replace("/", "\\"), "http://localhost" + GET, GET.rpartition("/")[0], GET[:-1]),
)


async def test_path_that_is_not_exactly_a_method_is_unimplemented(send: Send, me: Person, log: list[Any]) -> None:
    for path in PATHS:
        answer = await send(path, NOTHING, me.headers)
        assert (path, answer.status, reason(answer)) == (path, UNKNOWN_METHOD, "METHOD_UNKNOWN")
        assert log[-1]["method"].isprintable()


async def test_other_verb_than_post_is_refused(send: Send, me: Person) -> None:
    verbs = ("GET", "PUT", "DELETE", "nonsense", "")
    bases = {verb: [(":method", verb), *gRPC(WHO)[1:]] for verb in verbs}
    answers = {verb: send("", NOTHING, me.headers, base=base) for verb, base in bases.items()}
    assert set((await statuses(answers)).values()) <= {INTERNAL, None}  # without a status the stream was reset


async def test_call_without_a_header_that_every_call_has_is_refused(send: Send, me: Person) -> None:
    needed = (":method", ":scheme", ":path", ":authority", "te")
    bases = {missing: [each for each in gRPC(WHO) if each[0] != missing] for missing in needed}
    answers = {missing: send("", NOTHING, me.headers, base=base) for missing, base in bases.items()}
    assert set((await statuses(answers)).values()) <= {INTERNAL, None}


async def test_content_type_is_not_looked_at(send: Send, me: Person) -> None:
    """Not by gRPC, and it is not shown to us. A browser cannot send the `te` without which nothing is answered."""
    kinds = ("application/grpc+proto", "application/json", "text/html", "nonsense", "")
    bases = {kind: [*gRPC(WHO)[:-1], ("content-type", kind)] for kind in kinds}
    answers = {kind: send("", NOTHING, me.headers, base=base) for kind, base in bases.items()}
    assert await statuses(answers) == dict.fromkeys(kinds, OK)


# --- connections ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("hasty", [False, True])
async def test_one_connection_has_at_most_a_hundred_calls_open(
    address: str, client: Client, me: Person, hasty: bool
) -> None:
    async with connected(address, hasty=hasty) as wire:
        wire.http.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 10_000  # ignores the server's setting
        wire.http.remote_settings.acknowledge()
        streams = [wire.begin(SIGN_IN) for _ in range(300)]
        for _ in range(20):
            await client.accounts.GetSession(GetSessionRequest(), metadata=me.headers)
        answers = [await wire.answer(stream) for stream in streams]
        assert sum(answer.status == TOO_LATE for answer in answers) <= 100
        assert all(answer.status is not None or answer.reset is not None for answer in answers)


async def test_call_beyond_the_slots_is_refused_at_once_and_served_when_one_is_free(
    gateway: tuple[Gateway, str], client: Client, me: Person, slots: int
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(slots):
            watch = HealthStub(client.channel).Watch(HealthCheckRequest())
            stack.callback(watch.cancel)
            await watch.read()
        assert gateway[0].slots.taken == slots
        refused = await refusal(client.accounts.GetSession(GetSessionRequest(), metadata=me.headers))
        assert (refused.code, refused.retry_after) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 1.0)
    await until_all_slots_are_free(gateway[0])
    await client.accounts.GetSession(GetSessionRequest(), metadata=me.headers)


@pytest.mark.parametrize("path", [SIGN_IN, CREATE], ids=["public", "signed in"])
async def test_two_thousand_requests_without_their_messages_keep_no_one_out(
    gateway: tuple[Gateway, str], address: str, client: Client, me: Person, path: str
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(20):
            wire = await stack.enter_async_context(connected(address))
            for _ in range(100):
                wire.begin(path, me.headers)
        for _ in range(12):
            calls = (client.accounts.GetSession(GetSessionRequest(), metadata=me.headers) for _ in range(20))
            assert await asyncio.gather(*map(outcome, calls)) == ["OK"] * 20
        assert gateway[0].slots.taken == 0


@pytest.mark.parametrize(
    "data", [None, framed(CreateTaskRequest(title="reset").SerializeToString())], ids=["headers", "calls"]
)
async def test_two_thousand_rapid_resets_leave_nothing_behind(
    address: str, me: Person, data: bytes | None, dsn: str
) -> None:
    async with connected(address) as wire:
        for number in range(2_000):
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
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\0\x01\0",  # the beginning of TLS
    bytes(1000),
    PREFACE,
    PREFACE[:10],
    PREFACE + b"\xff" * 100,
    PREFACE + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x05\x01\x04\0\0\0\x01" + b"\xff" * 5,  # headers that are none
)


async def test_connection_that_does_not_speak_http2_is_closed(address: str) -> None:
    async def closed_after(data: bytes) -> None:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        async with asyncio.timeout(HANDSHAKE + 2):
            while await reader.read(65_536):
                pass
        writer.close()

    await asyncio.gather(*map(closed_after, NOT_HTTP2))


async def test_flood_of_pings_ends_its_connection(address: str) -> None:
    async with connected(address) as wire:
        for _ in range(50):
            wire.http.ping(b"12345678")
            wire.flush()
        async with asyncio.timeout(5):
            await wire.closed.wait()
