"""The one table of HTTP statuses, and the headers and bodies of errors."""

from base64 import b64decode
from typing import Any, cast

import orjson
import pytest
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from accord_rpc.protocols.http_errors import connect_error, hints, http_status, rest_error


def status(code: "Code.ValueType", *details: Message) -> Status:
    status = Status(code=code, message="No.")
    for detail in details:
        status.details.add().Pack(detail)
    return status


def test_every_code_has_an_http_status() -> None:
    assert {name: http_status(status(number)) for name, number in Code.items()} == {
        "OK": 200,
        "CANCELLED": 499,
        "UNKNOWN": 500,
        "INVALID_ARGUMENT": 400,
        "DEADLINE_EXCEEDED": 504,
        "NOT_FOUND": 404,
        "ALREADY_EXISTS": 409,
        "PERMISSION_DENIED": 403,
        "UNAUTHENTICATED": 401,
        "RESOURCE_EXHAUSTED": 429,
        "FAILED_PRECONDITION": 400,
        "ABORTED": 409,
        "OUT_OF_RANGE": 400,
        "UNIMPLEMENTED": 501,
        "INTERNAL": 500,
        "UNAVAILABLE": 503,
        "DATA_LOSS": 500,
    }


def test_a_mismatched_etag_is_a_failed_precondition_only_after_if_match() -> None:
    mismatch = status(Code.ABORTED, ErrorInfo(reason="ETAG_MISMATCH", domain="accord"))
    assert http_status(mismatch) == 409
    assert http_status(mismatch, conditional=True) == 412
    assert http_status(status(Code.ABORTED, ErrorInfo(reason="CONFLICT")), conditional=True) == 409


@pytest.mark.parametrize(("milliseconds", "seconds"), [(1, b"1"), (1000, b"1"), (1001, b"2"), (59_900, b"60")])
def test_retry_after_is_rounded_up(milliseconds: int, seconds: bytes) -> None:
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(milliseconds)
    assert list(hints(status(Code.UNAVAILABLE, retry))) == [(b"retry-after", seconds)]


def test_an_unauthenticated_caller_learns_the_scheme() -> None:
    assert list(hints(status(Code.UNAUTHENTICATED))) == [(b"www-authenticate", b"Bearer")]


def test_rest_returns_a_status_as_json() -> None:
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="title", description="must be text")])
    assert orjson.loads(rest_error(status(Code.INVALID_ARGUMENT, bad))) == {
        "code": 3,
        "message": "No.",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [
                    {"field": "title", "description": "must be text", "reason": ""},
                ],
            }
        ],
    }


def test_connect_returns_details_as_unpadded_base64_and_readable() -> None:
    info = ErrorInfo(reason="TASK_NOT_FOUND", domain="accord", metadata={"task_id": "7"})
    error = connect_error(status(Code.CANCELLED, info))
    assert error["code"] == "canceled"
    [detail] = cast(list[dict[str, Any]], error["details"])
    assert detail["type"] == "google.rpc.ErrorInfo"
    assert detail["debug"] == {"reason": "TASK_NOT_FOUND", "domain": "accord", "metadata": {"task_id": "7"}}
    assert "=" not in detail["value"]
    assert ErrorInfo.FromString(b64decode(detail["value"] + "===")) == info
