"""What is asked, of Accord in gRPC and of the peer in REST, and how a right answer is told from any other."""

import json
import struct
import urllib.request
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

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


class Query(NamedTuple):
    """A call as a person makes it, and whether its answer is what that person should get."""

    request: Callable[[Person], Request]
    is_answered: Callable[[bytes, Person], bool]


def ask(port: int, question: Query, person: Person) -> int:
    """Makes the call once, and gives the size of its answer on the wire. Ends the benchmark if the answer is wrong."""
    request = question.request(person)
    answer = (_ask_grpc if request.http2 else _ask_rest)(port, request)
    if not question.is_answered(answer, person):
        raise SystemExit(f"{request.path} was answered {answer!r}")
    return len(answer) + (GRPC_PREFIX.size if request.http2 else 0)


# Every gRPC message comes behind a flag (0: not compressed) and its length.
GRPC_PREFIX: Final = struct.Struct(">BI")
CREDENTIALS: Final = ("authorization", "x-api-key")


def _ask_grpc(port: int, request: Request) -> bytes:
    assert request.body is not None
    metadata = [header for header in request.headers.items() if header[0] in CREDENTIALS]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return channel.unary_unary(request.path)(request.body[GRPC_PREFIX.size :], metadata=metadata, timeout=10)


def _ask_rest(port: int, request: Request) -> bytes:
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


ACCORD: Final[Mapping[str, Query]] = {
    "GetTask": Query(
        lambda person: _grpc("GetTask", GetTaskRequest(task_id=person.task_id), person),
        lambda answer, person: GetTaskResponse.FromString(answer).task.id == person.task_id,
    ),
    "GetTask by API key": Query(
        lambda person: _grpc_by_key("GetTask", GetTaskRequest(task_id=person.shared_task_id), person),
        lambda answer, person: GetTaskResponse.FromString(answer).task.id == person.shared_task_id,
    ),
    "ListTasks": Query(
        lambda person: _grpc("ListTasks", ListTasksRequest(page_size=PAGE), person),
        lambda answer, person: len(ListTasksResponse.FromString(answer).tasks) == PAGE,
    ),
    "CreateTask": Query(
        lambda person: _grpc("CreateTask", CreateTaskRequest(title=TITLE, description=DESCRIPTION), person),
        lambda answer, person: CreateTaskResponse.FromString(answer).task.title == TITLE,
    ),
}
_PEER: Final[Mapping[str, Query]] = {
    "GetTask": Query(
        lambda person: _rest(f"/tasks/{person.task_id}", person),
        lambda answer, person: json.loads(answer)["id"] == person.task_id,
    ),
    "ListTasks": Query(
        lambda person: _rest(f"/tasks?page_size={PAGE}", person),
        lambda answer, person: len(json.loads(answer)["data"]) == PAGE,
    ),
    "CreateTask": Query(
        lambda person: _rest("/tasks", person, {"title": TITLE, "description": DESCRIPTION}),
        lambda answer, person: json.loads(answer)["title"] == TITLE,
    ),
}
# The peer has neither organizations nor keys: what it is compared with is the same read of one's own.
PEER: Final[Mapping[str, Query]] = _PEER | {"GetTask by API key": _PEER["GetTask"]}
# A task that is answered without a database, by `benchmarks.bare` and `benchmarks.variants`.
CANNED: Final = Query(
    ACCORD["GetTask"].request,
    lambda answer, person: GetTaskResponse.FromString(answer).task.title == TITLE,
)
