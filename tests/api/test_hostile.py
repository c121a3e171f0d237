"""Whatever is sent to whatever method, the answer is one that the contract documents, and nothing is lost.

The methods, their messages and their answers are read out of the contract: a new one is attacked without a line here.
"""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from time import perf_counter
from typing import Any, cast
from uuid import UUID

import grpc
import psycopg
import pytest
import structlog
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from protovalidate import Validator
from psycopg import sql
from sqlalchemy import ColumnElement, NullPool, Table, create_engine, select

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
from accord_rpc.contract import contract_services
from accord_rpc.pipeline.durable_limits import DurableLimit, Subject
from accord_rpc.pipeline.telemetry import call_metrics
from accord_rpc.policy import Method, read_methods
from accord_rpc.reasons import AnyReason, reason_name
from tests.api.conftest import Client, read_refusal
from tests.api.hostile_messages import heavy_messages, hostile_messages
from tests.api.hostile_scene import WRITTEN_BY_CALLS, Homes, furnish, known_to_administrators
from tests.api.services import new_service, token_of
from tests.api.world import World
from tests.factories import Headers, Person, bearer
from tests.rows import has_owner, of_owner

METHODS, _ = read_methods(contract_services())
each_method = pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])

AT_A_TIME = 8
PATIENCE = 5.0  # seconds for any one call
SOON = 2.0  # seconds for one that is 4 MiB large
PASSWORD = "a passphrase that belongs into no log"
RESOURCES = {message: model for service in SERVICES for message, model in getattr(service, "resources", {}).items()}
SECRET = "what nobody but its owner may ever see"

# They change or end the account that calls them, all its sessions, or its organization: each of their calls has an account
# and an organization of its own.
FOR_ONE_CALL_ALONE = {"ChangePassword", "DeleteAccount", "DeleteOrganization", "RevokeOtherSessions", "UpdateAccount"}
# They end what somebody may do in an organization: each of their calls is that of another of its owners.
FOR_ONE_OWNER_ALONE = {"LeaveOrganization", "RemoveMember", "TransferOwnership", "UpdateMember"}

# Where it shows that somebody has asked for something in the name of another: that it was tried, and a token that was
# mailed to them. Whoever may ask so adds to these, and to nothing else.
SHOWS_WHO_WAS_NAMED = {"audit_events", "account_tokens"}

# What a message can bring about by itself. Other codes speak of the caller, the moment or the server.
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
    """The reasons with which the method may answer a message, whatever it is."""
    answers = {value.number: value.GetOptions().Extensions[errors_pb2.answer] for value in Reason.DESCRIPTOR.values}
    reasons = {number for number, answer in answers.items() if answer.pipeline and answer.code in MESSAGE_CODES}
    if not method.idempotent:
        reasons.discard(Reason.REASON_REQUEST_ID_REUSED)
    return {reason_name(cast(AnyReason, reason)) for reason in reasons | method.policy.errors}


def is_about_anybody(method: Method) -> bool:
    """Whether a stranger may name an account that is not theirs."""
    return method.policy.access == Access.ACCESS_PUBLIC and method.account_field is not None


# --- the scene --------------------------------------------------------------------------------------------------------
@dataclass
class Scene:
    """Two people with rows of their own. The attack runs with sessions of the first, and knows of the second."""

    client: Client
    world: World
    me: Person
    other: Person
    homes: Homes  # mine is active
    administrator: Person
    service: Headers
    password_hash: str  # of PASSWORD
    known: list[str] = field(default_factory=list)
    known_to_administrators: list[str] = field(default_factory=list)
    kept: list[Task] = field(default_factory=list)  # tasks of mine that the attack does not know of


class Unlimited:
    """Counters that let everything pass."""

    def counter(self, *_: object) -> "Unlimited":
        return self

    async def hit(self, subject: str, most: int | None = None) -> None:
        return None


class NeverUsedUp(DurableLimit):
    """Is counted in the database like any other."""

    def of(self, subject: Subject) -> Limit:
        return super().of(subject)._replace(max_calls=2**62)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> Passwords:
    """Takes the two things from the gateway that slow attackers down, and that are tested elsewhere: what a password
    costs, and how many calls may come from one address."""
    cheap = partial(Passwords, time_cost=1, memory_kib=8)
    monkeypatch.setattr(wiring, "Passwords", cheap)
    monkeypatch.setattr(wiring, "rate_limiter", lambda _: Unlimited())
    monkeypatch.setattr(rate_limits, "DurableLimit", NeverUsedUp)
    return cheap()


@pytest.fixture
async def scene(cheap: Passwords, client: Client, world: World) -> Scene:
    me, other, administrator = [await world.person() for _ in range(3)]
    service = bearer(await token_of(client.channel, await new_service(client.database)))
    homes = Homes(world.organization(), world.organization())
    scene = Scene(client, world, me, other, homes, administrator, service, await cheap.hash(PASSWORD))
    world.change_account(administrator, "role = 'administrator'")
    world.join(me, homes.mine, "owner")
    world.activate(me, homes.mine)
    for who, password_hash in ((scene.me, scene.password_hash), (scene.other, await cheap.hash(SECRET))):
        await accounts.update_password_hash(client.database, account_id=who.account_id, password_hash=password_hash)
    scene.kept = [await create(client, scene.me, "kept") for _ in range(3)]
    for who in (scene.me, scene.other):
        theirs = [await create(client, who, SECRET if who is scene.other else f"title {number}") for number in range(6)]
        for task in theirs[:2]:
            await client.tasks.DeleteTask(DeleteTaskRequest(task_id=task.id), metadata=who.headers)
        page = await client.tasks.ListTasks(ListTasksRequest(page_size=1), metadata=who.headers)
        scene.known += [text for task in theirs for text in (task.id, task.id, task.etag)]
        scene.known += [who.email, str(who.account_id), str(who.session_id), *[page.next_page_token] * 3]
    scene.known += await furnish(client, world, homes, scene.me, scene.other)
    scene.known += [PASSWORD] * 10  # or it would hardly ever be tried
    scene.known_to_administrators = await known_to_administrators(world)
    return scene


async def another_session(scene: Scene, *, at_home: bool = True) -> Headers:
    token, session_id = new_session_token(), uuid7()
    await sessions.insert_session(
        scene.client.database,
        session_id=session_id,
        account_id=scene.me.account_id,
        token_hash=token_hash(token),
        lifetime=timedelta(hours=1),
    )
    if at_home:
        scene.world.activate(replace(scene.me, session_id=session_id), scene.homes.mine)
    return bearer(token)


async def another_account(scene: Scene) -> Headers:
    """That owns an organization, and nobody else does."""
    person = await scene.world.member(scene.world.organization(), "owner")
    await accounts.update_password_hash(
        scene.client.database, account_id=person.account_id, password_hash=scene.password_hash
    )
    return person.headers


async def another_owner(scene: Scene) -> Headers:
    return (await scene.world.member(scene.homes.mine, "owner")).headers


async def create(client: Client, who: Person, title: str) -> Task:
    return (await client.tasks.CreateTask(CreateTaskRequest(title=title), metadata=who.headers)).task


@pytest.fixture
def messages_per_method(request: pytest.FixtureRequest, method: Method) -> int:
    """A tenth for a message without fields: most of those are empty, and each costs as much as any other."""
    wanted = int(request.config.getoption("--hostile"))
    return wanted if method.request.DESCRIPTOR.fields else math.ceil(wanted / 10)


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


# --- the attack -------------------------------------------------------------------------------------------------------
class Attack:
    """Sends messages to one method, and holds every answer against the contract."""

    def __init__(self, scene: Scene, method: Method) -> None:
        self._scene, self._method = scene, method
        self._documented = documented(method)
        self._validator = Validator()
        self._call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = scene.client.channel.stream_stream(method.path)
        self.answers: Counter[str] = Counter()  # by code
        self.reasons: Counter[str] = Counter()
        self.acknowledged: dict[str, set[str]] = defaultdict(set)  # ids of rows, by table

    async def send(self, message: bytes) -> None:
        headers = await self._headers()
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._answer(message, headers)
        except TimeoutError:
            raise AssertionError(f"no answer within {PATIENCE} s") from None
        except grpc.aio.AioRpcError as error:
            self._refused(error)
        else:
            self._answered(answer)

    async def _headers(self) -> Headers:
        if self._method.policy.access in (Access.ACCESS_ADMIN, Access.ACCESS_SERVICE):
            admin = self._method.policy.access == Access.ACCESS_ADMIN
            return self._scene.administrator.headers if admin else self._scene.service
        if self._method.name in FOR_ONE_CALL_ALONE:
            return await another_account(self._scene)
        if self._method.name in FOR_ONE_OWNER_ALONE:
            return await another_owner(self._scene)
        if self._method.policy.access == Access.ACCESS_PUBLIC or not self._method.policy.audit:
            return self._scene.me.headers  # it ends no session: that is never public, and always audited
        return await another_session(self._scene)

    async def _answer(self, message: bytes, headers: Headers) -> bytes:
        """The first message of the answer, of however many."""
        call = self._call(iter([message]), metadata=headers)
        async for answer in call:
            call.cancel() if self._method.response_streaming else await call.code()
            return answer
        assert self._method.response_streaming
        return b""

    def _refused(self, error: grpc.aio.AioRpcError) -> None:
        refusal = read_refusal(error)
        details = Status.FromString(dict(error.trailing_metadata() or ())["grpc-status-details-bin"]).details
        assert [detail.Is(ErrorInfo.DESCRIPTOR) for detail in details].count(True) == 1
        assert refusal.reason in self._documented, refusal
        assert refusal.violations or refusal.reason != "INVALID_MESSAGE", "the contract's rules have let it pass"
        assert SECRET not in repr(error)
        self.answers[error.code().name] += 1
        self.reasons[refusal.reason] += 1

    def _answered(self, answer: bytes) -> None:
        message = self._method.response.FromString(answer)
        assert not self._validator.collect_violations(message)
        assert SECRET.encode() not in answer
        self._note(message)
        self.answers["OK"] += 1
        self.reasons["OK"] += 1

    def _note(self, message: Message) -> None:
        if model := RESOURCES.get(type(message)):
            self.acknowledged[model.__tablename__].add(cast(Any, message).id)
        for part, value in message.ListFields():
            # No map holds resources, and neither does JSON.
            if part.message_type is not None and not part.message_type.file.package.startswith("google."):
                for inner in value if part.is_repeated else [value]:
                    if isinstance(inner, Message):
                        self._note(inner)


@each_method
async def test_hostile_messages_get_documented_answers_and_nothing_is_lost(
    scene: Scene, method: Method, messages_per_method: int, dsn: str, log: list[Any]
) -> None:
    attack, loop = Attack(scene, method), asyncio.get_running_loop()
    untouchable, counted = rows_out_of_reach(dsn, scene), counted_calls(method)
    known = scene.known_to_administrators if method.policy.access == Access.ACCESS_ADMIN else scene.known
    log.clear()

    async def send(batch: list[bytes]) -> None:
        for outcome in await asyncio.gather(*map(attack.send, batch), return_exceptions=True):
            if outcome is not None:
                raise outcome

    @hypothesis_settings(
        max_examples=math.ceil(messages_per_method / AT_A_TIME),
        derandomize=messages_per_method <= 1000,  # CI sends the same every time; longer runs look elsewhere
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(hostile_messages(method.request, known), min_size=AT_A_TIME, max_size=AT_A_TIME))
    def run(batch: list[bytes]) -> None:
        asyncio.run_coroutine_threadsafe(send(batch), loop).result()

    await asyncio.to_thread(run)
    sent = attack.answers.total()
    assert sent >= messages_per_method
    assert attack.reasons.keys() - {"INVALID_MESSAGE"}, "nothing came past the contract's rules"
    assert counted_calls(method) - counted == attack.answers
    assert_log_is_quiet(log, method, sent)
    assert_rows_are_as_before(method, untouchable, rows_out_of_reach(dsn, scene))
    assert_nothing_is_lost(dsn, attack)
    await assert_served_as_ever(scene)


@pytest.mark.parametrize("service", sorted({method.service for method in METHODS}))
async def test_messages_as_large_as_can_be_are_answered_soon(scene: Scene, service: str) -> None:
    """Of one value, or of as many as fit: to look at each of two million takes longer than others can wait."""
    sent = 0
    for method in METHODS:
        if method.service == service:
            attack = Attack(scene, method)
            for name, message in heavy_messages(method.request):
                sent += 1
                started = perf_counter()
                await attack.send(message)
                assert perf_counter() - started < SOON, f"{method.name}, {name}"
    assert sent
    await assert_served_as_ever(scene)


# --- what must be true afterwards -------------------------------------------------------------------------------------
def counted_calls(method: Method) -> Counter[str]:
    here = {"service": method.service, "method": method.name}
    samples = [sample for metric in call_metrics().handled.collect() for sample in metric.samples]
    counted = [each for each in samples if each.name == "grpc_server_handled_total"]
    return Counter({each.labels["code"]: int(each.value) for each in counted if here.items() <= each.labels.items()})


def assert_log_is_quiet(log: list[Any], method: Method, sent: int) -> None:
    """One line for each call, none of which is a fault of ours, or tells what was sent."""
    assert [line["event"] for line in log if line.get("method") == method.path] == ["call"] * sent
    assert [line for line in log if line["log_level"] != "info"] == []
    assert PASSWORD not in repr(log)


Rows = dict[str, list[tuple[object, ...]]]


def rows_out_of_reach(dsn: str, scene: Scene) -> Rows:
    """All rows of the other one, in every table, and rows of mine that the attack does not know."""
    rows, other, kept = {}, scene.other.account_id, [UUID(task.id) for task in scene.kept]
    engine = create_engine("postgresql+psycopg://", creator=partial(psycopg.connect, dsn), poolclass=NullPool)
    with engine.connect() as connection:

        def found(table: Table, condition: ColumnElement[bool]) -> list[tuple[object, ...]]:
            return [
                tuple(row) for row in connection.execute(select(table).where(condition).order_by(*table.primary_key))
            ]

        for table in filter(has_owner, metadata.sorted_tables):
            rows[table.name] = found(table, of_owner(table, other, scene.homes.theirs))
        accounts, tasks = metadata.tables["accounts"], metadata.tables["tasks"]
        rows["mine"] = found(accounts, accounts.c.id == scene.me.account_id)
        rows["kept"] = found(tasks, tasks.c.id.in_(kept))
    assert {"tasks", "members", "recovery_codes", "accounts", "organizations"} <= rows.keys()
    assert {name for name, found_there in rows.items() if not found_there} <= WRITTEN_BY_CALLS
    return rows


def assert_rows_are_as_before(method: Method, before: Rows, after: Rows) -> None:
    may_grow = SHOWS_WHO_WAS_NAMED if is_about_anybody(method) else set()
    assert {table for table in before if after[table] != before[table]} <= may_grow
    for table in may_grow:
        assert set(before[table]) <= set(after[table]), table


def assert_nothing_is_lost(dsn: str, attack: Attack) -> None:
    """What was acknowledged is there."""
    with psycopg.connect(dsn) as connection:
        for table, ids in attack.acknowledged.items():
            query = sql.SQL("SELECT id::text FROM {} WHERE id = ANY(%s)").format(sql.Identifier(table))
            found = connection.execute(query, [[UUID(id) for id in ids]]).fetchall()
            assert {row[0] for row in found} == ids


async def assert_served_as_ever(scene: Scene) -> None:
    client, headers = scene.client, await another_session(scene, at_home=False)
    made = await client.tasks.CreateTask(CreateTaskRequest(title="as ever"), metadata=headers)
    got = await client.tasks.GetTask(GetTaskRequest(task_id=made.task.id), metadata=headers)
    assert got.task == made.task
