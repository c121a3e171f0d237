"""What people may do in an organization, and how that is changed: one change at a time, told to all who remember it, and
by nobody who could not do as much."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.sessions import Sessions
from accord_db.engine.database import Database, Executor, Transaction, opened
from accord_db.engine.scope import acting_for
from accord_db.queries import members, memberships, organizations
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.permissions import AnyPermission, held

Permissions = frozenset[AnyPermission]


@asynccontextmanager
async def changing(
    db: Database | Transaction,
    sessions: Sessions,
    organization_id: UUID,
    *,
    permission: AnyPermission | None = None,
    show_deleted: bool = False,
) -> AsyncIterator[Transaction]:
    """A transaction in which nobody else changes who belongs to the organization and what they may do. What it changes
    holds from the next call on. Whoever needs the lock of an account too takes that before, in a transaction around.

    With `permission` the caller must hold it still: the call was let in before the lock was there, and whoever had it
    then may have taken it away."""
    try:
        # It may be another than the active one: whoever leaves it says which.
        with acting_for(organization_id):
            async with opened(db) as tx:
                await _lock(tx, organization_id, show_deleted=show_deleted)
                if permission:
                    await require_held(tx, organization_id, [permission])
                await organizations.notify_changed(tx, organization_id=organization_id)
                yield tx
    finally:
        # Also when we were cancelled or cut off while it was committed.
        sessions.forget(organization_id)


async def require_member(db: Executor, organization_id: UUID) -> None:
    """For whoever names an organization, before it is locked: no stranger is to wait for it, which tells that there is one,
    or to have others wait. Whether they belong to it still is asked again under the lock."""
    with acting_for(organization_id):
        me = await members.get_member(db, organization_id=organization_id, account_id=caller().account_id)
    if me is None:
        raise organization_not_found(organization_id)


async def held_now(tx: Executor, organization_id: UUID, account_id: UUID) -> Permissions:
    """What the account may do there, by the database and not by what is remembered; nothing if it is no member."""
    now = await memberships.get_membership(tx, organization_id=organization_id, account_id=account_id)
    return held(now.role, now.permissions) if now is not None else frozenset()


async def given_by(tx: Executor, organization_id: UUID, role: str | None, role_ids: Sequence[UUID]) -> Permissions:
    """What the built-in role and those of the organization's own permit together. Refused with ROLE_NOT_FOUND if it has no
    such role."""
    roles = await memberships.get_permissions_of_roles(tx, organization_id=organization_id, role_ids=role_ids)
    for role_id in role_ids:
        if role_id not in roles:
            raise RpcError(Reason.REASON_ROLE_NOT_FOUND, role_id=str(role_id))
    return held(role, [name for names in roles.values() for name in names])


async def require_held(tx: Executor, organization_id: UUID, permissions: Iterable[AnyPermission]) -> None:
    """Nobody gives or takes what they do not hold: `permissions` is all that who or what is changed could do before, and
    all that it can do after."""
    if not await held_now(tx, organization_id, caller().account_id) >= frozenset(permissions):
        raise RpcError(Reason.REASON_PERMISSION_DENIED)


async def is_owner(tx: Executor, organization_id: UUID, account_id: UUID) -> bool:
    now = await memberships.get_membership(tx, organization_id=organization_id, account_id=account_id)
    return now is not None and now.role == "owner"


async def require_owner(tx: Executor, organization_id: UUID, *roles: str | None) -> None:
    """Owners are made, changed and removed by owners alone, if the built-in `roles` that somebody has before or after
    include theirs. Roles of the organization's own may permit all that there is, and make nobody an owner."""
    if "owner" in roles and not await is_owner(tx, organization_id, caller().account_id):
        raise RpcError(Reason.REASON_PERMISSION_DENIED)


async def leave_all(tx: Transaction, sessions: Sessions, account_id: UUID) -> None:
    """Ends all memberships of an account that the transaction has locked. Refused with LAST_OWNER if an organization would
    have no owner then."""
    left = await members.lock_organizations_of_account(tx, account_id=account_id)
    try:
        owned = await members.get_organization_owned_alone(tx, account_id=account_id)
        if owned is not None:
            raise last_owner(owned)
        await members.delete_members_of_account(tx, account_id=account_id)
        for organization_id in left:
            await organizations.notify_changed(tx, organization_id=organization_id)
    finally:
        for organization_id in left:
            sessions.forget(organization_id)


def last_owner(organization_id: UUID) -> RpcError:
    return RpcError(Reason.REASON_LAST_OWNER, organization_id=str(organization_id))


def organization_not_found(organization_id: UUID) -> RpcError:
    """Also for one that the caller does not belong to: whether there is one is not theirs to know."""
    return RpcError(Reason.REASON_ORGANIZATION_NOT_FOUND, organization_id=str(organization_id))


async def _lock(tx: Transaction, organization_id: UUID, *, show_deleted: bool) -> None:
    locked = await organizations.get_organization_locked(tx, organization_id=organization_id, show_deleted=show_deleted)
    if locked is None:
        raise organization_not_found(organization_id)
