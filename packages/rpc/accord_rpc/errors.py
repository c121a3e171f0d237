"""What a handler or an interceptor raises when the answer is no."""

from collections.abc import Sequence
from typing import NamedTuple

from accord.errors.v1.errors_pb2 import Reason


class FieldViolation(NamedTuple):
    """One fault of a request: the path of the field (`task.title`), and what the field must be."""

    field: str
    description: str


class RpcError(Exception):
    """The call is refused for a reason of the contract.

    `metadata` goes to the caller as it is: ids and limits, never a secret and never what the caller may not see.
    `retry_after` is in seconds.
    """

    def __init__(
        self,
        reason: Reason.ValueType,
        *,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
        quota: str | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(Reason.Name(reason))
        self.reason = reason
        self.violations = violations
        self.retry_after = retry_after
        self.quota = quota
        self.metadata = metadata


def invalid(*violations: FieldViolation) -> RpcError:
    """The refusal of a request whose fields break a rule that the contract cannot state."""
    return RpcError(Reason.REASON_INVALID_MESSAGE, violations=violations)
