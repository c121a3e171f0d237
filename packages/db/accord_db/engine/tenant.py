"""The tenant of the current task: row-level security limits every statement on a tenant-bound table to its rows.

The auth interceptor sets it once per call. It is the active organization only where the method's permission was checked.
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
    """For the rest of this call: an organization or an account; None for no rows. `all` is for tests only."""
    _tenant.set(str(owner_id).encode() if owner_id is not None else None)


@contextmanager
def acting_for(owner_id: UUID) -> Iterator[None]:
    """Within the block the tenant is this one. Check first that the caller belongs to it."""
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
