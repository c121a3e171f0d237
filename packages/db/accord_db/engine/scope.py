"""What the statements of a task run for: until when, for which tenant, in which transaction.

The server sets it once per call (`accord_rpc.call.Call` is a Scope); the database reads it. No query passes it on, so none can
pass a wrong one. Tasks that a call starts see the call's deadline and tenant, and have no part in its transaction.
"""

import copy
from asyncio import Task
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

if TYPE_CHECKING:
    from accord_db.engine.transaction import CallTransaction

ALL: Final = b"all"
"""The tenant of statements declared `across_tenants`."""

NO_TENANT: Final = b""


class NoTenant(LookupError):
    """A fault of the code, not of the caller: a statement on a tenant-bound table where no tenant is set."""


@dataclass(slots=True, eq=False)
class Scope:
    # On the clock of `time.monotonic`. None: no deadline.
    deadline: float | None = None
    # Row-level security limits every statement on a tenant-bound table to its rows. None: no such statement may run.
    tenant: bytes | None = None
    # The transaction of a whole call, which the handler's `Database.transaction()` joins.
    transaction: "CallTransaction | None" = None
    # The task and the database of the open `Database.transaction()` block.
    block: "tuple[Task[Any] | None, object] | None" = None


_current: ContextVar[Scope] = ContextVar("scope")


def current() -> Scope:
    """The scope of this task; outside of calls an empty one."""
    scope = _current.get(None)
    if scope is None:
        _current.set(scope := Scope())
    return scope


def enter(scope: Scope) -> None:
    """For the rest of this task and the tasks it starts."""
    _current.set(scope)


def set_deadline(at: float | None) -> None:
    """On the clock of `time.monotonic`. None: no deadline."""
    _derive().deadline = at


def remaining() -> float | None:
    """Seconds until the deadline, negative after it; None without one."""
    at = current().deadline
    return None if at is None else at - monotonic()


def set_tenant(owner_id: UUID | Literal["all"] | None) -> None:
    """An organization or an account; None for no rows. `all` is for tests only."""
    _derive().tenant = tenant_of(owner_id)


def tenant_of(owner_id: UUID | Literal["all"] | None) -> bytes | None:
    return str(owner_id).encode() if owner_id is not None else None


@contextmanager
def acting_for(owner_id: UUID) -> Iterator[None]:
    """Within the block the tenant is this one. Check first that the caller belongs to it."""
    outer = current()
    _derive().tenant = tenant_of(owner_id)
    try:
        yield
    finally:
        _current.set(outer)


def tenant() -> bytes:
    found = current().tenant
    if found is None:
        raise NoTenant("a statement on a tenant-bound table in a task without a tenant: see accord_db/engine/scope.py")
    return found


def _derive() -> Scope:
    """A copy of the scope, so that a change is seen by this task alone."""
    _current.set(scope := copy.copy(current()))
    return scope
