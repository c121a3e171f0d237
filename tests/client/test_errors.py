"""A call that fails raises the exception that is named after the reason."""

import asyncio
import pickle
from typing import Any
from uuid import uuid4

import grpc
import pytest

import accord_client
from accord.app.v1 import reasons_pb2
from accord.errors.v1 import errors_pb2
from accord.errors.v1.errors_pb2 import Reason
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, GetTaskRequest, GetTaskResponse
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_client import CallFailed, SessionToken, Violation, errors
from accord_rpc.errors import RpcError
from tests.client.conftest import Calling
from tests.client.scripted import Scripted
from tests.ports import free_port

REASONS = [value for enum in (Reason, reasons_pb2.Reason) for value in enum.DESCRIPTOR.values if value.number]


async def failed_in_both(calling: Calling, method: str, request: Any) -> list[CallFailed]:
    """What it raises from a thread, and from asyncio."""
    with pytest.raises(CallFailed) as from_thread:
        await asyncio.to_thread(getattr(TaskServiceStub(calling.threads), method), request)
    with pytest.raises(CallFailed) as from_asyncio:
        await getattr(TaskServiceStub(calling.aio), method)(request)
    return [from_thread.value, from_asyncio.value]


async def test_reason_is_the_name_of_the_exception(calling: Calling) -> None:
    task_id = str(uuid4())
    for failed in await failed_in_both(calling, "GetTask", GetTaskRequest(task_id=task_id)):
        assert type(failed) is errors.TaskNotFound
        assert isinstance(failed, errors.NotFound)
        assert (failed.reason, failed.code) == ("TASK_NOT_FOUND", grpc.StatusCode.NOT_FOUND)
        assert failed.message == "The task does not exist. Check the task_id."
        assert failed.metadata == {"task_id": task_id}
        assert failed.error_id is None
        assert f"TASK_NOT_FOUND: The task does not exist. Check the task_id. (task_id={task_id}; request_id=" in str(
            failed
        )
        assert isinstance(failed.__cause__, grpc.RpcError)


async def test_violations_name_the_fields(calling: Calling) -> None:
    for failed in await failed_in_both(calling, "CreateTask", CreateTaskRequest(title="")):
        assert isinstance(failed, errors.InvalidMessage)
        assert [violation.field for violation in failed.violations] == ["title"]
        assert "title: " in str(failed)


async def test_request_id_is_the_one_in_the_log(calling: Calling, log: list[Any]) -> None:
    for failed in await failed_in_both(calling, "GetTask", GetTaskRequest(task_id=str(uuid4()))):
        assert [line["reason"] for line in log if line.get("request_id") == failed.request_id] == ["TASK_NOT_FOUND"]


async def test_request_id_of_the_caller_is_kept(calling: Calling) -> None:
    with pytest.raises(errors.TaskNotFound) as failed:
        await TaskServiceStub(calling.aio).GetTask(
            GetTaskRequest(task_id=str(uuid4())), metadata=(("x-request-id", "mine"),)
        )
    assert failed.value.request_id == "mine"


@pytest.mark.parametrize("value", REASONS, ids=[value.name for value in REASONS])
def test_every_reason_has_an_exception_below_that_of_its_code(value: Any) -> None:
    name = value.name.removeprefix("REASON_")
    code = next(
        code for code in grpc.StatusCode if code.value[0] == value.GetOptions().Extensions[errors_pb2.answer].code
    )
    exception = getattr(errors, name.title().replace("_", ""))
    assert errors.BY_REASON[name] is exception
    assert (exception.reason, exception.code) == (name, code)
    assert issubclass(exception, errors.BY_CODE[code])


def test_there_is_an_exception_for_every_code() -> None:
    assert set(errors.BY_CODE) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


def ask(server: Scripted, *, answering: RpcError) -> CallFailed:
    server.scripts["GetTask"] = lambda asked: answering
    with (
        accord_client.open_channel(server.address, credentials=SessionToken("token"), tls=None) as channel,
        pytest.raises(CallFailed) as failed,
    ):
        TaskServiceStub(channel).GetTask(GetTaskRequest())
    return failed.value


def test_quota_and_delay_are_told(scripted: Scripted) -> None:
    failed = ask(scripted, answering=RpcError(Reason.REASON_RATE_LIMITED, retry_after=1.5, quota="caller"))
    assert type(failed) is errors.RateLimited
    assert (failed.quota, failed.retry_after) == ("caller", 1.5)


def test_error_id_is_told(scripted: Scripted) -> None:
    failed = ask(scripted, answering=RpcError(Reason.REASON_INTERNAL, error_id="4711"))
    assert type(failed) is errors.Internal
    assert failed.error_id == "4711"


def test_reason_that_the_client_does_not_know_is_told_by_its_code(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name: kind for name, kind in errors.BY_REASON.items() if name != "TASK_NOT_FOUND"}
    monkeypatch.setattr("accord_client.failures.BY_REASON", known)
    failed = ask(scripted, answering=RpcError(Reason.REASON_TASK_NOT_FOUND, task_id="7"))
    assert type(failed) is errors.NotFound
    assert (failed.reason, failed.metadata) == ("TASK_NOT_FOUND", {"task_id": "7"})


def test_what_fails_on_the_way_is_named_after_its_code() -> None:
    with (
        accord_client.open_channel(f"127.0.0.1:{free_port()}", credentials=None, tls=None) as channel,
        pytest.raises(errors.Unavailable) as failed,
    ):
        TaskServiceStub(channel).UpdateTask(GetTaskRequest())  # type: ignore[arg-type]  # nobody will read it
    assert failed.value.request_id


def test_exceptions_travel_between_processes() -> None:
    raised = errors.TaskNotFound("There is none.", metadata={"task_id": "7"}, violations=[Violation("a", "b")])
    copy = pickle.loads(pickle.dumps(raised))
    assert type(copy) is errors.TaskNotFound
    assert vars(copy) == vars(raised)
    assert str(copy) == str(raised)


def test_future_has_the_exception_too(scripted: Scripted) -> None:
    scripted.scripts["GetTask"] = lambda asked: (
        GetTaskResponse() if asked.request else RpcError(Reason.REASON_TASK_NOT_FOUND)
    )
    with accord_client.open_channel(scripted.address, tls=None) as channel:
        tasks = TaskServiceStub(channel)
        assert tasks.GetTask.future(GetTaskRequest(task_id="7")).result(10) == GetTaskResponse()
        future = tasks.GetTask.future(GetTaskRequest())
        seen: list[Any] = []
        future.add_done_callback(seen.append)
        with pytest.raises(errors.TaskNotFound):
            future.result(10)
        assert isinstance(future.exception(10), errors.TaskNotFound)
        assert isinstance(future, grpc.Future)
        assert future.code() == grpc.StatusCode.NOT_FOUND
        response, call = tasks.GetTask.with_call(GetTaskRequest(task_id="7"))
        assert (response, call.code()) == (GetTaskResponse(), grpc.StatusCode.OK)


async def test_call_knows_its_code_and_trailers(calling: Calling) -> None:
    call = TaskServiceStub(calling.aio).GetTask(GetTaskRequest(task_id=str(uuid4())))
    assert await call.code() == grpc.StatusCode.NOT_FOUND
    assert "x-request-id" in dict(await call.trailing_metadata())
    with pytest.raises(errors.TaskNotFound):
        await call
