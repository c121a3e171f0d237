"""Whatever is sent to whatever method, the answer is one that the contract documents, and nothing is lost.

The methods, their messages and their answers are read out of the contract: a new one is attacked without a line here.
"""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, cast
from uuid import UUID

import accord_gateway.server as wiring
import grpc
import psycopg
import pytest
import structlog
from accord.errors.v1 import errors_pb2
from accord.errors.v1.errors_pb2 import Reason
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, GetTaskRequest, ListTasksRequest, Task
from accord_api.contract import contract_services
from accord_api.errors import reason_name
from accord_api.router import RESOURCES
from accord_auth.passwords import Passwords
from accord_auth.policy import Method, read_methods
from accord_db.database import Database
from accord_db.queries import accounts, tasks
from accord_db.schema import metadata
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from prometheus_client import REGISTRY
from protovalidate import Validator
from psycopg import sql

from tests.api.conftest import Client, read_refusal
from tests.api.hostile_messages import heavy_messages, hostile_messages
from tests.factories import Person, another_session

METHODS, _ = read_methods(contract_services())
each_method = pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])

AT_A_TIME = 8
PATIENCE = 5.0  # seconds for any one call
PASSWORD = "a passphrase that belongs into no log"
SECRET = "what nobody but its owner may ever see"

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
    return {reason_name(cast(Reason.ValueType, reason)) for reason in reasons | method.policy.errors}


# --- the scene --------------------------------------------------------------------------------------------------------
@dataclass
class Scene:
    """Two people with rows of their own. The attack runs with sessions of the first, and knows of the second."""

    client: Client
    me: Person
    other: Person
    known: list[str] = field(default_factory=list)
    kept: list[Task] = field(default_factory=list)  # tasks of mine that the attack does not know of


class Unlimited(FixedWindowRateLimiter):
    async def hit(self, *_: object, **__: object) -> bool:
        return True


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> Passwords:
    """Takes the two things from the gateway that slow attackers down, and that are tested elsewhere: what a password
    costs, and how many calls may come from one address."""
    cheap = partial(Passwords, time_cost=1, memory_kib=8)
    monkeypatch.setattr(wiring, "Passwords", cheap)
    monkeypatch.setattr(wiring, "rate_limiter", lambda _: Unlimited(MemoryStorage()))
    return cheap()


@pytest.fixture
async def scene(cheap: Passwords, client: Client) -> Scene:
    scene = Scene(client, await client.somebody(), await client.somebody())
    await accounts.update_password_hash(
        client.database, account_id=scene.me.account_id, password_hash=await cheap.hash(PASSWORD)
    )
    scene.kept = [await create(client, scene.me, "kept") for _ in range(3)]
    for who in (scene.me, scene.other):
        theirs = [await create(client, who, SECRET if who is scene.other else f"title {number}") for number in range(6)]
        for task in theirs[:2]:
            await tasks.delete_task(client.database, task_id=UUID(task.id), created_by=who.account_id)
        page = await client.tasks.ListTasks(ListTasksRequest(page_size=1), metadata=who.headers)
        scene.known += [text for task in theirs for text in (task.id, task.etag)]
        scene.known += [who.email, str(who.account_id), str(who.session_id), page.next_page_token]
    scene.known += [PASSWORD]
    return scene


async def create(client: Client, who: Person, title: str) -> Task:
    return (await client.tasks.CreateTask(CreateTaskRequest(title=title), metadata=who.headers)).task


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
        self._call = scene.client.channel.stream_stream(method.path)
        self.answers: Counter[str] = Counter()  # by code
        self.reasons: Counter[str] = Counter()
        self.acknowledged: dict[str, set[str]] = defaultdict(set)  # ids of rows, by table

    async def send(self, message: bytes) -> None:
        # A session for each call: there are methods that end the one that calls them.
        token = await another_session(self._scene.client.database, self._scene.me)
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._answer(message, (("authorization", f"Bearer {token}"),))
        except TimeoutError:
            raise AssertionError(f"no answer within {PATIENCE} s") from None
        except grpc.aio.AioRpcError as error:
            self._refused(error)
        else:
            self._answered(answer)

    async def _answer(self, message: bytes, headers: tuple[tuple[str, str], ...]) -> bytes:
        """The first message of the answer, of however many."""
        call = self._call(iter([message]), metadata=headers)
        async for answer in call:
            call.cancel() if self._method.response_streaming else await call.code()
            return cast(bytes, answer)
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
            if part.message_type is not None:
                for inner in value if part.is_repeated else [value]:
                    self._note(inner)


@each_method
async def test_hostile_messages_get_documented_answers_and_nothing_is_lost(
    scene: Scene, method: Method, dsn: str, log: list[Any], hostile_messages_per_method: int
) -> None:
    attack, loop = Attack(scene, method), asyncio.get_running_loop()
    untouchable, counted = rows_of(dsn, scene), counts(method)
    log.clear()

    async def send(batch: list[bytes]) -> None:
        async with asyncio.TaskGroup() as group:
            for message in batch:
                group.create_task(attack.send(message))

    @hypothesis_settings(
        max_examples=math.ceil(hostile_messages_per_method / AT_A_TIME),
        derandomize=hostile_messages_per_method == 1000,  # each run of CI is the same; longer ones look elsewhere
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(hostile_messages(method.request.DESCRIPTOR, scene.known), min_size=AT_A_TIME, max_size=AT_A_TIME))
    def attack_with(batch: list[bytes]) -> None:
        asyncio.run_coroutine_threadsafe(send(batch), loop).result()

    await asyncio.to_thread(attack_with)
    sent = attack.answers.total()
    assert sent >= hostile_messages_per_method
    assert attack.reasons.keys() - {"INVALID_MESSAGE"}, "nothing came past the contract's rules"
    assert_nothing_is_lost(dsn, scene, attack, untouchable)
    await assert_served_as_ever(scene)
    assert counts(method) - counted == attack.answers
    assert [line["code"] for line in log if line.get("method") == method.path].__len__() == sent
    assert not [line for line in log if line["log_level"] not in ("info", "debug")]
    assert PASSWORD not in repr(log)
