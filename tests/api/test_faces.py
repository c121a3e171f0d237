"""Methods of the API through Connect, gRPC-Web and REST: the same results, errors and rules as through gRPC."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast
from uuid import uuid4

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from accord.policy.v1.policy_pb2 import ACCESS_PUBLIC
from accord.tasks.v1 import tasks_pb2
from accord.tasks.v1.tasks_pb2 import (
    CreateTaskRequest,
    DeleteTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    UpdateTaskRequest,
)
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_gateway.server.gateway import Gateway
from accord_gateway.settings import Settings
from accord_rpc.contract import contract_services
from accord_rpc.pipeline.rate_limits import rate_limiter
from accord_rpc.policy import effective_policy, has_sensitive_field
from tests.api import probe as probes
from tests.api.faces import CONNECT_JSON, FACES, GRPC, OVER_HTTP, ConnectGet, Ends, Face, Outcome, ends_of
from tests.api.web import fetch
from tests.factories import Person, signed_in_person

METHODS: list[MethodDescriptor] = [method for service in contract_services() for method in service.methods]
TASKS = tasks_pb2.DESCRIPTOR.services_by_name["TaskService"].methods_by_name
CREATE, GET, UPDATE, LIST, DELETE = (
    TASKS[name] for name in ("CreateTask", "GetTask", "UpdateTask", "ListTasks", "DeleteTask")
)


@pytest.fixture
def gateway_settings() -> Settings:
    return Settings(port=0, metrics_port=0, server="accord")


@pytest.fixture(params=FACES, ids=str)
def face(request: pytest.FixtureRequest) -> Face:
    found: Face = request.param
    return found


@pytest.fixture
def address(gateway: tuple[Gateway, str]) -> str:
    return gateway[1]


async def create(face: Face, ends: Ends, who: Person, **fields: str) -> Outcome:
    return await face.call(ends, CREATE, CreateTaskRequest(**fields), who.headers)


async def test_a_task_is_created_read_changed_listed_and_deleted(face: Face, ends: Ends, me: Person) -> None:
    task = (await create(face, ends, me, title="Wäsche", description="a\nb")).message.task
    found = await face.call(ends, GET, GetTaskRequest(task_id=task.id), me.headers)
    assert found.message.task == task
    over_grpc = await GRPC.call(ends, GET, GetTaskRequest(task_id=task.id), me.headers)
    assert over_grpc.message.task == task
    changes = UpdateTaskRequest()
    changes.task.MergeFrom(task)
    changes.task.completed = True
    changes.update_mask.paths.append("completed")
    changed = await face.call(ends, UPDATE, changes, me.headers)
    assert changed.message.task.completed
    listed = await face.call(ends, LIST, ListTasksRequest(page_size=5), me.headers)
    assert list(listed.message.tasks) == [changed.message.task]
    deleted = await face.call(ends, DELETE, DeleteTaskRequest(task_id=task.id), me.headers)
    assert deleted.message.task.HasField("deleted_at")


@pytest.mark.parametrize("face", OVER_HTTP, ids=str)
async def test_errors_are_those_of_grpc(face: Face, ends: Ends, me: Person) -> None:
    """Codes, messages, reasons, metadata and violations."""
    absent = GetTaskRequest(task_id=str(uuid4()))
    invalid = CreateTaskRequest(title="", description="\0", request_id="x")
    calls = ((GET, absent, me.headers), (CREATE, invalid, me.headers), (LIST, ListTasksRequest(), ()))
    for method, request, headers in calls:
        expected = await GRPC.call(ends, method, request, headers)
        assert expected.code in ("NOT_FOUND", "INVALID_ARGUMENT", "UNAUTHENTICATED")
        assert (await face.call(ends, method, request, headers)).essence == expected.essence


async def test_a_repeated_request_id_returns_the_first_response(face: Face, ends: Ends, me: Person) -> None:
    request_id = str(uuid4())
    first = await create(face, ends, me, title="once", request_id=request_id)
    assert (await create(face, ends, me, title="once", request_id=request_id)).message == first.message


async def test_the_request_id_of_the_caller_is_in_the_log(face: Face, ends: Ends, me: Person, log: list[Any]) -> None:
    result = await face.call(ends, LIST, ListTasksRequest(), (*me.headers, ("x-request-id", "mine")))
    assert result.request_id == "mine"
    assert [line["request_id"] for line in log if line["event"] == "call"] == ["mine"]


async def test_a_method_without_side_effects_can_be_called_with_get(address: str, ends: Ends, me: Person) -> None:
    task = (await create(CONNECT_JSON, ends, me, title="a")).message.task
    found = await ConnectGet().call(ends, GET, GetTaskRequest(task_id=task.id), me.headers)
    assert found.message.task == task
    path = "/accord.tasks.v1.TaskService/CreateTask"
    refused = await fetch(address, "GET", f"{path}?encoding=json&message=%7B%7D", None, dict(me.headers))
    assert (refused.status, refused.header("allow")) == (405, "OPTIONS, POST")


async def test_method_with_a_secret_in_its_request_is_not_called_by_its_url(address: str, me: Person) -> None:
    methods = [method for method in METHODS if is_safe(method) and has_sensitive_field(method.input_type)]
    assert methods
    for method in methods:
        target = f"/{method.containing_service.full_name}/{method.name}?encoding=json&message=%7B%7D"
        assert (await fetch(address, "GET", target, None, dict(me.headers))).status == 405


def is_safe(method: MethodDescriptor) -> bool:
    return bool(method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS)


async def test_strict_json_is_refused_with_paths_and_without_values(address: str, me: Person) -> None:
    body = b'{"title": "a", "title": "secret", "desciption": 1, "requestId": 7}'
    response = await fetch(address, "POST", "/accord.tasks.v1.TaskService/CreateTask", body, dict(me.headers))
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
) -> AsyncIterator[tuple[Ends, Person]]:
    monkeypatch.setattr(probes, "Settings", partial(Settings, server="accord"))
    server, _ = probes.build_probe_server(database, listener, rate_limiter("async+memory://"))
    port = server.listen()
    await server.start()
    async with ends_of(f"127.0.0.1:{port}") as ends:
        yield ends, await signed_in_person(database)
    await server.stop(None)


async def test_a_stream_of_responses(face: Face, probe: tuple[Ends, Person]) -> None:
    ends, person = probe
    messages, _ = probes.generated()
    method = messages.DESCRIPTOR.services_by_name["ProbeService"].methods_by_name["ServerStream"]
    result = await face.call(ends, method, messages.ProbeRequest(text="a"), person.headers)
    assert ([cast(Any, message).text for message in result.messages], result.code) == (["a"] * 3, "OK")
    result = await face.call(ends, method, messages.ProbeRequest(text="a", act="refuse"), person.headers)
    assert (len(result.messages), result.reason) == (3, "TASK_NOT_FOUND")
    result = await face.call(ends, method, messages.ProbeRequest(text="a"))
    assert (result.messages, result.reason) == ((), "CREDENTIAL_MISSING")


# --- every method -----------------------------------------------------------------------------------------------------
def test_the_contract_has_methods() -> None:
    assert len(METHODS) > 50


@pytest.mark.every_feature
async def test_every_method_is_there_and_refuses_callers_without_a_credential(face: Face, ends: Ends) -> None:
    refused = set()
    for method in METHODS:
        result = await face.send(ends, method, face.unparsable(method))
        assert result.reason in ("INVALID_MESSAGE", "CREDENTIAL_MISSING"), (method.full_name, result)
        if result.reason == "CREDENTIAL_MISSING":
            refused.add(method.full_name)
    assert refused == {method.full_name for method in METHODS if effective_policy(method).access != ACCESS_PUBLIC}
