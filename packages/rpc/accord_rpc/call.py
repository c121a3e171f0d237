"""The call that is being served."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, TypeAlias
from uuid import UUID

import grpc

from accord_db.engine.scope import Scope, current

if TYPE_CHECKING:
    from accord_rpc.caller import Caller
    from accord_rpc.pipeline.concurrency import Slot
    from accord_rpc.pipeline.durable_limits import DurableCounts

Headers: TypeAlias = Iterable[tuple[str, str | bytes]]


class Context(Protocol):
    """What stages and handlers use of a call: grpcio's `ServicerContext`, or a `ProtocolContext` of our own server."""

    async def read(self) -> object:
        """The next message, as bytes; `grpc.aio.EOF` at the end."""

    async def write(self, message: bytes, /) -> None: ...

    def invocation_metadata(self) -> Headers | None: ...

    def peer(self) -> str:
        """`ipv4:127.0.0.1:4711`, `ipv6:[::1]:4711`, `unix:`."""

    def auth_context(self) -> Mapping[str, Iterable[object]]:
        """The values are bytes; the generated stubs also allow grpcio's other server, which annotates them otherwise."""

    def time_remaining(self) -> float | None: ...

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str | bytes], ...], /) -> None: ...

    def set_code(self, code: grpc.StatusCode, /) -> None: ...

    def set_details(self, details: str, /) -> None: ...

    def code(self) -> object: ...

    async def abort(self, code: grpc.StatusCode, details: str, /) -> NoReturn:
        """Raises `grpc.aio.AbortError`."""


@dataclass(frozen=True, slots=True)
class AuditNotes:
    """What a handler adds to the audit event of its call."""

    account_id: UUID | None = None
    target: str | None = None
    stated_reason: str | None = None


_NO_NOTES: Final = AuditNotes()


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
    slot: "Slot | None" = None
    notes: AuditNotes = _NO_NOTES

    def note(
        self, *, account_id: UUID | None = None, target: UUID | None = None, stated_reason: str | None = None
    ) -> None:
        """Sets the account and the resource of the call's audit event, and the reason that the caller stated."""
        notes = self.notes
        self.notes = AuditNotes(
            account_id or notes.account_id,
            str(target) if target else notes.target,
            stated_reason or notes.stated_reason,
        )


def call() -> Call:
    """Raises LookupError outside of the pipeline."""
    scope = current()
    if not isinstance(scope, Call):
        raise LookupError("call() is only available while a call is served")
    return scope
