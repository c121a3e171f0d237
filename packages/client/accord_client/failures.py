"""Converts the errors of gRPC to the exceptions of `accord_client.errors`."""

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from accord_client.call_failed import CallFailed, Violation
from accord_client.errors import BY_CODE, BY_REASON

DOMAIN: Final = "accord"
STATUS_HEADER: Final = "grpc-status-details-bin"

M = TypeVar("M", bound=Message)


def failure(error: grpc.RpcError, request_id: str) -> CallFailed:
    """The exception of the reason or, without one, of the status code."""
    status = _status(error.trailing_metadata())
    info = _detail(status, ErrorInfo)
    reason = info.reason if info.domain == DOMAIN else ""
    retry, quota = _detail(status, RetryInfo), _detail(status, QuotaFailure)
    kind = BY_REASON.get(reason) or BY_CODE.get(error.code(), CallFailed)
    return kind(
        error.details() or "",
        reason=reason or None,
        metadata=info.metadata,
        violations=[
            Violation(fault.field, fault.description) for fault in _detail(status, BadRequest).field_violations
        ],
        retry_after=retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None,
        quota=next((violation.subject for violation in quota.violations), None),
        request_id=request_id,
    )


def _status(trailers: Iterable[Any] | None) -> Status:
    """Empty without a readable status: a proxy can also respond."""
    for name, value in trailers or ():
        if name == STATUS_HEADER:
            try:
                return Status.FromString(value)
            except DecodeError:
                break
    return Status()


def _detail(status: Status, kind: type[M]) -> M:
    """The first detail of that type, or an empty message."""
    found = kind()
    for detail in status.details:
        try:
            if detail.Unpack(found):
                break
        except DecodeError:
            found.Clear()
    return found
