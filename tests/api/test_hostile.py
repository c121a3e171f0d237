"""Every method returns a documented response to every message, and no data is lost.

The methods, their messages and their reasons come from the contract, so new methods are attacked without a change here.
"""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

import grpc
import prometheus_client
import psycopg
import pytest
import structlog
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client.samples import Sample
from protovalidate import Validator
from psycopg import sql
from sqlalchemy import ColumnElement, Table, select

import accord_gateway.server.gateway as wiring
import accord_rpc.pipeline.rate_limits as rate_limits
from accord.errors.v1 import errors_pb2
from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import Access
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, DeleteTaskRequest, GetTaskRequest, ListTasksRequest, Task
from accord_api.registration import SERVICES
from accord_auth.passwords import Passwords
from accord_auth.tokens import new_session_token, token_hash
from accord_db.engine.ids import uuid7
from accord_db.queries import accounts, sessions
from accord_db.queries.rate_limits import Limit
from accord_db.schema import metadata
from accord_gateway.settings import Settings
from accord_rpc.contract import contract_services
from accord_rpc.pipeline.durable_limits import DurableLimit, Subject
from accord_rpc.pipeline.telemetry import call_metrics
from accord_rpc.policy import Method, read_methods
from accord_rpc.reasons import AnyReason, reason_name
from accord_rpc.server.limits import ConnectionLimits
from tests.api.conftest import Client, read_refusal
from tests.api.faces import CONNECT_JSON, GRPC, REST, Ends, Face, Outcome, Request
from tests.api.hostile_json import heavy_documents, hostile_requests
from tests.api.hostile_messages import heavy_messages, hostile_messages
from tests.api.hostile_scene import WRITTEN_BY_CALLS, OwnedOrganizations, known_to_administrators, populate
from tests.api.representatives import Faces, representatives
from tests.api.services import new_service, token_of
from tests.api.world import World
from tests.factories import Headers, Person, bearer
from tests.rows import connected, has_owner, of_owner

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

METHODS, _ = read_methods(contract_services())
each_method = pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])

# One thread for all tests: when hypothesis first runs in a thread, it collects garbage.
_GENERATOR = ThreadPoolExecutor(1, "hostile messages")
AT_A_TIME = 8
TIMEOUT = 5.0  # seconds for one call
HEAVY_TIMEOUT = 2.0  # seconds for one call with a message of 4 MiB
PASSWORD = "a passphrase that belongs into no log"
RESOURCES = {message: model for service in SERVICES for message, model in getattr(service, "resources", {}).items()}
SECRET = "a secret that only its owner may read"

# These methods change or delete the account of the caller, all its sessions, or its organization. Each call uses a new
# account and a new organization.
WITH_NEW_ACCOUNT = {"ChangePassword", "DeleteAccount", "DeleteOrganization", "RevokeOtherSessions", "UpdateAccount"}
# These methods revoke the rights of a member in an organization. Each call uses a new owner of the same organization.
WITH_NEW_OWNER = {"LeaveOrganization", "RemoveMember", "TransferOwnership", "UpdateMember"}

# Tables to which a public method that names another account may add rows: the audit event of the call, and a token that
# is mailed to the owner of the account.
WRITTEN_FOR_NAMED_ACCOUNTS = {"audit_events", "account_tokens"}

# Codes that depend on the message alone. Other codes depend on the caller, the time or the server.
MESSAGE_CODES = {
    code.value[0]
    for code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    )
}


def documented(method: Method) -> set[str]:
    """The reasons that the method may return for any message."""
    errors = {value.number: value.GetOptions().Extensions[errors_pb2.answer] for value in Reason.DESCRIPTOR.values}
    reasons = {number for number, error in errors.items() if error.pipeline and error.code in MESSAGE_CODES}
    if not method.idempotent:
        reasons.discard(Reason.REASON_REQUEST_ID_REUSED)
    return {reason_name(cast(AnyReason, reason)) for reason in reasons | method.policy.errors}


def may_name_another_account(method: Method) -> bool:
    """Whether a caller without a credential can name any account."""
    return method.policy.access == Access.ACCESS_PUBLIC and method.account_field is not None


# --- the scene --------------------------------------------------------------------------------------------------------
@dataclass
class Scene:
    """Two users with their own rows. The attack uses sessions of the first user and knows ids of the second."""

    client: Client
    ends: Ends
    world: World
    me: Person
    other: Person
    owned: OwnedOrganizations  # `mine` is the active organization of the session
    administrator: Person
    service: Headers
    password_hash: str  # of PASSWORD
    known: list[str] = field(default_factory=list)
    known_to_administrators: list[str] = field(default_factory=list)
    kept: list[Task] = field(default_factory=list)  # tasks of `me` whose ids the attack does not know


class Unlimited:
    """Rate limit counters that never refuse a call."""

    def counter(self, *_: object) -> "Unlimited":
        return self

    async def hit(self, subject: str, most: int | None = None) -> None:
        return None


class NeverExhausted(DurableLimit):
    """Counts in the database like the real limit, but never refuses a call."""

    def of(self, subject: Subject) -> Limit:
        return super().of(subject)._replace(max_calls=2**62)


@pytest.fixture(autouse=True)
def passwords(monkeypatch: pytest.MonkeyPatch) -> Passwords:
    """Makes password hashes cheap and removes rate limits, which would slow the attack down. Other tests cover both."""
    cheap = partial(Passwords, time_cost=1, memory_kib=8)
    monkeypatch.setattr(wiring, "Passwords", cheap)
    monkeypatch.setattr(wiring, "rate_limiter", lambda _: Unlimited())
    monkeypatch.setattr(rate_limits, "DurableLimit", NeverExhausted)
    return cheap()


@pytest.fixture
def gateway_settings(settings_of_every_face: Settings) -> Settings:
    return settings_of_every_face


@pytest.fixture
async def scene(passwords: Passwords, client: Client, ends: Ends, world: World) -> Scene:
    me, other, administrator = [await world.person() for _ in range(3)]
    service = bearer(await token_of(client.channel, await new_service(client.database)))
    owned = OwnedOrganizations(world.organization(), world.organization())
    scene = Scene(client, ends, world, me, other, owned, administrator, service, await passwords.hash(PASSWORD))
    world.change_account(administrator, "role = 'administrator'")
    world.join(me, owned.mine, "owner")
    world.activate(me, owned.mine)
    for person, password_hash in ((scene.me, scene.password_hash), (scene.other, await passwords.hash(SECRET))):
        await accounts.update_password_hash(client.database, account_id=person.account_id, password_hash=password_hash)
    scene.kept = [await create(client, scene.me, "kept") for _ in range(3)]
    for person in (scene.me, scene.other):
        tasks = [
            await create(client, person, SECRET if person is scene.other else f"title {number}") for number in range(6)
        ]
        for task in tasks[:2]:
            await client.tasks.DeleteTask(DeleteTaskRequest(task_id=task.id), metadata=person.headers)
        page = await client.tasks.ListTasks(ListTasksRequest(page_size=1), metadata=person.headers)
        scene.known += [text for task in tasks for text in (task.id, task.id, task.etag)]
        scene.known += [person.email, str(person.account_id), str(person.session_id), *[page.next_page_token] * 3]
    scene.known += await populate(client, world, owned, scene.me, scene.other)
    scene.known += [PASSWORD] * 10  # repeated, so that the attack uses it often enough
    scene.known_to_administrators = await known_to_administrators(world)
    return scene


async def another_session(scene: Scene, *, in_organization: bool = True) -> Headers:
    token, session_id = new_session_token(), uuid7()
    await sessions.insert_session(
        scene.client.database,
        session_id=session_id,
        account_id=scene.me.account_id,
        token_hash=token_hash(token),
        lifetime=timedelta(hours=1),
    )
    if in_organization:
        scene.world.activate(replace(scene.me, session_id=session_id), scene.owned.mine)
    return bearer(token)


async def another_account(scene: Scene) -> Headers:
    """A new account that is the only owner of a new organization."""
    person = await scene.world.member(scene.world.organization(), "owner")
    await accounts.update_password_hash(
        scene.client.database, account_id=person.account_id, password_hash=scene.password_hash
    )
    return person.headers


async def another_owner(scene: Scene) -> Headers:
    return (await scene.world.member(scene.owned.mine, "owner")).headers


async def create(client: Client, owner: Person, title: str) -> Task:
    return (await client.tasks.CreateTask(CreateTaskRequest(title=title), metadata=owner.headers)).task


@pytest.fixture
def messages_per_method(request: pytest.FixtureRequest, method: Method) -> int:
    """A tenth for a message without fields, because most of those messages are empty."""
    count = int(request.config.getoption("--hostile"))
    return count if method.request.DESCRIPTOR.fields else math.ceil(count / 10)


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


# --- the attack -------------------------------------------------------------------------------------------------------
class Attack:
    """Sends messages to one method and checks every response against the contract."""

    def __init__(self, scene: Scene, method: Method) -> None:
        self._scene, self._method = scene, method
        self._documented = documented(method)
        self._validator = Validator()
        self._call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = scene.ends.channel.stream_stream(method.path)
        self.descriptor = descriptor_of(method)
        self.codes: Counter[str] = Counter()  # number of calls by code
        self.reasons: Counter[str] = Counter()
        self.acknowledged: dict[str, set[str]] = defaultdict(set)  # ids of rows, by table

    async def send(self, message: bytes) -> None:
        headers = await self._headers()
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self._first_response(message, headers)
        except TimeoutError:
            raise AssertionError(f"no response within {TIMEOUT} s") from None
        except grpc.aio.AioRpcError as error:
            self._check_error(error)
        else:
            self._check_response(response)

    async def send_through(self, face: Face, request: Request) -> None:
        """Also requests that a face refuses before it knows the method: they are neither logged nor counted as calls of it."""
        headers = await self._headers()
        if len(request.target) > ConnectionLimits().target_bytes:
            response = await self._scene.ends.http.fetch(request.verb, request.target, request.body, headers)
            assert response.status == 414
            return
        outcome = await face.send(self._scene.ends, self.descriptor, request, headers)
        assert outcome.response is not None
        assert SECRET.encode() not in outcome.response.body
        if outcome.code == "OK":
            self._check_response(outcome.message.SerializeToString())
        elif not is_of_no_method(face, outcome):
            assert outcome.reason in self._documented, (request, outcome)
            assert outcome.violations or outcome.reason != "INVALID_MESSAGE", (request, outcome)
            self.codes[outcome.code] += 1
            self.reasons[outcome.reason] += 1

    async def _headers(self) -> Headers:
        if self._method.policy.access in (Access.ACCESS_ADMIN, Access.ACCESS_SERVICE):
            admin = self._method.policy.access == Access.ACCESS_ADMIN
            return self._scene.administrator.headers if admin else self._scene.service
        if self._method.name in WITH_NEW_ACCOUNT:
            return await another_account(self._scene)
        if self._method.name in WITH_NEW_OWNER:
            return await another_owner(self._scene)
        if self._method.policy.access == Access.ACCESS_PUBLIC or not self._method.policy.audit:
            return self._scene.me.headers  # the method ends no session: those that do are audited and never public
        return await another_session(self._scene)

    async def _first_response(self, message: bytes, headers: Headers) -> bytes:
        """The first message of the response; empty if a stream has none."""
        call = self._call(iter([message]), metadata=headers)
        async for response in call:
            call.cancel() if self._method.response_streaming else await call.code()
            return response
        assert self._method.response_streaming
        return b""

    def _check_error(self, error: grpc.aio.AioRpcError) -> None:
        refusal = read_refusal(error)
        details = Status.FromString(dict(error.trailing_metadata() or ())["grpc-status-details-bin"]).details
        assert [detail.Is(ErrorInfo.DESCRIPTOR) for detail in details].count(True) == 1
        assert refusal.reason in self._documented, refusal
        assert refusal.violations or refusal.reason != "INVALID_MESSAGE", "the message passes the rules of the contract"
        assert SECRET not in repr(error)
        self.codes[error.code().name] += 1
        self.reasons[refusal.reason] += 1

    def _check_response(self, response: bytes) -> None:
        message = self._method.response.FromString(response)
        assert not self._validator.collect_violations(message)
        assert SECRET.encode() not in response
        self._record(message)
        self.codes["OK"] += 1
        self.reasons["OK"] += 1

    def _record(self, message: Message) -> None:
        if model := RESOURCES.get(type(message)):
            self.acknowledged[model.__tablename__].add(cast(Any, message).id)
        for descriptor, value in message.ListFields():
            # No map holds resources, and neither does JSON.
            if descriptor.message_type is not None and not descriptor.message_type.file.package.startswith("google."):
                for inner in value if descriptor.is_repeated else [value]:
                    if isinstance(inner, Message):
                        self._record(inner)


def descriptor_of(method: Method) -> MethodDescriptor:
    pool = method.request.DESCRIPTOR.file.pool
    return cast(MethodDescriptor, pool.FindMethodByName(f"{method.service}.{method.name}"))


def is_of_no_method(face: Face, outcome: Outcome) -> bool:
    """Whether the path of a REST request, in which fields are, cannot be read or is that of no method."""
    return face is REST and (outcome.reason == "METHOD_UNKNOWN" or (outcome.violations or {}).keys() == {"path"})


REPRESENTATIVES = representatives(map(descriptor_of, METHODS))


@each_method
async def test_hostile_messages_get_documented_responses_and_no_data_is_lost(
    scene: Scene, method: Method, messages_per_method: int, faces: Faces, dsn: str, log: list[Any]
) -> None:
    """All of them through gRPC, and as many in all through the other faces."""
    attack = Attack(scene, method)
    untouchable, counted = rows_out_of_reach(dsn, scene), counted_calls(method)
    known = scene.known_to_administrators if method.policy.access == Access.ACCESS_ADMIN else scene.known
    log.clear()

    await send_all(hostile_messages(method.request, known), attack.send, messages_per_method)
    assert attack.codes.total() >= messages_per_method
    others = [face for face in faces.of(attack.descriptor, REPRESENTATIVES) if face is not GRPC]
    for face in others:
        requests = hostile_requests(face, attack.descriptor, known)
        await send_all(requests, partial(attack.send_through, face), math.ceil(messages_per_method / len(others)))
    sent = attack.codes.total()
    assert attack.reasons.keys() - {"INVALID_MESSAGE"}, "no message passed the rules of the contract"
    assert counted_calls(method) - counted == attack.codes
    assert_log_has_no_faults(log, method, sent)
    assert_rows_are_unchanged(method, untouchable, rows_out_of_reach(dsn, scene))
    assert_acknowledged_rows_exist(dsn, attack)
    await assert_server_still_serves(scene)


async def send_all(messages: "SearchStrategy[T]", send: Callable[[T], Awaitable[None]], count: int) -> None:
    """`AT_A_TIME` at a time."""
    loop = asyncio.get_running_loop()

    async def send_batch(batch: list[T]) -> None:
        for outcome in await asyncio.gather(*map(send, batch), return_exceptions=True):
            if outcome is not None:
                raise outcome

    @hypothesis_settings(
        max_examples=math.ceil(count / AT_A_TIME),
        derandomize=count <= 1000,  # CI sends the same every time; longer runs look elsewhere
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(messages, min_size=AT_A_TIME, max_size=AT_A_TIME))
    def run(batch: list[T]) -> None:
        asyncio.run_coroutine_threadsafe(send_batch(batch), loop).result()

    await loop.run_in_executor(_GENERATOR, copy_context().run, run)


@pytest.mark.parametrize("service", sorted({method.service for method in METHODS}))
async def test_messages_of_the_maximum_size_get_a_prompt_response(scene: Scene, service: str) -> None:
    """With one large value, or with two million small ones: checking them all would block other calls too long."""
    sent = 0
    for method in METHODS:
        if method.service == service:
            attack = Attack(scene, method)
            for name, message in heavy_messages(method.request):
                sent += 1
                started = perf_counter()
                await attack.send(message)
                assert perf_counter() - started < HEAVY_TIMEOUT, f"{method.name}, {name}"
    assert sent
    await assert_server_still_serves(scene)


async def test_json_of_the_maximum_size_gets_a_prompt_response(scene: Scene, faces: Faces) -> None:
    """Of Connect and REST, which read it in the same way."""
    chosen = REPRESENTATIVES if faces.all else REPRESENTATIVES[-1:]
    methods = [method for method in METHODS if descriptor_of(method) in chosen]
    for method in methods:
        attack, sent = Attack(scene, method), 0
        for name, document in heavy_documents(attack.descriptor):
            sent += 1
            started = perf_counter()
            await attack.send_through(CONNECT_JSON, CONNECT_JSON.of_bytes(attack.descriptor, document))
            assert perf_counter() - started < HEAVY_TIMEOUT, f"{method.name}, {name}"
        assert sent
    await assert_server_still_serves(scene)


# --- checks after the attack ------------------------------------------------------------------------------------------
def counted_calls(method: Method) -> Counter[str]:
    endings, _ = call_metrics().of_method(method.service, method.name)
    samples = {ending.code: sample for ending in endings.values() for sample in _total(ending.handled)}
    return Counter({code: int(sample.value) for code, sample in samples.items()})


def _total(counter: prometheus_client.Counter) -> list[Sample]:
    return [sample for metric in counter.collect() for sample in metric.samples if sample.name.endswith("_total")]


def assert_log_has_no_faults(log: list[Any], method: Method, sent: int) -> None:
    """The log has one line for each call, no warning or error, and no password of a message."""
    assert [line["event"] for line in log if line.get("method") == method.path] == ["call"] * sent
    assert [line for line in log if line["log_level"] != "info"] == []
    assert PASSWORD not in repr(log)


Rows = dict[str, list[tuple[object, ...]]]


def rows_out_of_reach(dsn: str, scene: Scene) -> Rows:
    """All rows of `other` in every table, and the rows of `me` that the attack must not change."""
    rows, other, kept = {}, scene.other.account_id, [UUID(task.id) for task in scene.kept]
    with connected(dsn) as connection:

        def fetch(table: Table, condition: ColumnElement[bool]) -> list[tuple[object, ...]]:
            return [
                tuple(row) for row in connection.execute(select(table).where(condition).order_by(*table.primary_key))
            ]

        for table in filter(has_owner, metadata.sorted_tables):
            rows[table.name] = fetch(table, of_owner(table, other, scene.owned.theirs))
        accounts, tasks = metadata.tables["accounts"], metadata.tables["tasks"]
        rows["mine"] = fetch(accounts, accounts.c.id == scene.me.account_id)
        rows["kept"] = fetch(tasks, tasks.c.id.in_(kept))
    assert {"tasks", "members", "recovery_codes", "accounts", "organizations"} <= rows.keys()
    assert {name for name, table_rows in rows.items() if not table_rows} <= WRITTEN_BY_CALLS
    return rows


def assert_rows_are_unchanged(method: Method, before: Rows, after: Rows) -> None:
    may_grow = WRITTEN_FOR_NAMED_ACCOUNTS if may_name_another_account(method) else set()
    assert {table for table in before if after[table] != before[table]} <= may_grow
    for table in may_grow:
        assert set(before[table]) <= set(after[table]), table


def assert_acknowledged_rows_exist(dsn: str, attack: Attack) -> None:
    """Every row that a response acknowledged exists."""
    with psycopg.connect(dsn) as connection:
        for table, ids in attack.acknowledged.items():
            query = sql.SQL("SELECT id::text FROM {} WHERE id = ANY(%s)").format(sql.Identifier(table))
            found = connection.execute(query, [[UUID(id) for id in ids]]).fetchall()
            assert {row[0] for row in found} == ids


async def assert_server_still_serves(scene: Scene) -> None:
    client, headers = scene.client, await another_session(scene, in_organization=False)
    created = await client.tasks.CreateTask(CreateTaskRequest(title="still served"), metadata=headers)
    got = await client.tasks.GetTask(GetTaskRequest(task_id=created.task.id), metadata=headers)
    assert got.task == created.task
