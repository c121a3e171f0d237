"""The scope of a task's statements: deadline, tenant and transaction.

The server sets it once per call (`accord_rpc.call.Call` is a Scope), and the database reads it. Queries do not pass it, so none
can pass a wrong one. Tasks that a call starts share its deadline and tenant, but not its transaction.
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
    """A statement on a tenant-bound table where no tenant is set: a bug, not an error of the caller."""


@dataclass(slots=True, eq=False)
class Scope:
    # On the clock of `time.monotonic`. None: no deadline.
    deadline: float | None = None
    # Row-level security limits statements on tenant-bound tables to its rows. None: such statements raise NoTenant.
    tenant: bytes | None = None
    # The transaction of a whole call, which the handler's `Database.transaction()` joins.
    transaction: "CallTransaction | None" = None
    # The task and the database of the open `Database.transaction()` block.
    block: "tuple[Task[Any] | None, object] | None" = None


_current: ContextVar[Scope] = ContextVar("scope")


def current() -> Scope:
    """The scope of this task; an empty one outside of calls."""
    scope = _current.get(None)
    if scope is None:
        _current.set(scope := Scope())
    return scope


def enter(scope: Scope) -> None:
    """Sets the scope of this task, and of tasks that it starts from now on."""
    _current.set(scope)


def set_deadline(at: float | None) -> None:
    """On the clock of `time.monotonic`. None: no deadline."""
    _derive().deadline = at


def remaining() -> float | None:
    """Seconds until the deadline, negative after it; None without one."""
    at = current().deadline
    return None if at is None else at - monotonic()


def set_tenant(owner_id: UUID | Literal["all"] | None) -> None:
    """The id of an organization or account; None: no tenant. `all` is for tests only."""
    _derive().tenant = tenant_of(owner_id)


def tenant_of(owner_id: UUID | Literal["all"] | None) -> bytes | None:
    return str(owner_id).encode() if owner_id is not None else None


@contextmanager
def acting_for(owner_id: UUID) -> Iterator[None]:
    """Sets the tenant within the block. Check first that the caller belongs to it."""
    outer = current()
    _derive().tenant = tenant_of(owner_id)
    try:
        yield
    finally:
        _current.set(outer)


def tenant() -> bytes:
    """Raises NoTenant."""
    value = current().tenant
    if value is None:
        raise NoTenant("a statement on a tenant-bound table in a task without a tenant: see accord_db/engine/scope.py")
    return value


def _derive() -> Scope:
    """A copy, so that the change applies only to this task."""
    _current.set(scope := copy.copy(current()))
    return scope
