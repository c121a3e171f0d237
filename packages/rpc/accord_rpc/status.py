"""Maps exceptions to the status that the caller gets. Nothing else in Accord makes a status."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

import accord_db.engine.errors as database
from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.errors import FieldViolation, RpcError
from accord_rpc.reasons import AnyReason, answer_of, reason_name

DOMAIN: Final = "accord"
STATUS_HEADER: Final = "grpc-status-details-bin"
# Clients drop a call whose trailers exceed about 8 KB; base64 adds a third.
_MOST_DETAIL_BYTES: Final = 4_000

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """The status of a failed call. `error_id` is set for internal errors, and is in the log line too."""

    reason: AnyReason
    code: grpc.StatusCode
    message: str
    details: bytes
    error_id: str | None = None

    @property
    def name(self) -> str:
        return reason_name(self.reason)

    @property
    def undecided(self) -> bool:
        return answer_of(self.reason).undecided


def status_of(raised: BaseException, declared: frozenset[AnyReason]) -> ErrorStatus:
    """The status for an exception. A reason that the method does not declare becomes INTERNAL."""
    error = raised if isinstance(raised, RpcError) else _of_database(raised)
    if error is None or not (error.reason in declared or answer_of(error.reason).pipeline):
        error_id = uuid4().hex
        return _status(RpcError(Reason.REASON_INTERNAL, error_id=error_id), error_id)
    return _status(error)


def _of_database(raised: BaseException) -> RpcError | None:
    """The error for an exception of the database; None if it is internal."""
    match raised:
        case database.Unavailable():
            return RpcError(Reason.REASON_UNAVAILABLE, retry_after=raised.retry_after)
        case database.Conflict():
            return RpcError(Reason.REASON_CONFLICT)
        case database.AlreadyExists():
            return RpcError(Reason.REASON_ALREADY_EXISTS)
        case database.ForeignKeyMissing():
            return RpcError(Reason.REASON_REFERENCE_MISSING)
        case database.InvalidValue():
            return RpcError(Reason.REASON_INVALID_MESSAGE)
        case database.StatementCancelled():
            return RpcError(Reason.REASON_DEADLINE_EXCEEDED)
        case _:
            return None


def _status(error: RpcError, error_id: str | None = None) -> ErrorStatus:
    answer = answer_of(error.reason)
    status = Status(code=answer.code, message=answer.message)
    info = ErrorInfo(reason=reason_name(error.reason), domain=DOMAIN, metadata=error.metadata)
    for detail in (info, *_details(error)):
        status.details.append(_packed(detail))
    return ErrorStatus(
        error.reason,
        _CODES[answer.code],
        answer.message,
        status.SerializeToString(),
        error_id,
    )


def _details(error: RpcError) -> Iterable[Message]:
    if error.violations:
        yield _bad_request(error.violations)
    if error.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(max(1, round(error.retry_after * 1000)))
        yield RetryInfo(retry_delay=delay)
    if error.quota is not None:
        yield QuotaFailure(violations=[QuotaFailure.Violation(subject=error.quota, description="Too many calls.")])


def _bad_request(violations: Iterable[FieldViolation]) -> BadRequest:
    """All the violations that fit; the last entry says how many did not."""
    bad, left_out = BadRequest(), 0
    for violation in violations:
        entry = BadRequest.FieldViolation(field=violation.field[:200], description=violation.description[:300])
        if left_out or bad.ByteSize() + entry.ByteSize() > _MOST_DETAIL_BYTES - 700:
            left_out += 1
        else:
            bad.field_violations.append(entry)
    if left_out:
        bad.field_violations.add(description=f"and {left_out} more")
    return bad


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
