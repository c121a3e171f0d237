"""Methods of the API through Connect, gRPC-Web and REST: the same results, errors and rules as through gRPC."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from accord.policy.v1.policy_pb2 import ACCESS_PUBLIC
from accord.tasks.v1.tasks_pb2 import (
    CreateTaskRequest,
    CreateTaskResponse,
    DeleteTaskRequest,
    DeleteTaskResponse,
    GetTaskRequest,
    GetTaskResponse,
    ListTasksRequest,
    ListTasksResponse,
    UpdateTaskRequest,
    UpdateTaskResponse,
)
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_gateway.server.gateway import Gateway
from accord_gateway.settings import Settings
from accord_rpc.contract import contract_services
from accord_rpc.pipeline.rate_limits import rate_limiter
from accord_rpc.policy import effective_policy
from tests.api import probe as probes
from tests.api.conftest import Client, refusal
from tests.api.faces import FACES, ConnectGet, Face, Result
from tests.api.web import fetch
from tests.factories import Person, signed_in_person

TASKS = "/accord.tasks.v1.TaskService/"
METHODS: list[MethodDescriptor] = [method for service in contract_services() for method in service.methods]


@pytest.fixture
def gateway_settings() -> Settings:
    return Settings(port=0, metrics_port=0, server="accord")


@pytest.fixture(params=FACES, ids=lambda face: face.name)
def face(request: pytest.FixtureRequest) -> Face:
    found: Face = request.param
    return found


@pytest.fixture
def address(gateway: tuple[Gateway, str]) -> str:
    return gateway[1]


async def create(face: Face, address: str, who: Person, **fields: str) -> Result[CreateTaskResponse]:
    request = CreateTaskRequest(**fields)
    return await face.call(address, TASKS + "CreateTask", request, CreateTaskResponse, dict(who.headers))


async def test_a_task_is_created_read_changed_listed_and_deleted(
    face: Face, address: str, client: Client, me: Person
) -> None:
    own = dict(me.headers)
    task = (await create(face, address, me, title="Wäsche", description="a\nb")).message.task
    found = await face.call(address, TASKS + "GetTask", GetTaskRequest(task_id=task.id), GetTaskResponse, own)
    assert found.message.task == task
    over_grpc = await client.tasks.GetTask(GetTaskRequest(task_id=task.id), metadata=me.headers)
    assert over_grpc.task == task
    changes = UpdateTaskRequest()
    changes.task.MergeFrom(task)
    changes.task.completed = True
    changes.update_mask.paths.append("completed")
    changed = await face.call(address, TASKS + "UpdateTask", changes, UpdateTaskResponse, own)
    assert changed.message.task.completed
    listed = await face.call(address, TASKS + "ListTasks", ListTasksRequest(page_size=5), ListTasksResponse, own)
    assert list(listed.message.tasks) == [changed.message.task]
    request = DeleteTaskRequest(task_id=task.id)
    deleted = await face.call(address, TASKS + "DeleteTask", request, DeleteTaskResponse, own)
    assert deleted.message.task.HasField("deleted_at")


async def test_errors_have_the_same_status_and_details_as_through_grpc(
    face: Face, address: str, client: Client, me: Person
) -> None:
    request = GetTaskRequest(task_id=str(uuid4()))
    result = await face.call(address, TASKS + "GetTask", request, GetTaskResponse, dict(me.headers))
    expected = await refusal(client.tasks.GetTask(request, metadata=me.headers))
    assert result.status is not None
    assert (result.code, result.reason) == (expected.code.name, expected.reason) == ("NOT_FOUND", "TASK_NOT_FOUND")
    assert result.status.message == expected.message


async def test_every_violation_of_a_message_is_reported(face: Face, address: str, client: Client, me: Person) -> None:
    request = CreateTaskRequest(title="", description="\0", request_id="x")
    result = await face.call(address, TASKS + "CreateTask", request, CreateTaskResponse, dict(me.headers))
    expected = await refusal(client.tasks.CreateTask(request, metadata=me.headers))
    assert (result.code, result.reason) == ("INVALID_ARGUMENT", "INVALID_MESSAGE")
    assert result.violations == expected.violations
    assert result.violations.keys() == {"title", "description", "request_id"}


async def test_a_call_without_a_credential_is_refused(face: Face, address: str) -> None:
    result = await face.call(address, TASKS + "ListTasks", ListTasksRequest(), ListTasksResponse, {})
    assert (result.code, result.reason) == ("UNAUTHENTICATED", "CREDENTIAL_MISSING")


async def test_a_repeated_request_id_returns_the_first_response(face: Face, address: str, me: Person) -> None:
    request_id = str(uuid4())
    first = await create(face, address, me, title="once", request_id=request_id)
    assert (await create(face, address, me, title="once", request_id=request_id)).message == first.message


async def test_the_request_id_of_the_caller_is_in_the_log(face: Face, address: str, me: Person, log: list[Any]) -> None:
    headers = dict(me.headers) | {"x-request-id": "mine"}
    result = await face.call(address, TASKS + "ListTasks", ListTasksRequest(), ListTasksResponse, headers)
    assert result.request_id == "mine"
    assert [line["request_id"] for line in log if line["event"] == "call"] == ["mine"]


async def test_a_gateway_that_drains_or_is_full_refuses_calls_as_retryable(
    face: Face, gateway: tuple[Gateway, str], me: Person
) -> None:
    running, address = gateway
    call = partial(face.call, address, TASKS + "ListTasks", ListTasksRequest(), ListTasksResponse, dict(me.headers))
    running.slots.taken += 1000
    assert ((full := await call()).code, full.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    running.slots.taken -= 1000
    running.routes.draining = True
    assert ((drained := await call()).code, drained.reason) == ("UNAVAILABLE", "UNAVAILABLE")
    expected = None if face.name.startswith("grpc-web") else "1"
    assert full.retry_after == drained.retry_after == expected


async def test_a_method_without_side_effects_can_be_called_with_get(address: str, me: Person) -> None:
    face, own = ConnectGet(), dict(me.headers)
    task = (await create(FACES[0], address, me, title="a")).message.task
    found = await face.call(address, TASKS + "GetTask", GetTaskRequest(task_id=task.id), GetTaskResponse, own)
    assert found.message.task == task
    refused = await fetch(address, "GET", TASKS + "CreateTask?encoding=json&message=%7B%7D", None, own)
    assert (refused.status, refused.header("allow")) == (405, "OPTIONS, POST")


async def test_strict_json_is_refused_with_paths_and_without_values(address: str, me: Person) -> None:
    body = b'{"title": "a", "title": "secret", "desciption": 1, "requestId": 7}'
    response = await fetch(address, "POST", TASKS + "CreateTask", body, dict(me.headers))
    [_, bad] = response.json["details"]
    assert response.status == 400
    assert {each["field"]: each["description"] for each in bad["debug"]["fieldViolations"]} == {
        "title": "must be given once",
        "desciption": "is not a field of this message",
        "request_id": "must be text",
    }
    assert b"secret" not in response.body


# --- streams: the contract has none, the probe has -------------------------------------------------------------------
@pytest.fixture
async def probe(
    database: Database, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, Person]]:
    monkeypatch.setattr(probes, "Settings", partial(Settings, server="accord"))
    server, _ = probes.build_probe_server(database, listener, rate_limiter("async+memory://"))
    port = server.listen()
    await server.start()
    yield f"127.0.0.1:{port}", await signed_in_person(database)
    await server.stop(None)


async def test_a_stream_of_responses(face: Face, probe: tuple[str, Person]) -> None:
    address, person = probe
    messages, _ = probes.generated()
    call = partial(face.call, address, "/probe.v1.ProbeService/ServerStream", streams=True)
    result = await call(messages.ProbeRequest(text="a"), messages.ProbeResponse, dict(person.headers))
    assert ([message.text for message in result.messages], result.code) == (["a"] * 3, "OK")
    result = await call(messages.ProbeRequest(text="a", act="refuse"), messages.ProbeResponse, dict(person.headers))
    assert (len(result.messages), result.reason) == (3, "TASK_NOT_FOUND")
    result = await call(messages.ProbeRequest(text="a"), messages.ProbeResponse, {})
    assert (result.messages, result.reason) == ([], "CREDENTIAL_MISSING")


# --- every method -----------------------------------------------------------------------------------------------------
def test_the_contract_has_methods() -> None:
    assert len(METHODS) > 50


@pytest.mark.every_feature
@pytest.mark.parametrize("face", [face for face in FACES if face.name != "rest"], ids=lambda face: face.name)
async def test_every_method_is_there_and_refuses_callers_without_a_credential(face: Face, address: str) -> None:
    """tests/api/test_rest.py does it for the routes of REST."""
    refused = set()
    for method in METHODS:
        path, streams = path_of(method), bool(method.client_streaming or method.server_streaming)
        request, response = GetMessageClass(method.input_type)(), GetMessageClass(method.output_type)
        result = await face.call(address, path, request, response, {}, streams=streams)
        assert result.code in ("OK", "INVALID_ARGUMENT", "UNAUTHENTICATED"), (path, result)
        if result.code == "UNAUTHENTICATED":
            refused.add(path)
    assert refused == {path_of(method) for method in METHODS if effective_policy(method).access != ACCESS_PUBLIC}


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"
