"""A call without a timeout has the default deadline of its method's policy."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

import accord_client
import accord_client.aio
from accord.tasks.v1.tasks_pb2 import GetTaskRequest, GetTaskResponse, ListTasksRequest, ListTasksResponse
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_client import errors
from accord_client.contract import Methods, contract
from accord_rpc.contract import contract_services
from accord_rpc.policy import read_methods
from tests.client.scripted import ReceivedCall, ScriptedServer, unavailable_until

PATH = "/accord.tasks.v1.TaskService/GetTask"
SHORT = 0.2  # seconds


@pytest.fixture
def unresponsive(server: ScriptedServer) -> Iterator[ScriptedServer]:
    """A server that does not respond to GetTask during the test."""
    test_ended = threading.Event()

    def wait(call: ReceivedCall) -> GetTaskResponse:
        test_ended.wait(30)
        return GetTaskResponse()

    server.scripts["GetTask"] = wait
    yield server
    test_ended.set()


@pytest.fixture
def short_deadline() -> Methods:
    """The contract with a short deadline for GetTask."""
    return {PATH: replace(contract()[PATH], default_deadline=SHORT)}


def test_deadline_of_the_policy_is_sent(server: ScriptedServer) -> None:
    server.scripts["GetTask"] = unavailable_until(1, GetTaskResponse())
    server.scripts["ListTasks"] = unavailable_until(1, ListTasksResponse())
    with accord_client.open_channel(server.address, tls=None) as channel:
        TaskServiceStub(channel).GetTask(GetTaskRequest())
        TaskServiceStub(channel).ListTasks(ListTasksRequest())
        TaskServiceStub(channel).GetTask(GetTaskRequest(), timeout=60)
    assert [call.time_left for call in server.calls] == pytest.approx([5, 10, 60], abs=2)


def test_default_deadlines_equal_those_of_the_gateway() -> None:
    methods, _ = read_methods(contract_services())
    assert len(methods) > 80
    assert {path: method.default_deadline for path, method in contract().items()} == {
        method.path: method.policy.default_deadline for method in methods
    }


def test_call_ends_at_the_deadline(unresponsive: ScriptedServer, short_deadline: Methods) -> None:
    with (
        accord_client.open_channel(unresponsive.address, tls=None, methods=short_deadline) as channel,
        pytest.raises(errors.DeadlineExceeded) as failed,
    ):
        TaskServiceStub(channel).GetTask(GetTaskRequest())
    assert failed.value.request_id == unresponsive.calls[0].header("x-request-id")


async def test_call_ends_at_the_deadline_with_asyncio(unresponsive: ScriptedServer, short_deadline: Methods) -> None:
    async with accord_client.aio.open_channel(unresponsive.address, tls=None, methods=short_deadline) as channel:
        with pytest.raises(errors.DeadlineExceeded) as failed:
            await TaskServiceStub(channel).GetTask(GetTaskRequest())
    assert failed.value.request_id == unresponsive.calls[0].header("x-request-id")


def test_timeout_of_the_caller_overrides_the_deadline_of_the_policy(unresponsive: ScriptedServer) -> None:
    with accord_client.open_channel(unresponsive.address, tls=None) as channel, pytest.raises(errors.DeadlineExceeded):
        TaskServiceStub(channel).GetTask(GetTaskRequest(), timeout=SHORT)


def test_deadline_includes_all_attempts(server: ScriptedServer, short_deadline: Methods) -> None:
    server.scripts["GetTask"] = unavailable_until(100, GetTaskResponse())
    with (
        accord_client.open_channel(server.address, tls=None, methods=short_deadline) as channel,
        pytest.raises((errors.DeadlineExceeded, errors.Unavailable)),
    ):
        TaskServiceStub(channel).GetTask(GetTaskRequest())
    assert len(server.calls) < 5
