"""The calls that are measured, over each protocol, each with a check of its response."""

import json
import struct
import urllib.request
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, cast

import grpc
from google.protobuf.message import Message

from accord.tasks.v1.tasks_pb2 import (
    CreateTaskRequest,
    CreateTaskResponse,
    GetTaskRequest,
    GetTaskResponse,
    ListTasksRequest,
    ListTasksResponse,
)
from benchmarks.data import Person
from benchmarks.load import Request

TITLE: Final = "A task made by the load generator"
DESCRIPTION: Final = "A description of the work. " * 4
PAGE: Final = 20


class CheckedCall(NamedTuple):
    """A call by a user, and whether a response is the one that this user should get."""

    request: Callable[[Person], Request]
    is_right: Callable[[bytes, Person], bool]


def call_once(port: int, call: CheckedCall, person: Person) -> int:
    """Returns the size of the response on the wire. Ends the benchmark if the response is wrong."""
    request = call.request(person)
    response = (_call_grpc if request.http2 else _call_rest)(port, request)
    if not call.is_right(response, person):
        raise SystemExit(f"{request.path} returned {response!r}")
    return len(response) + (GRPC_PREFIX.size if request.http2 else 0)


# Before each gRPC message: a flag (0: not compressed) and its length.
GRPC_PREFIX: Final = struct.Struct(">BI")
CREDENTIALS: Final = ("authorization", "x-api-key")


def _call_grpc(port: int, request: Request) -> bytes:
    assert request.body is not None
    metadata = [header for header in request.headers.items() if header[0] in CREDENTIALS]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return channel.unary_unary(request.path)(request.body[GRPC_PREFIX.size :], metadata=metadata, timeout=10)


def _call_rest(port: int, request: Request) -> bytes:
    url = f"http://127.0.0.1:{port}{request.path}"
    made = urllib.request.Request(url, data=request.body, headers=dict(request.headers))
    with urllib.request.urlopen(made, timeout=10) as response:
        return bytes(response.read())


def _grpc(method: str, message: Message, person: Person) -> Request:
    return _grpc_with({"authorization": f"Bearer {person.token}"}, method, message)


def _grpc_by_key(method: str, message: Message, person: Person) -> Request:
    return _grpc_with({"x-api-key": person.api_key}, method, message)


def _grpc_with(credential: Mapping[str, str], method: str, message: Message) -> Request:
    body = message.SerializeToString()
    headers = {"content-type": "application/grpc", "te": "trailers", **credential}
    return Request(f"/accord.tasks.v1.TaskService/{method}", headers, GRPC_PREFIX.pack(0, len(body)) + body, http2=True)


def _rest(path: str, person: Person, body: object = None) -> Request:
    headers = {"authorization": f"Bearer {person.token}"}
    if body is None:
        return Request(path, headers)
    return Request(path, headers | {"content-type": "application/json"}, json.dumps(body).encode())


def _connect(method: str, body: object, person: Person) -> Request:
    return _rest(f"/accord.tasks.v1.TaskService/{method}", person, body)


def _task(response: bytes) -> dict[str, object]:
    """Of REST and of Connect, which both put it into a response message."""
    return cast(dict[str, object], json.loads(response)["task"])


def _is_page(response: bytes, person: Person) -> bool:
    return len(json.loads(response)["tasks"]) == PAGE


def _is_own_task(response: bytes, person: Person) -> bool:
    return _task(response)["id"] == person.task_id


def _has_title(response: bytes, person: Person) -> bool:
    return _task(response)["title"] == TITLE


GRPC: Final[Mapping[str, CheckedCall]] = {
    "GetTask": CheckedCall(
        lambda person: _grpc("GetTask", GetTaskRequest(task_id=person.task_id), person),
        lambda response, person: GetTaskResponse.FromString(response).task.id == person.task_id,
    ),
    "GetTask by API key": CheckedCall(
        lambda person: _grpc_by_key("GetTask", GetTaskRequest(task_id=person.shared_task_id), person),
        lambda response, person: GetTaskResponse.FromString(response).task.id == person.shared_task_id,
    ),
    "ListTasks": CheckedCall(
        lambda person: _grpc("ListTasks", ListTasksRequest(page_size=PAGE), person),
        lambda response, person: len(ListTasksResponse.FromString(response).tasks) == PAGE,
    ),
    "CreateTask": CheckedCall(
        lambda person: _grpc("CreateTask", CreateTaskRequest(title=TITLE, description=DESCRIPTION), person),
        lambda response, person: CreateTaskResponse.FromString(response).task.title == TITLE,
    ),
}
REST: Final[Mapping[str, CheckedCall]] = {
    "GetTask": CheckedCall(lambda person: _rest(f"/v1/tasks/{person.task_id}", person), _is_own_task),
    "ListTasks": CheckedCall(lambda person: _rest(f"/v1/tasks?page_size={PAGE}", person), _is_page),
    "CreateTask": CheckedCall(
        lambda person: _rest("/v1/tasks", person, {"title": TITLE, "description": DESCRIPTION}), _has_title
    ),
}
CONNECT: Final[Mapping[str, CheckedCall]] = {
    "GetTask": CheckedCall(lambda person: _connect("GetTask", {"taskId": person.task_id}, person), _is_own_task),
    "ListTasks": CheckedCall(lambda person: _connect("ListTasks", {"pageSize": PAGE}, person), _is_page),
    "CreateTask": CheckedCall(
        lambda person: _connect("CreateTask", {"title": TITLE, "description": DESCRIPTION}, person), _has_title
    ),
}
_PEER: Final[Mapping[str, CheckedCall]] = {
    "GetTask": CheckedCall(
        lambda person: _rest(f"/tasks/{person.task_id}", person),
        lambda response, person: json.loads(response)["id"] == person.task_id,
    ),
    "ListTasks": CheckedCall(
        lambda person: _rest(f"/tasks?page_size={PAGE}", person),
        lambda response, person: len(json.loads(response)["data"]) == PAGE,
    ),
    "CreateTask": CheckedCall(
        lambda person: _rest("/tasks", person, {"title": TITLE, "description": DESCRIPTION}),
        lambda response, person: json.loads(response)["title"] == TITLE,
    ),
}
# The peer has no organizations and no keys: it is compared by the same read of the user's own task.
PEER: Final[Mapping[str, CheckedCall]] = _PEER | {"GetTask by API key": _PEER["GetTask"]}
# A task that is returned without a database, by the servers of `benchmarks.bare` and `benchmarks.variants` and by the peer in Go.
NO_DATABASE: Final = "no database"
CANNED_GRPC: Final = {
    NO_DATABASE: CheckedCall(
        GRPC["GetTask"].request,
        lambda response, person: GetTaskResponse.FromString(response).task.title == TITLE,
    )
}
CANNED_REST: Final = {NO_DATABASE: CheckedCall(REST["GetTask"].request, _has_title)}
CANNED_CONNECT: Final = {NO_DATABASE: CheckedCall(CONNECT["GetTask"].request, _has_title)}
