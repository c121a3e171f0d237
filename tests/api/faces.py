"""Calls through each face of the server, from one description: a method, a message, headers."""

import json
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast
from urllib.parse import quote, urlencode

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from accord_rpc.fields import rules_of
from accord_rpc.protocols.http_rules import WHOLE, HttpRule, field_at, http_rules, query_fields
from tests.api.web import Response, fetch

M = TypeVar("M", bound=Message)
MOST_TARGET_BYTES: Final = 8_000
NO_ID: Final = "-"
"""An empty field cannot be part of a path. Methods refuse both alike."""


@dataclass(frozen=True)
class Result(Generic[M]):
    """What a call returned. `status` is None if it succeeded."""

    messages: list[M]
    status: Status | None
    request_id: str
    retry_after: str | None
    """The header, which REST has, and Connect for calls that do not stream."""

    @property
    def message(self) -> M:
        assert self.status is None, self.status
        [message] = self.messages
        return message

    @property
    def code(self) -> str:
        return str(Code.Name(self.status.code if self.status else 0))

    @property
    def reason(self) -> str:
        return str(self._detail(ErrorInfo).reason)

    @property
    def violations(self) -> dict[str, str]:
        return {each.field: each.description for each in self._detail(BadRequest).field_violations}

    def _detail(self, kind: type[Any]) -> Any:
        detail = kind()
        assert self.status is not None
        assert [each for each in self.status.details if each.Unpack(detail)], self.status
        return detail


class Face(ABC):
    """`streams`: the method streams requests or responses, which Connect sends in another form."""

    name: str

    async def call(
        self,
        address: str,
        path: str,
        request: Message,
        response: type[M],
        headers: Mapping[str, str],
        *,
        streams: bool = False,
    ) -> Result[M]:
        sent = await self.send(address, path, request, headers, streams=streams)
        request_id = sent.header("x-request-id")
        assert request_id
        assert sent.header("cache-control") == "no-store"
        assert sent.header("x-content-type-options") == "nosniff"
        messages, status = self.read(sent, response, streams=streams)
        return Result(messages, status, request_id, sent.header("retry-after"))

    def can_express(self, path: str, request: Message) -> bool:
        """Whether the face has a form for a request."""
        return True

    @abstractmethod
    async def send(
        self, address: str, path: str, request: Message, headers: Mapping[str, str], *, streams: bool
    ) -> Response: ...

    @abstractmethod
    def read(self, sent: Response, response: type[M], *, streams: bool) -> tuple[list[M], Status | None]: ...


class Connect(Face):
    def __init__(self, encoding: str) -> None:
        self.name = f"connect {encoding}"
        self._encoding = encoding

    async def send(
        self, address: str, path: str, request: Message, headers: Mapping[str, str], *, streams: bool
    ) -> Response:
        body = self._written(request)
        kind = f"application/{'connect+' if streams else ''}{self._encoding}"
        own = {**headers, "content-type": kind, "connect-protocol-version": "1"}
        return await fetch(address, "POST", path, _frame(body) if streams else body, own)

    def _written(self, message: Message) -> bytes:
        if self._encoding == "json":
            return json_format.MessageToJson(message, ensure_ascii=False).encode()
        return message.SerializeToString()

    def _parsed(self, body: bytes, kind: type[M]) -> M:
        return json_format.Parse(body, kind()) if self._encoding == "json" else kind.FromString(body)

    def read(self, sent: Response, response: type[M], *, streams: bool) -> tuple[list[M], Status | None]:
        if not streams:
            return ([self._parsed(sent.body, response)], None) if sent.status == 200 else ([], _status(sent.json))
        assert sent.status == 200
        *messages, (flags, last) = _frames(sent.body)
        assert flags == 2
        end = json.loads(last)
        status = _status(end["error"]) if "error" in end else None
        return [self._parsed(body, response) for _, body in messages], status


class ConnectGet(Connect):
    """For methods without side effects."""

    def __init__(self) -> None:
        super().__init__("json")
        self.name = "connect get"

    async def send(
        self, address: str, path: str, request: Message, headers: Mapping[str, str], *, streams: bool
    ) -> Response:
        assert not streams
        message = urlsafe_b64encode(self._written(request)).decode().rstrip("=")
        return await fetch(address, "GET", f"{path}?connect=v1&encoding=json&base64=1&message={message}", None, headers)


class GrpcWeb(Face):
    def __init__(self, *, text: bool) -> None:
        self.name = "grpc-web-text" if text else "grpc-web"
        self._text = text

    async def send(
        self, address: str, path: str, request: Message, headers: Mapping[str, str], *, streams: bool
    ) -> Response:
        body = _frame(request.SerializeToString())
        own = {**headers, "content-type": f"application/{self.name}", "x-grpc-web": "1"}
        return await fetch(address, "POST", path, b64encode(body) if self._text else body, own)

    def read(self, sent: Response, response: type[M], *, streams: bool) -> tuple[list[M], Status | None]:
        assert sent.status == 200
        if not sent.body:
            return [], _grpc_status(dict(sent.headers))
        *messages, (flags, last) = _frames(_unpadded(sent.body) if self._text else sent.body)
        assert flags == 0x80
        trailers = dict(line.split(": ", 1) for line in last.decode().splitlines())
        return [response.FromString(body) for _, body in messages], _grpc_status(trailers)


class Rest(Face):
    """By the first route of the method that can express the request."""

    name = "rest"

    def can_express(self, path: str, request: Message) -> bool:
        return not _lacks_optional_id(self._route(path, request)[1], request)

    def _route(self, path: str, request: Message) -> tuple[str, HttpRule]:
        method = request.DESCRIPTOR.file.pool.FindMethodByName(path[1:].replace("/", "."))
        targets = [(_target(rule, request), rule) for rule in http_rules(cast(MethodDescriptor, method))]
        return next((each for each in targets if _fits(each[0])), targets[0])

    async def send(
        self, address: str, path: str, request: Message, headers: Mapping[str, str], *, streams: bool
    ) -> Response:
        target, rule = self._route(path, request)
        return await fetch(address, rule.verb, target, _rest_body(rule, request), headers)

    def read(self, sent: Response, response: type[M], *, streams: bool) -> tuple[list[M], Status | None]:
        if sent.status != 200:
            return [], json_format.Parse(sent.body, Status())
        if not streams:
            return [json_format.Parse(sent.body, response())], None
        documents = [json.loads(line) for line in sent.body.splitlines() if line]
        error = documents.pop()["error"] if documents and "error" in documents[-1] else None
        messages = [json_format.ParseDict(document, response()) for document in documents]
        return messages, json_format.ParseDict(error, Status()) if error else None


FACES: Final = (Connect("json"), Connect("proto"), GrpcWeb(text=False), GrpcWeb(text=True), Rest())


def _fits(target: str) -> bool:
    return len(target) < MOST_TARGET_BYTES and NO_ID not in target.partition("?")[0].split("/")


def _lacks_optional_id(rule: HttpRule, request: Message) -> bool:
    """Whether the path has a field that is not set, and that the method does not require."""
    fields = [field_at(rule.method.input_type, variable.field) or () for variable in rule.template.variables]
    return any(not any(_texts(request, path)) and len(path) == 1 and rules_of(path[0]).ignore for path in fields)


def _target(rule: HttpRule, request: Message) -> str:
    segments = list(rule.template.segments)
    for variable in rule.template.variables:
        [text] = _texts(request, field_at(rule.method.input_type, variable.field) or ())
        segments[variable.start : variable.stop] = [quote(text, safe="") or NO_ID]
    pairs = [(leaf.json_path, text) for leaf in query_fields(rule) for text in _texts(request, leaf.fields)]
    verb = f":{rule.template.verb}" if rule.template.verb else ""
    return f"/{'/'.join(segments)}{verb}" + (f"?{urlencode(pairs)}" if pairs else "")


def _texts(message: Any, fields: Sequence[FieldDescriptor]) -> list[str]:
    """The values of a field as a URL has them; none if it is not set, but the path needs one."""
    *way, last = fields
    for field in way:
        message = getattr(message, field.name)
    written = json_format.MessageToDict(message, always_print_fields_with_no_presence=not way)
    value = written.get(last.json_name, "" if way else None)
    if value is None or (last.is_repeated and not value):
        return []
    return [
        json.dumps(each) if isinstance(each, bool) else str(each) for each in (value if last.is_repeated else [value])
    ]


def _rest_body(rule: HttpRule, request: Any) -> bytes | None:
    if not rule.body:
        return None
    if rule.body == WHOLE:
        return json_format.MessageToJson(request, ensure_ascii=False).encode()
    return json_format.MessageToJson(getattr(request, rule.body), ensure_ascii=False).encode()


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


def _status(error: Mapping[str, Any]) -> Status:
    code = {"canceled": "CANCELLED"}.get(error["code"], error["code"].upper())
    status = Status(code=Code.Value(code), message=error["message"])
    for detail in error.get("details", ()):
        assert "/" not in detail["type"]
        status.details.add(
            type_url=f"type.googleapis.com/{detail['type']}",
            value=b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4)),
        )
    return status


def _grpc_status(trailers: Mapping[str, str]) -> Status | None:
    if trailers["grpc-status"] == "0":
        return None
    details = trailers["grpc-status-details-bin"]
    status = Status.FromString(b64decode(details + "=" * (-len(details) % 4)))
    assert str(status.code) == trailers["grpc-status"]
    return status
