"""The errors that handlers and interceptors raise: a reason of the contract, never a status."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

from accord.errors.v1.errors_pb2 import Reason
from accord_db.engine.errors import AlreadyExists
from accord_rpc.reasons import AnyReason, reason_name

T = TypeVar("T")


class FieldViolation(NamedTuple):
    """A problem of one field: its path (`task.title`), and what it must be."""

    field: str
    description: str


class RpcError(Exception):
    """The call fails for a reason of the contract.

    The caller receives `metadata` unchanged: ids and limits, never a secret and nothing the caller may not see.
    `retry_after` is in seconds.
    """

    def __init__(
        self,
        reason: AnyReason,
        *,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
        quota: str | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(reason_name(reason))
        self.reason = reason
        self.violations = violations
        self.retry_after = retry_after
        self.quota = quota
        self.metadata = metadata


def invalid(*violations: FieldViolation) -> RpcError:
    """INVALID_MESSAGE, for rules that the contract cannot state."""
    return RpcError(Reason.REASON_INVALID_MESSAGE, violations=violations)


def found(result: T | None, not_found: AnyReason, **ids: str) -> T:
    """The result of a query. Raises `not_found`, with the ids in its metadata, for None and for a count of 0."""
    if not result:
        raise _about(not_found, ids)
    return result


def missing_or_stale(current: object | None, not_found: AnyReason, **ids: str) -> RpcError:
    """Why a change found no row: ETAG_MISMATCH if the row exists (`current`), else `not_found`."""
    return _about(not_found if current is None else Reason.REASON_ETAG_MISMATCH, ids)


def _about(reason: AnyReason, ids: dict[str, str]) -> RpcError:
    error = RpcError(reason)
    error.metadata = ids
    return error


@asynccontextmanager
async def taken(reasons: Mapping[str, AnyReason]) -> AsyncIterator[None]:
    """Raises the reason of the unique index that the block violates; `reasons` has them by the index's name."""
    try:
        yield
    except AlreadyExists as error:
        if (reason := reasons.get(error.constraint or "")) is None:
            raise
        raise RpcError(reason) from None
