"""Errors as REST sends them: `google.rpc.Status` as JSON, under the HTTP status of its code."""

from dataclasses import dataclass
from typing import Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.errors import FieldViolation, invalid
from accord_rpc.pipeline.telemetry import REQUEST_ID_HEADER, request_id
from accord_rpc.protocols.context import ProtocolContext
from accord_rpc.protocols.dispatch import header
from accord_rpc.protocols.json_codec import json_writer
from accord_rpc.reasons import reason_name
from accord_rpc.server.exchange import Exchange, Headers
from accord_rpc.status import DOMAIN, STATUS_HEADER, status_of

_HEAD: Final = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
_HTTP: Final = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
_REQUEST_ID: Final = REQUEST_ID_HEADER.encode()
_write = json_writer(Status)


@dataclass(slots=True)
class ErrorResponse:
    status: int
    headers: Headers
    body: bytes

    @classmethod
    def of(cls, context: ProtocolContext, *, conditional: bool) -> "ErrorResponse":
        """The status with which a call ended. `conditional`: the request named a version of the resource."""
        packed = next((value for name, value in context.trailers if name == STATUS_HEADER), None)
        if isinstance(packed, bytes):
            status = Status.FromString(packed)
        else:
            status = Status(code=context.status or Code.UNKNOWN, message=context.message)
        return cls(
            _http_status(status, conditional=conditional), tuple(_hints(status)), _write(status.SerializeToString())
        )

    def send(self, exchange: Exchange, *headers: tuple[bytes, bytes]) -> None:
        exchange.respond(self.status, (*_HEAD, *self.headers, *headers), self.body)


def no_such_path(exchange: Exchange) -> None:
    _refuse(exchange, 404, _unknown(Code.NOT_FOUND, "There is no such path."))


def no_such_verb(exchange: Exchange, allowed: bytes) -> None:
    status = _unknown(Code.UNIMPLEMENTED, "The path has no such HTTP method. The header Allow lists those it has.")
    _refuse(exchange, 405, status, (b"allow", allowed))


def unreadable_path(exchange: Exchange, problem: str) -> None:
    failed = status_of(invalid(FieldViolation("path", problem)), frozenset())
    _refuse(exchange, 400, Status.FromString(failed.details))


def _refuse(exchange: Exchange, code: int, status: Status, *headers: tuple[bytes, bytes]) -> None:
    """For a request that is a call of no method, and so does not enter the pipeline."""
    sent = header(exchange, _REQUEST_ID).decode("latin-1")
    own = (_REQUEST_ID, request_id(sent).encode())
    ErrorResponse(code, (), _write(status.SerializeToString())).send(exchange, own, *headers)


def _unknown(code: "Code.ValueType", message: str) -> Status:
    detail = AnyMessage()
    detail.Pack(ErrorInfo(reason=reason_name(Reason.REASON_METHOD_UNKNOWN), domain=DOMAIN))
    return Status(code=code, message=message, details=[detail])


def _http_status(status: Status, *, conditional: bool) -> int:
    if conditional and any(_reason(detail) == "ETAG_MISMATCH" for detail in status.details):
        return 412
    return _HTTP.get(status.code, 500)


def _reason(detail: AnyMessage) -> str:
    info = ErrorInfo()
    return info.reason if detail.Unpack(info) else ""


def _hints(status: Status) -> Headers:
    """What clients of HTTP do without reading the body."""
    hints = [(b"www-authenticate", b"Bearer")] if status.code == Code.UNAUTHENTICATED else []
    for detail in status.details:
        retry = RetryInfo()
        if detail.Unpack(retry):
            hints.append((b"retry-after", b"%d" % max(1, -(-retry.retry_delay.ToMilliseconds() // 1000))))
    return hints
