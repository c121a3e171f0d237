"""Errors as HTTP carries them: one table of status codes, the headers, and the bodies of REST and of Connect."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.pipeline.telemetry import REQUEST_ID_HEADER, request_id
from accord_rpc.protocols.context import ProtocolContext
from accord_rpc.protocols.dispatch import header
from accord_rpc.protocols.json_codec import json_writer, message_writer
from accord_rpc.protocols.json_codec.writer import to_json
from accord_rpc.protocols.refused import Refused
from accord_rpc.reasons import reason_name
from accord_rpc.server.exchange import Exchange, Headers
from accord_rpc.status import STATUS_HEADER

SAFE_HEADERS: Final[Headers] = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""Of every response to a call."""
JSON_HEAD: Final[Headers] = ((b"content-type", b"application/json"), *SAFE_HEADERS)
PRECONDITION_FAILED: Final = 412
_HTTP: Final[dict[int, int]] = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
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
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
_CONNECT: Final = {number: name.lower() for name, number in Code.items()} | {Code.CANCELLED: "canceled"}
_ETAG_MISMATCH: Final = reason_name(Reason.REASON_ETAG_MISMATCH)
_REQUEST_ID: Final = REQUEST_ID_HEADER.encode()
_write_status = json_writer(Status)
_write_any = message_writer(AnyMessage.DESCRIPTOR)


def ended_with(context: ProtocolContext) -> Status:
    """The status of a call that failed, with its details."""
    for name, value in context.trailers:
        if name == STATUS_HEADER and isinstance(value, bytes):
            return Status.FromString(value)
    return Status(code=context.status or Code.UNKNOWN, message=context.message)


def http_status(status: Status, *, conditional: bool = False) -> int:
    """`conditional`: the request has If-Match, so that a mismatch of the etag is a failed precondition."""
    if conditional and any(_reason(detail) == _ETAG_MISMATCH for detail in status.details):
        return PRECONDITION_FAILED
    return _HTTP.get(status.code, 500)


def hints(status: Status) -> Iterator[tuple[bytes, bytes]]:
    """Headers that clients of HTTP act on without reading the body."""
    if status.code == Code.UNAUTHENTICATED:
        yield b"www-authenticate", b"Bearer"
    for detail in status.details:
        retry = RetryInfo()
        if detail.Unpack(retry):
            yield b"retry-after", b"%d" % max(1, -(-retry.retry_delay.ToMilliseconds() // 1000))


def rest_error(status: Status) -> bytes:
    return _write_status(status.SerializeToString())


def connect_error(status: Status) -> dict[str, object]:
    """connectrpc.com/docs/protocol#error-end-stream"""
    error: dict[str, object] = {"code": _CONNECT.get(status.code, "unknown"), "message": status.message}
    if status.details:
        error["details"] = [_connect_detail(detail) for detail in status.details]
    return error


def refuse(exchange: Exchange, http: int, body: bytes, *headers: tuple[bytes, bytes]) -> Refused:
    """For a request that is a call of no method, and so does not enter the pipeline."""
    own = own_request_id(exchange)
    exchange.respond(http, (*JSON_HEAD, own, *headers), body)
    return Refused(http, own[1].decode())


def own_request_id(exchange: Exchange) -> tuple[bytes, bytes]:
    """The header for a response that the pipeline does not make."""
    return _REQUEST_ID, request_id(header(exchange, _REQUEST_ID).decode("latin-1")).encode()


def refuse_connect(exchange: Exchange, http: int, status: Status, *headers: tuple[bytes, bytes]) -> Refused:
    return refuse(exchange, http, to_json(connect_error(status)), *headers)


def _connect_detail(detail: AnyMessage) -> dict[str, object]:
    """`debug` is for people who read the response; clients use the other two."""
    written: dict[str, Any] = {
        "type": detail.type_url.rpartition("/")[2],
        "value": b64encode(detail.value).rstrip(b"=").decode(),
    }
    if isinstance(debug := _write_any(detail), dict):
        written["debug"] = {key: value for key, value in debug.items() if key != "@type"}
    return written


def _reason(detail: AnyMessage) -> str:
    info = ErrorInfo()
    return info.reason if detail.Unpack(info) else ""
