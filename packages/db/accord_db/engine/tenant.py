"""Whose rows the work of this task may touch: row-level security holds every statement on a walled table to it.

Whoever lets a call in says so once; the database reads it, so that no query has to pass it on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal
from uuid import UUID

ALL: Final = b"all"
"""What statements carry that say `across_tenants`."""

NOBODY: Final = b""

_tenant: ContextVar[bytes | None] = ContextVar("tenant", default=None)


class NoTenant(LookupError):
    """A fault of ours: a walled table was asked where nobody has said in whose name."""


def set_tenant(owner_id: UUID | Literal["all"] | None) -> None:
    """For the rest of this call: an organization, or the account of whoever acts outside of one. None if it acts for
    nobody. `all` is for tests, whose own questions are about everybody."""
    _tenant.set(str(owner_id).encode() if owner_id is not None else None)


@contextmanager
def acting_for(owner_id: UUID) -> Iterator[None]:
    """Within the block the tenant is another one: of an organization that is not the active one."""
    token = _tenant.set(str(owner_id).encode())
    try:
        yield
    finally:
        _tenant.reset(token)


def tenant() -> bytes:
    found = _tenant.get()
    if found is None:
        raise NoTenant("a table of tenants was asked in a call that has none: see accord_db/engine/tenant.py")
    return found
