"""Turns what was raised into what the caller is told. Nothing else in Accord makes a status."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final
from uuid import uuid4

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

import accord_db.engine.errors as database
from accord.errors.v1 import errors_pb2
from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.errors import FieldViolation, RpcError

DOMAIN: Final = "accord"
STATUS_HEADER: Final = "grpc-status-details-bin"
# Clients drop a call whose trailers pass about 8 KB; base64 adds a third to what we send.
_MOST_DETAIL_BYTES: Final = 4_000

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """A refusal as it goes over the wire. `error_id` is set if the fault is ours, and is in the log too."""

    reason: Reason.ValueType
    code: grpc.StatusCode
    message: str
    details: bytes
    error_id: str | None = None

    @property
    def name(self) -> str:
        return reason_name(self.reason)

    @property
    def undecided(self) -> bool:
        return _answer(self.reason).undecided


def failure(raised: BaseException, declared: frozenset[Reason.ValueType]) -> ErrorStatus:
    """What the caller is told of an exception. A reason the method does not declare is a fault of ours."""
    refused = raised if isinstance(raised, RpcError) else _refused(raised)
    if refused is None or not (refused.reason in declared or _answer(refused.reason).pipeline):
        error_id = uuid4().hex
        return _failure(RpcError(Reason.REASON_INTERNAL, error_id=error_id), error_id)
    return _failure(refused)


def _refused(raised: BaseException) -> RpcError | None:
    """The refusal that a fault of the database amounts to; None if it is nobody's business but ours."""
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


def _failure(refused: RpcError, error_id: str | None = None) -> ErrorStatus:
    answer = _answer(refused.reason)
    status = Status(code=answer.code, message=answer.message)
    info = ErrorInfo(reason=reason_name(refused.reason), domain=DOMAIN, metadata=refused.metadata)
    for detail in (info, *_details(refused)):
        status.details.append(_packed(detail))
    return ErrorStatus(
        refused.reason,
        _CODES[answer.code],
        answer.message,
        status.SerializeToString(),
        error_id,
    )


def _details(refused: RpcError) -> Iterable[Message]:
    if refused.violations:
        yield _bad_request(refused.violations)
    if refused.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(max(1, round(refused.retry_after * 1000)))
        yield RetryInfo(retry_delay=delay)
    if refused.quota is not None:
        yield QuotaFailure(violations=[QuotaFailure.Violation(subject=refused.quota, description="Too many calls.")])


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


@cache
def _answer(reason: Reason.ValueType) -> errors_pb2.Answer:
    value = Reason.DESCRIPTOR.values_by_number[reason]
    return value.GetOptions().Extensions[errors_pb2.answer]


@cache
def reason_name(reason: Reason.ValueType) -> str:
    """`TASK_NOT_FOUND` for `REASON_TASK_NOT_FOUND`: the prefix is there for protobuf's sake."""
    return Reason.Name(reason).removeprefix("REASON_")


def reason_faults() -> list[str]:
    """A sentence for each reason of the contract that does not say how it is answered."""
    return [
        f"{value.name}: declares no status code or no message (option accord.errors.v1.answer)"
        for value in Reason.DESCRIPTOR.values
        if value.number and not (_answer(value.number).code and _answer(value.number).message)
    ]
