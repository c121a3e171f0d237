"""What every exception of a call has in common."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import grpc


class Violation(NamedTuple):
    """One fault of a request: the path of the field (`task.title`), and what the field must be."""

    field: str
    description: str


class CallFailed(Exception):
    """A call that did not succeed.

    `reason` is the contract's, without its prefix (`TASK_NOT_FOUND`), and empty if none was told: what fails on the way
    knows of no reasons. `retry_after` is in seconds. `quota` names whose limit was reached. `error_id` and `request_id`
    find the call in the gateway's log.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    reason: str = ""

    def __init__(
        self,
        message: str = "",
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        quota: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.quota = quota
        self.request_id = request_id
        if reason is not None:
            self.reason = reason

    @property
    def error_id(self) -> str | None:
        """Set if the fault is the server's: what to quote when asking for help."""
        return self.metadata.get("error_id")

    def __str__(self) -> str:
        what = f"{self.reason or self.code.name}: {self.message}"
        more = "; ".join(self._more())
        return f"{what} ({more})" if more else what

    def _more(self) -> Iterator[str]:
        yield from (f"{violation.field}: {violation.description}" for violation in self.violations)
        yield from (f"{name}={value}" for name, value in self.metadata.items())
        if self.request_id:
            yield f"request_id={self.request_id}"
