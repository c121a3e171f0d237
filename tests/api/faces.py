"""Calls through each face of the server, from one description: a method, a message, headers. Every face returns the same outcome.

Every response is checked for what all responses of its face have: status, content type, headers, and the form of an error. Those
of REST are also held against the OpenAPI document."""

import asyncio
import json
import math
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, cast

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from tests.api import documented
from tests.api.requests import rules
from tests.api.routes import Document, Target, json_name, route, routes
from tests.api.web import SECONDS, Http, Response

Pairs = Iterable[tuple[str, str]]

OK: Final = "OK"
HTTP_STATUS: Final = {
    **dict.fromkeys(("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"), 400),
    **dict.fromkeys(("ALREADY_EXISTS", "ABORTED"), 409),
    **dict.fromkeys(("UNKNOWN", "INTERNAL", "DATA_LOSS"), 500),
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    OK: 200,
}
# Of requests that are refused for their form, in addition to the status of the code: size, path, verb, type.
_OF_FORM: Final = {"INVALID_ARGUMENT": {413, 415}, "NOT_FOUND": {404}, "UNIMPLEMENTED": {405}, "ABORTED": {412}}


@dataclass(frozen=True)
class Ends:
    """Ways to one gateway."""

    channel: grpc.aio.Channel
    http: Http


@asynccontextmanager
async def ends_of(address: str) -> AsyncIterator[Ends]:
    http = Http(address)
    async with grpc.aio.insecure_channel(address) as channel:
        yield Ends(channel, http)
    await http.close()


@dataclass(frozen=True)
class Outcome:
    """The result of a call, the same on every face."""

    code: str
    reason: str = OK
    """Empty for an error without an ErrorInfo, which only gRPC's health service returns."""
    text: str = ""
    metadata: Mapping[str, str] | None = None
    violations: Mapping[str, str] | None = None
    retry_after: float | None = None
    quota: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    request_id: str = ""
    response: Response | None = None
    """What HTTP carried; None for gRPC."""
    status: Status | None = None
    """Of an error."""

    @property
    def message(self) -> Any:
        assert self.code == OK, self
        [message] = self.messages
        return message

    @property
    def essence(self) -> tuple[object, ...]:
        """What must be equal on every face for equal calls."""
        return (self.code, self.reason, self.text, self.metadata, self.violations, self.retry_after, self.quota)


class Request(NamedTuple):
    """A call as one face sends it. Only REST has targets and verbs of its own."""

    body: bytes | None
    verb: str = "POST"
    target: str = ""
    operation: str = ""


class Face(ABC):
    name: str

    async def call(self, ends: Ends, method: MethodDescriptor, message: Message, headers: Pairs = ()) -> Outcome:
        return await self.send(ends, method, self.request(method, message), headers)

    @abstractmethod
    def request(self, method: MethodDescriptor, message: Message) -> Request: ...

    @abstractmethod
    def unparsable(self, method: MethodDescriptor) -> Request:
        """A request that no message can be read from."""

    @abstractmethod
    async def send(self, ends: Ends, method: MethodDescriptor, request: Request, headers: Pairs = ()) -> Outcome: ...

    def serves(self, method: MethodDescriptor) -> bool:
        return True

    def can_express(self, method: MethodDescriptor, message: Message) -> bool:
        """Whether the face has a form for the message."""
        return True

    def __str__(self) -> str:
        return self.name


# --- gRPC -------------------------------------------------------------------------------------------------------------
class Grpc(Face):
    name = "grpc"

    def request(self, method: MethodDescriptor, message: Message) -> Request:
        return Request(message.SerializeToString())

    def unparsable(self, method: MethodDescriptor) -> Request:
        return Request(b"\xff")

    async def send(self, ends: Ends, method: MethodDescriptor, request: Request, headers: Pairs = ()) -> Outcome:
        metadata = tuple((name, value) for name, value in headers if name != "grpc-timeout")
        timeout = next((seconds(value) for name, value in headers if name == "grpc-timeout"), SECONDS)
        call = _grpc_call(ends.channel, method)(cast(bytes, request.body), metadata=metadata, timeout=timeout)
        kind, messages = GetMessageClass(method.output_type), list[Message]()
        try:
            async with asyncio.timeout(SECONDS):
                if method.server_streaming:
                    async for body in call:
                        messages.append(kind.FromString(body))
                else:
                    messages.append(kind.FromString(await call))
        except grpc.aio.AioRpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            details = trailers.get("grpc-status-details-bin")
            status = Status.FromString(details) if details else Status(code=error.code().value[0])
            if details:
                assert (status.code, status.message) == (error.code().value[0], error.details())
            return _failed(status, messages, str(trailers.get("x-request-id", "")))
        trailers = dict(await call.trailing_metadata())
        return Outcome(OK, messages=tuple(messages), request_id=str(trailers["x-request-id"]))


def _grpc_call(channel: grpc.aio.Channel, method: MethodDescriptor) -> Callable[..., Any]:
    """Sends bytes. A stub for streams would send its message after the headers, and grpcio reports INTERNAL for a status that
    arrives in between."""
    if method.client_streaming:
        stub = channel.stream_stream if method.server_streaming else channel.stream_unary
        return lambda body, **options: stub(path_of(method))(iter([body]), **options)
    return (channel.unary_stream if method.server_streaming else channel.unary_unary)(path_of(method))


def seconds(timeout: str) -> float:
    return int(timeout[:-1]) * {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}[timeout[-1]]


# --- HTTP -------------------------------------------------------------------------------------------------------------
class _HttpFace(Face):
    async def send(self, ends: Ends, method: MethodDescriptor, request: Request, headers: Pairs = ()) -> Outcome:
        own = (*headers, *self._headers(method, request))
        target = request.target or path_of(method)
        response = await ends.http.fetch(request.verb, target, request.body, own)
        assert response.header("cache-control") == "no-store", response
        assert response.header("x-content-type-options") == "nosniff", response
        if request.operation and method.full_name.startswith("accord."):
            documented.check(request.operation, response)
        messages, status = self._read(method, response)
        request_id = response.header("x-request-id") or ""
        assert request_id, response
        if status is None:
            return Outcome(OK, messages=tuple(messages), request_id=request_id, response=response)
        return _failed(status, messages, request_id, response)

    @abstractmethod
    def _headers(self, method: MethodDescriptor, request: Request) -> Pairs: ...

    @abstractmethod
    def _read(self, method: MethodDescriptor, response: Response) -> tuple[list[Message], Status | None]: ...


class Connect(_HttpFace):
    def __init__(self, encoding: str) -> None:
        self.name = f"connect+{encoding}"
        self._encoding = encoding

    def request(self, method: MethodDescriptor, message: Message) -> Request:
        return self._framed(method, self._written(message))

    def of_bytes(self, method: MethodDescriptor, body: bytes) -> Request:
        """JSON or binary, whether it is valid or not."""
        return self._framed(method, body)

    def unparsable(self, method: MethodDescriptor) -> Request:
        return self._framed(method, b"{" if self._encoding == "json" else b"\xff")

    def _framed(self, method: MethodDescriptor, body: bytes) -> Request:
        return Request(_frame(body) if streams(method) else body)

    def _written(self, message: Message) -> bytes:
        return _json(message) if self._encoding == "json" else message.SerializeToString()

    def _headers(self, method: MethodDescriptor, request: Request) -> Pairs:
        kind = f"application/{'connect+' if streams(method) else ''}{self._encoding}"
        return (("content-type", kind), ("connect-protocol-version", "1"))

    def _parsed(self, body: bytes, kind: type[Message]) -> Message:
        return json_format.Parse(body, kind()) if self._encoding == "json" else kind.FromString(body)

    def _read(self, method: MethodDescriptor, response: Response) -> tuple[list[Message], Status | None]:
        kind = GetMessageClass(method.output_type)
        if not streams(method):
            if response.status == HTTP_STATUS[OK]:
                assert response.header("content-type") == f"application/{self._encoding}"
                return [self._parsed(response.body, kind)], None
            status = _connect_status(response.json)
            _check_error(response, status)
            return [], status
        assert response.status == HTTP_STATUS[OK]
        *messages, (flags, last) = _frames(response.body)
        assert flags == 2
        end = json.loads(last)
        return [self._parsed(body, kind) for _, body in messages], _connect_status(
            end["error"]
        ) if "error" in end else None


class ConnectGet(Connect):
    """For methods without side effects."""

    def __init__(self) -> None:
        super().__init__("json")
        self.name = "connect get"

    def request(self, method: MethodDescriptor, message: Message) -> Request:
        text = urlsafe_b64encode(self._written(message)).decode().rstrip("=")
        return Request(None, "GET", f"{path_of(method)}?connect=v1&encoding=json&base64=1&message={text}")

    def _headers(self, method: MethodDescriptor, request: Request) -> Pairs:
        return ()


class GrpcWeb(_HttpFace):
    def __init__(self, *, text: bool) -> None:
        self.name = "grpc-web-text" if text else "grpc-web"
        self._text = text

    def request(self, method: MethodDescriptor, message: Message) -> Request:
        return self.of_bytes(method, message.SerializeToString())

    def of_bytes(self, method: MethodDescriptor, message: bytes) -> Request:
        body = _frame(message)
        return Request(b64encode(body) if self._text else body)

    def unparsable(self, method: MethodDescriptor) -> Request:
        return self.of_bytes(method, b"\xff")

    def _headers(self, method: MethodDescriptor, request: Request) -> Pairs:
        return (("content-type", f"application/{self.name}"), ("x-grpc-web", "1"))

    def _read(self, method: MethodDescriptor, response: Response) -> tuple[list[Message], Status | None]:
        assert response.status == HTTP_STATUS[OK], response
        assert (response.header("content-type") or "").startswith(f"application/{self.name}")
        if not response.body:
            return [], _grpc_status(dict(response.headers))
        *messages, (flags, last) = _frames(_unpadded(response.body) if self._text else response.body)
        assert flags == 0x80
        trailers = dict(line.split(": ", 1) for line in last.decode().splitlines())
        kind = GetMessageClass(method.output_type)
        return [kind.FromString(body) for _, body in messages], _grpc_status(trailers)


class Rest(_HttpFace):
    """By the first route of the method that has a form for the message."""

    name = "rest"

    def serves(self, method: MethodDescriptor) -> bool:
        return route(method) is not None

    def can_express(self, method: MethodDescriptor, message: Message) -> bool:
        """An id in the path cannot be left out. That is an error of most methods, for which any other invalid id stands."""
        if any(target.fits for target in self._targets(method, json_format.MessageToDict(message))):
            return True
        variables = [method.input_type.fields_by_name.get(name) for found in routes(method) for name in found.variables]
        return not any(field is not None and rules(field).ignore for field in variables)

    def request(self, method: MethodDescriptor, message: Message) -> Request:
        return self.of_document(method, json_format.MessageToDict(message), empty="-")

    def of_document(self, method: MethodDescriptor, document: Document, *, empty: str = "") -> Request:
        """`empty` is the segment of a variable that the document has not."""
        targets = self._targets(method, document)
        target = next((each for each in targets if each.fits), targets[0])
        if not target.fits:
            path = "/".join(segment or empty for segment in target.path.split("/")[1:]).replace("/:", f"/{empty}:")
            target = replace(target, path=f"/{path}")
        return self.of_target(target)

    def of_target(self, target: Target) -> Request:
        body = None if target.body is None else json.dumps(target.body, ensure_ascii=False).encode()
        return Request(body, target.verb, str(target), target.operation)

    def _targets(self, method: MethodDescriptor, document: Document) -> list[Target]:
        return [found.target(document) for found in routes(method)]

    def unparsable(self, method: MethodDescriptor) -> Request:
        """A parameter that no method has and, where there is a body, half a document. Variables are one letter."""
        found = route(method)
        assert found is not None, method.full_name
        document: Document = {}
        for variable in found.variables:
            inside = document
            for name in variable.split(".")[:-1]:
                inside = inside.setdefault(json_name(name), {})
            inside[json_name(variable.split(".")[-1])] = "x"
        target = found.target(document)
        return Request(None if target.body is None else b"{", target.verb, f"{target.path}?nothing=1", target.operation)

    def _headers(self, method: MethodDescriptor, request: Request) -> Pairs:
        return () if request.body is None else (("content-type", "application/json"),)

    def _read(self, method: MethodDescriptor, response: Response) -> tuple[list[Message], Status | None]:
        kind = GetMessageClass(method.output_type)
        if response.status != HTTP_STATUS[OK]:
            status = json_format.Parse(response.body, Status())
            _check_error(response, status)
            return [], status
        if not method.server_streaming:
            assert response.header("content-type") == "application/json"
            return [json_format.Parse(response.body, kind())], None
        assert response.header("content-type") == "application/x-ndjson"
        documents = [json.loads(line) for line in response.body.splitlines() if line]
        error = documents.pop()["error"] if documents and "error" in documents[-1] else None
        messages = [json_format.ParseDict(document, kind()) for document in documents]
        return messages, json_format.ParseDict(error, Status()) if error else None


GRPC: Final = Grpc()
CONNECT_JSON: Final = Connect("json")
REST: Final = Rest()
OVER_HTTP: Final[tuple[Face, ...]] = (CONNECT_JSON, Connect("proto"), GrpcWeb(text=False), GrpcWeb(text=True), REST)
FACES: Final[tuple[Face, ...]] = (GRPC, *OVER_HTTP)


# --- methods ----------------------------------------------------------------------------------------------------------
def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def streams(method: MethodDescriptor) -> bool:
    return bool(method.client_streaming or method.server_streaming)


# --- errors -----------------------------------------------------------------------------------------------------------
def _failed(status: Status, messages: Iterable[Message], request_id: str, response: Response | None = None) -> Outcome:
    found = {detail.type_url.rpartition("/")[2]: detail.value for detail in status.details}
    assert len(found) == len(status.details), status
    info = ErrorInfo.FromString(found.get("google.rpc.ErrorInfo", b""))
    assert info.domain == "accord" or not found
    bad = BadRequest.FromString(found.get("google.rpc.BadRequest", b""))
    retry = found.get("google.rpc.RetryInfo")
    quota = QuotaFailure.FromString(found.get("google.rpc.QuotaFailure", b""))
    return Outcome(
        str(Code.Name(status.code)),
        info.reason,
        status.message,
        dict(info.metadata),
        {each.field: each.description for each in bad.field_violations},
        None if retry is None else RetryInfo.FromString(retry).retry_delay.ToTimedelta().total_seconds(),
        tuple(each.subject for each in quota.violations),
        tuple(messages),
        request_id,
        response,
        status,
    )


def _check_error(response: Response, status: Status) -> None:
    """Of an error that has a status of HTTP."""
    code = str(Code.Name(status.code))
    assert response.status in {HTTP_STATUS[code], *_OF_FORM.get(code, ())}, response
    assert response.header("content-type") == "application/json"
    assert (response.header("www-authenticate") is not None) == (response.status == HTTP_STATUS["UNAUTHENTICATED"])
    retry = [RetryInfo.FromString(each.value) for each in status.details if each.Is(RetryInfo.DESCRIPTOR)]
    delays = [str(max(1, math.ceil(each.retry_delay.ToTimedelta().total_seconds()))) for each in retry]
    assert response.header("retry-after") == (delays[0] if delays else None)


def _connect_status(error: Mapping[str, Any]) -> Status:
    code = {"canceled": "CANCELLED"}.get(error["code"], error["code"].upper())
    status = Status(code=Code.Value(code), message=error["message"])
    for detail in error.get("details", ()):
        assert "/" not in detail["type"]
        assert "=" not in detail["value"]
        status.details.add(type_url=f"type.googleapis.com/{detail['type']}", value=_decoded(detail["value"]))
    return status


def _grpc_status(trailers: Mapping[str, str]) -> Status | None:
    if trailers["grpc-status"] == "0":
        return None
    details = trailers.get("grpc-status-details-bin")
    status = Status.FromString(_decoded(details)) if details else Status(code=int(trailers["grpc-status"]))
    assert str(status.code) == trailers["grpc-status"]
    return status


def _decoded(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4))


# --- messages ---------------------------------------------------------------------------------------------------------
def _json(message: Message) -> bytes:
    return json_format.MessageToJson(message, ensure_ascii=False).encode()


def _frame(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


def _frames(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        end = 5 + int.from_bytes(body[1:5], "big")
        assert len(body) >= end
        found.append((body[0], body[5:end]))
        body = body[end:]
    return found


def _unpadded(body: bytes) -> bytes:
    """Each message is encoded by itself."""
    return b"".join(b64decode(body[start : start + 4]) for start in range(0, len(body), 4))
