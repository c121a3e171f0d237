"""The base class of the exceptions that a call raises."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import grpc


class Violation(NamedTuple):
    """One fault of a request: the path of the field (`task.title`) and its rule."""

    field: str
    description: str


class CallFailed(Exception):
    """A call that did not succeed.

    `reason` is the contract's, without its prefix (`TASK_NOT_FOUND`). It is empty if the call failed before it reached the
    gateway. `retry_after` is in seconds. `quota` names the exceeded limit. `error_id` and `request_id` identify the call in
    the gateway's log.
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
        """Set if the server has a fault. Quote it when you report the fault."""
        return self.metadata.get("error_id")

    def __str__(self) -> str:
        text = f"{self.reason or self.code.name}: {self.message}"
        details = "; ".join(self._details())
        return f"{text} ({details})" if details else text

    def _details(self) -> Iterator[str]:
        yield from (f"{violation.field}: {violation.description}" for violation in self.violations)
        yield from (f"{name}={value}" for name, value in self.metadata.items())
        if self.request_id:
            yield f"request_id={self.request_id}"
