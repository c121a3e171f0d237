"""What is safe to repeat is repeated, and nothing else."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import grpc
import pytest
from google.protobuf.descriptor_pb2 import MethodOptions

import accord_client
import accord_client.aio
from accord.errors.v1.errors_pb2 import Reason
from accord.tasks.v1.tasks_pb2 import (
    BatchCreateTasksRequest,
    BatchCreateTasksResponse,
    CreateTaskRequest,
    CreateTaskResponse,
    ListTasksRequest,
    ListTasksResponse,
    UpdateTaskRequest,
)
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_client import CallFailed, SessionToken, errors
from accord_client.contract import contract
from accord_client.options import RETRY_POLICY, service_config
from accord_db.engine.database import Database
from accord_rpc.contract import contract_services
from accord_rpc.errors import RpcError
from tests.client.scripted import Scripted, unavailable_until
from tests.conftest import count
from tests.factories import Person, signed_in_person
from tests.gateway.conftest import Start, eventually
from tests.gateway.test_restarts import SERVICE_CONFIG
from tests.ports import free_port

RESTARTS = 2
LONG = 30  # seconds; the contract's five would end in the middle of a slow restart


def test_service_config_is_that_of_the_contract() -> None:
    [config] = json.loads(service_config(contract().values()))["methodConfig"]
    repeated = {f"{name['service']}.{name['method']}" for name in config["name"]}
    methods = [method for service in contract_services() for method in service.methods]
    assert len(methods) > 30
    assert repeated == {
        method.full_name
        for method in methods
        if method.GetOptions().idempotency_level in (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)
        or "request_id" in method.input_type.fields_by_name
    }


def test_retry_policy_is_the_published_one() -> None:
    assert SERVICE_CONFIG["methodConfig"] == [{"name": [{}], "retryPolicy": RETRY_POLICY}]


def test_reads_are_repeated(scripted: Scripted) -> None:
    scripted.scripts["ListTasks"] = unavailable_until(3, ListTasksResponse())
    with accord_client.open_channel(scripted.address, tls=None) as channel:
        TaskServiceStub(channel).ListTasks(ListTasksRequest())
    assert len(scripted.of("ListTasks")) == 3


async def test_reads_are_repeated_with_asyncio(scripted: Scripted) -> None:
    scripted.scripts["ListTasks"] = unavailable_until(3, ListTasksResponse())
    async with accord_client.aio.open_channel(scripted.address, tls=None) as channel:
        await TaskServiceStub(channel).ListTasks(ListTasksRequest())
    assert len(scripted.of("ListTasks")) == 3


def test_attempts_of_a_call_have_one_request_id_in_the_log(scripted: Scripted) -> None:
    scripted.scripts["ListTasks"] = unavailable_until(3, ListTasksResponse())
    with accord_client.open_channel(scripted.address, tls=None) as channel:
        TaskServiceStub(channel).ListTasks(ListTasksRequest())
    assert len({asked.header("x-request-id") for asked in scripted.asked}) == 1


def test_what_is_not_safe_is_not_repeated(scripted: Scripted) -> None:
    scripted.scripts["UpdateTask"] = unavailable_until(2, ListTasksResponse())
    with accord_client.open_channel(scripted.address, tls=None) as channel, pytest.raises(errors.Unavailable) as failed:
        TaskServiceStub(channel).UpdateTask(UpdateTaskRequest())
    assert failed.value.retry_after == 1
    assert len(scripted.of("UpdateTask")) == 1


def test_creates_are_repeated_as_the_same_request(scripted: Scripted) -> None:
    scripted.scripts["CreateTask"] = unavailable_until(3, CreateTaskResponse())
    request = CreateTaskRequest(title="Milk")
    with accord_client.open_channel(scripted.address, tls=None) as channel:
        TaskServiceStub(channel).CreateTask(request)
    [first, *others] = [CreateTaskRequest.FromString(asked.request) for asked in scripted.asked]
    assert len(others) == 2
    assert all(other == first for other in others)
    assert first.title == "Milk"
    assert UUID(first.request_id).version == 4
    assert request == CreateTaskRequest(
        title="Milk"
    )  # the caller's own is as it was: sent again, it is another request


def test_two_creates_are_two_requests(scripted: Scripted) -> None:
    scripted.scripts["CreateTask"] = unavailable_until(1, CreateTaskResponse())
    request = CreateTaskRequest(title="Milk")
    with accord_client.open_channel(scripted.address, tls=None) as channel:
        for _ in range(2):
            TaskServiceStub(channel).CreateTask(request)
    assert len({CreateTaskRequest.FromString(asked.request).request_id for asked in scripted.asked}) == 2


def test_request_id_of_the_caller_is_sent(scripted: Scripted) -> None:
    scripted.scripts["CreateTask"] = unavailable_until(1, CreateTaskResponse())
    request = CreateTaskRequest(title="Milk", request_id="4f8f3d5c-6a1f-4c6e-8d3e-1c2b3a4d5e6f")
    with accord_client.open_channel(scripted.address, tls=None) as channel:
        TaskServiceStub(channel).CreateTask(request)
    assert [CreateTaskRequest.FromString(asked.request) for asked in scripted.asked] == [request]


def test_large_requests_are_repeated_too(scripted: Scripted) -> None:
    """gRPC itself repeats none above 256 KiB."""
    scripted.scripts["BatchCreateTasks"] = unavailable_until(2, BatchCreateTasksResponse())
    request = BatchCreateTasksRequest(requests=[CreateTaskRequest(title="Milk", description="x" * 1000)] * 500)
    with accord_client.open_channel(scripted.address, tls=None) as channel:
        TaskServiceStub(channel).BatchCreateTasks(request)
    [sent, _] = [BatchCreateTasksRequest.FromString(asked.request) for asked in scripted.asked]
    assert list(sent.requests) == list(request.requests)  # and what is in it has no id of its own


class Caller:
    """Makes a task and lists all, again and again."""

    def __init__(self, address: str, person: Person) -> None:
        self._address = address
        self._credentials = SessionToken(person.token)
        self.enough = threading.Event()
        self.made = 0
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self.run)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self.enough.set()
        self._thread.join()

    def run(self) -> None:
        raise NotImplementedError


class FromThread(Caller):
    def run(self) -> None:
        with accord_client.open_channel(self._address, credentials=self._credentials, tls=None) as channel:
            tasks = TaskServiceStub(channel)
            while not self.enough.is_set():
                try:
                    tasks.CreateTask(CreateTaskRequest(title="Milk"), timeout=LONG)
                    self.made += 1
                    tasks.ListTasks(ListTasksRequest(), timeout=LONG)
                except CallFailed as failed:
                    self.errors.append(str(failed))


class FromAsyncio(Caller):
    def run(self) -> None:
        asyncio.run(self._call())

    async def _call(self) -> None:
        async with accord_client.aio.open_channel(self._address, credentials=self._credentials, tls=None) as channel:
            tasks = TaskServiceStub(channel)
            while not self.enough.is_set():
                try:
                    await tasks.CreateTask(CreateTaskRequest(title="Milk"), timeout=LONG)
                    self.made += 1
                    await tasks.ListTasks(ListTasksRequest(), timeout=LONG)
                except CallFailed as failed:
                    self.errors.append(str(failed))


@contextmanager
def calling(*callers: Caller) -> Iterator[None]:
    """Fails if any of them has seen an error."""
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        for caller in callers:
            caller.join()
    assert [error for caller in callers for error in caller.errors] == []


def let_all_call(callers: Sequence[Caller]) -> None:
    before = [caller.made for caller in callers]
    eventually(lambda: all(caller.made > seen + 10 for caller, seen in zip(callers, before, strict=True)) or None)


async def test_callers_see_no_error_over_restarts_and_make_nothing_twice(
    start: Start, database_url: str, database: Database, dsn: str
) -> None:
    person, port = await signed_in_person(database), free_port()
    gateway = start(DATABASE_URL=database_url, PORT=port)
    callers = [FromThread(gateway.address, person), FromAsyncio(gateway.address, person)]
    with calling(*callers):
        for _ in range(RESTARTS):
            let_all_call(callers)
            assert gateway.stop() == 0
            gateway = start(DATABASE_URL=database_url, PORT=port)
        let_all_call(callers)
    assert count(dsn, "tasks") == sum(caller.made for caller in callers)


async def test_create_whose_answer_is_lost_is_made_once(
    start: Start, database_url: str, database: Database, dsn: str
) -> None:
    """Repeated by the program itself, after a time longer than the client tries: then it brings its own request_id."""
    person = await signed_in_person(database)
    gateway = start(DATABASE_URL=database_url)
    request = CreateTaskRequest(title="Milk", request_id="4f8f3d5c-6a1f-4c6e-8d3e-1c2b3a4d5e6f")
    with accord_client.open_channel(gateway.address, credentials=SessionToken(person.token), tls=None) as channel:
        tasks = TaskServiceStub(channel)
        assert tasks.CreateTask(request) == tasks.CreateTask(request)
    assert count(dsn, "tasks") == 1


def test_options_of_the_caller_go_first(scripted: Scripted) -> None:
    scripted.scripts["ListTasks"] = unavailable_until(2, ListTasksResponse())
    with (
        accord_client.open_channel(scripted.address, tls=None, options=[("grpc.service_config", "{}")]) as channel,
        pytest.raises(errors.Unavailable),
    ):
        TaskServiceStub(channel).ListTasks(ListTasksRequest())
    assert len(scripted.asked) == 1


def test_code_that_is_no_fault_of_the_way_is_not_repeated(scripted: Scripted) -> None:
    scripted.scripts["ListTasks"] = lambda asked: RpcError(Reason.REASON_CONFLICT)
    with accord_client.open_channel(scripted.address, tls=None) as channel, pytest.raises(errors.Conflict) as failed:
        TaskServiceStub(channel).ListTasks(ListTasksRequest())
    assert failed.value.code == grpc.StatusCode.ABORTED
    assert len(scripted.asked) == 1
