"""The call that is being served, for whoever serves it."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

from grpc.aio import ServicerContext

Context: TypeAlias = ServicerContext[Any, Any]


@dataclass(slots=True)
class Call:
    """Where a call came from and how it is told apart. What a handler learns for the audit event it adds by `note`.

    `peer` is the address that counts (see `ClientAddresses`), without a port.
    """

    method: str
    request_id: str
    peer: str
    user_agent: str
    account_id: UUID | None = field(default=None)
    target: str | None = field(default=None)
    stated_reason: str | None = field(default=None)

    def note(
        self, *, account_id: UUID | None = None, target: UUID | None = None, stated_reason: str | None = None
    ) -> None:
        """Whose account, and which resource, the audit event of this call is about, and why whoever called says they did."""
        self.account_id = account_id or self.account_id
        self.target = str(target) if target else self.target
        self.stated_reason = stated_reason or self.stated_reason


_current: ContextVar[Call] = ContextVar("call")


def call() -> Call:
    """The call that is being served; there is none outside the pipeline."""
    return _current.get()


def set_call(current: Call) -> None:
    _current.set(current)
