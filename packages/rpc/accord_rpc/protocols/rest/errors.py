"""Errors as REST sends them: `google.rpc.Status` as JSON, under the HTTP status of its code."""

from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.errors import FieldViolation, invalid
from accord_rpc.protocols.context import ProtocolContext
from accord_rpc.protocols.http_errors import JSON_HEAD, ended_with, hints, http_status, refuse, rest_error
from accord_rpc.protocols.refused import Refused
from accord_rpc.reasons import reason_name
from accord_rpc.server.exchange import Exchange, Headers
from accord_rpc.status import DOMAIN, status_of


@dataclass(slots=True)
class ErrorResponse:
    status: int
    headers: Headers
    body: bytes

    @classmethod
    def of(cls, context: ProtocolContext, *, conditional: bool) -> "ErrorResponse":
        """The status with which a call ended. `conditional`: the request named a version of the resource."""
        status = ended_with(context)
        return cls(http_status(status, conditional=conditional), tuple(hints(status)), rest_error(status))

    def send(self, exchange: Exchange, *headers: tuple[bytes, bytes]) -> None:
        exchange.respond(self.status, (*JSON_HEAD, *self.headers, *headers), self.body)


def no_such_path(exchange: Exchange) -> Refused:
    return refuse(exchange, 404, _unknown(Code.NOT_FOUND, "There is no such path."))


def no_such_verb(exchange: Exchange, allowed: bytes) -> Refused:
    message = "The path has no such HTTP method. The header Allow lists those it has."
    return refuse(exchange, 405, _unknown(Code.UNIMPLEMENTED, message), (b"allow", allowed))


def unreadable_path(exchange: Exchange, problem: str) -> Refused:
    failed = status_of(invalid(FieldViolation("path", problem)), frozenset())
    return refuse(exchange, 400, rest_error(Status.FromString(failed.details)))


def _unknown(code: "Code.ValueType", message: str) -> bytes:
    detail = AnyMessage()
    detail.Pack(ErrorInfo(reason=reason_name(Reason.REASON_METHOD_UNKNOWN), domain=DOMAIN))
    return rest_error(Status(code=code, message=message, details=[detail]))
