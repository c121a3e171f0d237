"""The call that is being served."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from grpc.aio import ServicerContext

from accord_db.engine.scope import Scope, current

if TYPE_CHECKING:
    from accord_rpc.caller import Caller
    from accord_rpc.pipeline.durable_limits import DurableCounts

Context: TypeAlias = ServicerContext[Any, Any]
Headers: TypeAlias = Iterable[tuple[str, str | bytes]]


@dataclass(slots=True)
class AuditNotes:
    """What a handler adds to the audit event of its call."""

    account_id: UUID | None = None
    target: str | None = None
    stated_reason: str | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Call(Scope):
    """One call: where it came from, who makes it, and the scope of its statements.

    `peer` is the client's address without a port (see `ClientAddresses`). `headers` may repeat a name."""

    method: str
    request_id: str
    peer: str
    user_agent: str
    headers: Headers = ()
    caller: "Caller | None" = None
    durable_counts: "DurableCounts | None" = None
    notes: AuditNotes = field(default_factory=AuditNotes)

    def note(
        self, *, account_id: UUID | None = None, target: UUID | None = None, stated_reason: str | None = None
    ) -> None:
        """Sets the account and the resource of the call's audit event, and the reason that the caller stated."""
        notes = self.notes
        notes.account_id = account_id or notes.account_id
        notes.target = str(target) if target else notes.target
        notes.stated_reason = stated_reason or notes.stated_reason


def call() -> Call:
    """Raises LookupError outside of the pipeline."""
    scope = current()
    if not isinstance(scope, Call):
        raise LookupError("call() is only available while a call is served")
    return scope
