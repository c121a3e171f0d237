"""A call has the deadline of its policy if its caller names none."""

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
from tests.client.scripted import Asked, Scripted, unavailable_until

PATH = "/accord.tasks.v1.TaskService/GetTask"
SHORT = 0.2  # seconds


@pytest.fixture
def silent(scripted: Scripted) -> Iterator[Scripted]:
    """It answers no GetTask before the test is over."""
    over = threading.Event()

    def wait(asked: Asked) -> GetTaskResponse:
        over.wait(30)
        return GetTaskResponse()

    scripted.scripts["GetTask"] = wait
    yield scripted
    over.set()


@pytest.fixture
def short() -> Methods:
    """The contract, were it to allow GetTask no more than a moment."""
    return {PATH: replace(contract()[PATH], default_deadline=SHORT)}


def test_deadline_of_the_contract_is_sent(scripted: Scripted) -> None:
    scripted.scripts["GetTask"] = unavailable_until(1, GetTaskResponse())
    scripted.scripts["ListTasks"] = unavailable_until(1, ListTasksResponse())
    with accord_client.open_channel(scripted.address, tls=None) as channel:
        TaskServiceStub(channel).GetTask(GetTaskRequest())
        TaskServiceStub(channel).ListTasks(ListTasksRequest())
        TaskServiceStub(channel).GetTask(GetTaskRequest(), timeout=60)
    assert [asked.time_left for asked in scripted.asked] == pytest.approx([5, 10, 60], abs=2)


def test_default_deadlines_are_those_that_the_gateway_uses() -> None:
    methods, _ = read_methods(contract_services())
    assert len(methods) > 80
    assert {path: method.default_deadline for path, method in contract().items()} == {
        method.path: method.policy.default_deadline for method in methods
    }


def test_deadline_is_kept(silent: Scripted, short: Methods) -> None:
    with (
        accord_client.open_channel(silent.address, tls=None, methods=short) as channel,
        pytest.raises(errors.DeadlineExceeded) as failed,
    ):
        TaskServiceStub(channel).GetTask(GetTaskRequest())
    assert failed.value.request_id == silent.asked[0].header("x-request-id")


async def test_deadline_is_kept_with_asyncio(silent: Scripted, short: Methods) -> None:
    async with accord_client.aio.open_channel(silent.address, tls=None, methods=short) as channel:
        with pytest.raises(errors.DeadlineExceeded) as failed:
            await TaskServiceStub(channel).GetTask(GetTaskRequest())
    assert failed.value.request_id == silent.asked[0].header("x-request-id")


def test_deadline_of_the_caller_goes_before_that_of_the_contract(silent: Scripted) -> None:
    with accord_client.open_channel(silent.address, tls=None) as channel, pytest.raises(errors.DeadlineExceeded):
        TaskServiceStub(channel).GetTask(GetTaskRequest(), timeout=SHORT)


def test_deadline_is_for_all_attempts_together(scripted: Scripted, short: Methods) -> None:
    scripted.scripts["GetTask"] = unavailable_until(100, GetTaskResponse())
    with (
        accord_client.open_channel(scripted.address, tls=None, methods=short) as channel,
        pytest.raises((errors.DeadlineExceeded, errors.Unavailable)),
    ):
        TaskServiceStub(channel).GetTask(GetTaskRequest())
    assert len(scripted.asked) < 5
