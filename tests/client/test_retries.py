"""The client retries only methods that are safe to retry."""

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
from tests.client.scripted import ScriptedServer, unavailable_until
from tests.conftest import count
from tests.factories import Person, signed_in_person
from tests.gateway.conftest import Start, eventually
from tests.gateway.retrying_caller import SERVICE_CONFIG
from tests.ports import free_port

RESTARTS = 2
LONG = 30  # seconds; the policy's 5 seconds may end during a slow restart


def test_service_config_names_the_methods_that_are_safe_to_retry() -> None:
    [config] = json.loads(service_config(contract().values()))["methodConfig"]
    retried = {f"{name['service']}.{name['method']}" for name in config["name"]}
    methods = [method for service in contract_services() for method in service.methods]
    assert len(methods) > 30
    assert retried == {
        method.full_name
        for method in methods
        if method.GetOptions().idempotency_level in (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)
        or "request_id" in method.input_type.fields_by_name
    }


def test_retry_policy_equals_the_published_one() -> None:
    assert SERVICE_CONFIG["methodConfig"] == [{"name": [{}], "retryPolicy": RETRY_POLICY}]


def test_reads_are_retried(server: ScriptedServer) -> None:
    server.scripts["ListTasks"] = unavailable_until(3, ListTasksResponse())
    with accord_client.open_channel(server.address, tls=None) as channel:
        TaskServiceStub(channel).ListTasks(ListTasksRequest())
    assert len(server.calls_of("ListTasks")) == 3


async def test_reads_are_retried_with_asyncio(server: ScriptedServer) -> None:
    server.scripts["ListTasks"] = unavailable_until(3, ListTasksResponse())
    async with accord_client.aio.open_channel(server.address, tls=None) as channel:
        await TaskServiceStub(channel).ListTasks(ListTasksRequest())
    assert len(server.calls_of("ListTasks")) == 3


def test_attempts_of_a_call_have_one_request_id_in_the_log(server: ScriptedServer) -> None:
    server.scripts["ListTasks"] = unavailable_until(3, ListTasksResponse())
    with accord_client.open_channel(server.address, tls=None) as channel:
        TaskServiceStub(channel).ListTasks(ListTasksRequest())
    assert len({call.header("x-request-id") for call in server.calls}) == 1


def test_update_is_not_retried(server: ScriptedServer) -> None:
    server.scripts["UpdateTask"] = unavailable_until(2, ListTasksResponse())
    with accord_client.open_channel(server.address, tls=None) as channel, pytest.raises(errors.Unavailable) as failed:
        TaskServiceStub(channel).UpdateTask(UpdateTaskRequest())
    assert failed.value.retry_after == 1
    assert len(server.calls_of("UpdateTask")) == 1


def test_create_is_retried_with_the_same_request_id(server: ScriptedServer) -> None:
    server.scripts["CreateTask"] = unavailable_until(3, CreateTaskResponse())
    request = CreateTaskRequest(title="Milk")
    with accord_client.open_channel(server.address, tls=None) as channel:
        TaskServiceStub(channel).CreateTask(request)
    [first, *others] = [CreateTaskRequest.FromString(call.request) for call in server.calls]
    assert len(others) == 2
    assert all(other == first for other in others)
    assert first.title == "Milk"
    assert UUID(first.request_id).version == 4
    # The caller's message is unchanged: a second call with it has another request_id.
    assert request == CreateTaskRequest(title="Milk")


def test_two_creates_have_two_request_ids(server: ScriptedServer) -> None:
    server.scripts["CreateTask"] = unavailable_until(1, CreateTaskResponse())
    request = CreateTaskRequest(title="Milk")
    with accord_client.open_channel(server.address, tls=None) as channel:
        for _ in range(2):
            TaskServiceStub(channel).CreateTask(request)
    assert len({CreateTaskRequest.FromString(call.request).request_id for call in server.calls}) == 2


def test_request_id_of_the_caller_is_unchanged(server: ScriptedServer) -> None:
    server.scripts["CreateTask"] = unavailable_until(1, CreateTaskResponse())
    request = CreateTaskRequest(title="Milk", request_id="4f8f3d5c-6a1f-4c6e-8d3e-1c2b3a4d5e6f")
    with accord_client.open_channel(server.address, tls=None) as channel:
        TaskServiceStub(channel).CreateTask(request)
    assert [CreateTaskRequest.FromString(call.request) for call in server.calls] == [request]


def test_large_requests_are_retried(server: ScriptedServer) -> None:
    """gRPC retries no request above 256 KiB by default."""
    server.scripts["BatchCreateTasks"] = unavailable_until(2, BatchCreateTasksResponse())
    request = BatchCreateTasksRequest(requests=[CreateTaskRequest(title="Milk", description="x" * 1000)] * 500)
    with accord_client.open_channel(server.address, tls=None) as channel:
        TaskServiceStub(channel).BatchCreateTasks(request)
    [sent, _] = [BatchCreateTasksRequest.FromString(call.request) for call in server.calls]
    assert list(sent.requests) == list(request.requests)  # the nested requests have no request_id


class RepeatedCalls:
    """Creates a task and lists all tasks repeatedly, on a thread."""

    def __init__(self, address: str, person: Person) -> None:
        self._address = address
        self._credentials = SessionToken(person.token)
        self.stopped = threading.Event()
        self.created = 0
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self.run)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self.stopped.set()
        self._thread.join()

    def run(self) -> None:
        raise NotImplementedError


class BlockingCalls(RepeatedCalls):
    def run(self) -> None:
        with accord_client.open_channel(self._address, credentials=self._credentials, tls=None) as channel:
            tasks = TaskServiceStub(channel)
            while not self.stopped.is_set():
                try:
                    tasks.CreateTask(CreateTaskRequest(title="Milk"), timeout=LONG)
                    self.created += 1
                    tasks.ListTasks(ListTasksRequest(), timeout=LONG)
                except CallFailed as failed:
                    self.errors.append(str(failed))


class AsyncioCalls(RepeatedCalls):
    def run(self) -> None:
        asyncio.run(self._call())

    async def _call(self) -> None:
        async with accord_client.aio.open_channel(self._address, credentials=self._credentials, tls=None) as channel:
            tasks = TaskServiceStub(channel)
            while not self.stopped.is_set():
                try:
                    await tasks.CreateTask(CreateTaskRequest(title="Milk"), timeout=LONG)
                    self.created += 1
                    await tasks.ListTasks(ListTasksRequest(), timeout=LONG)
                except CallFailed as failed:
                    self.errors.append(str(failed))


@contextmanager
def running(*callers: RepeatedCalls) -> Iterator[None]:
    """Fails if a call fails."""
    for caller in callers:
        caller.start()
    try:
        yield
    finally:
        for caller in callers:
            caller.join()
    assert [error for caller in callers for error in caller.errors] == []


def wait_for_more_calls(callers: Sequence[RepeatedCalls]) -> None:
    before = [caller.created for caller in callers]
    eventually(
        lambda: all(caller.created > created + 10 for caller, created in zip(callers, before, strict=True)) or None
    )


async def test_restarts_cause_no_error_and_no_duplicate_task(
    start: Start, database_url: str, database: Database, dsn: str
) -> None:
    person, port = await signed_in_person(database), free_port()
    gateway = start(DATABASE_URL=database_url, PORT=port)
    callers = [BlockingCalls(gateway.address, person), AsyncioCalls(gateway.address, person)]
    with running(*callers):
        for _ in range(RESTARTS):
            wait_for_more_calls(callers)
            assert gateway.stop() == 0
            gateway = start(DATABASE_URL=database_url, PORT=port)
        wait_for_more_calls(callers)
    assert count(dsn, "tasks") == sum(caller.created for caller in callers)


async def test_two_creates_with_one_request_id_create_one_task(
    start: Start, database_url: str, database: Database, dsn: str
) -> None:
    """A program that retries for longer than the client does sets the request_id itself."""
    person = await signed_in_person(database)
    gateway = start(DATABASE_URL=database_url)
    request = CreateTaskRequest(title="Milk", request_id="4f8f3d5c-6a1f-4c6e-8d3e-1c2b3a4d5e6f")
    with accord_client.open_channel(gateway.address, credentials=SessionToken(person.token), tls=None) as channel:
        tasks = TaskServiceStub(channel)
        assert tasks.CreateTask(request) == tasks.CreateTask(request)
    assert count(dsn, "tasks") == 1


def test_options_of_the_caller_override_the_retry_policy(server: ScriptedServer) -> None:
    server.scripts["ListTasks"] = unavailable_until(2, ListTasksResponse())
    with (
        accord_client.open_channel(server.address, tls=None, options=[("grpc.service_config", "{}")]) as channel,
        pytest.raises(errors.Unavailable),
    ):
        TaskServiceStub(channel).ListTasks(ListTasksRequest())
    assert len(server.calls) == 1


def test_code_other_than_unavailable_is_not_retried(server: ScriptedServer) -> None:
    server.scripts["ListTasks"] = lambda call: RpcError(Reason.REASON_CONFLICT)
    with accord_client.open_channel(server.address, tls=None) as channel, pytest.raises(errors.Conflict) as failed:
        TaskServiceStub(channel).ListTasks(ListTasksRequest())
    assert failed.value.code == grpc.StatusCode.ABORTED
    assert len(server.calls) == 1
