"""Changes of memberships and roles: one at a time per organization, announced to all processes, and only by members who hold
what they give or take."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.sessions import Sessions
from accord_db.engine.database import Database, Executor, Transaction, opened
from accord_db.engine.scope import acting_for
from accord_db.queries import members, organizations, roles
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
    """A transaction that locks the organization's memberships and roles. Its changes hold from the next call on. Lock an account
    before, in an outer transaction passed as `db`.

    With `permission`, raises PERMISSION_DENIED unless the caller still holds it under the lock."""
    try:
        # It may not be the active one: LeaveOrganization names it.
        with acting_for(organization_id):
            async with opened(db) as tx:
                await _lock(tx, organization_id, show_deleted=show_deleted)
                if permission:
                    await require_held(tx, organization_id, [permission])
                await organizations.notify_organization_changed(tx, organization_id=organization_id)
                yield tx
    finally:
        # Also after a cancellation or a lost connection during the commit.
        sessions.forget(organization_id)


async def require_member(db: Executor, organization_id: UUID) -> None:
    """Raises ORGANIZATION_NOT_FOUND for a caller who is not a member. Call it before the lock: waiting for the lock would reveal
    that the organization exists, and would block its members. The lock's holder checks again."""
    with acting_for(organization_id):
        me = await members.get_member(db, organization_id=organization_id, account_id=caller().account_id)
    if me is None:
        raise organization_not_found(organization_id)


async def held_now(tx: Executor, organization_id: UUID, account_id: UUID) -> Permissions:
    """The account's permissions, read from the database and not from the cache; none without a membership."""
    now = await members.get_membership(tx, organization_id=organization_id, account_id=account_id)
    return held(now.role, now.permissions) if now is not None else frozenset()


async def given_by(tx: Executor, organization_id: UUID, role: str | None, role_ids: Sequence[UUID]) -> Permissions:
    """The permissions of the built-in role and the custom roles. Raises ROLE_NOT_FOUND."""
    permissions = await roles.get_permissions_of_roles(tx, organization_id=organization_id, role_ids=role_ids)
    for role_id in role_ids:
        if role_id not in permissions:
            raise RpcError(Reason.REASON_ROLE_NOT_FOUND, role_id=str(role_id))
    return held(role, [name for names in permissions.values() for name in names])


async def require_held(tx: Executor, organization_id: UUID, permissions: Iterable[AnyPermission]) -> None:
    """Raises PERMISSION_DENIED unless the caller holds `permissions`: all that the changed member, role or key has before and
    after the change."""
    if not await held_now(tx, organization_id, caller().account_id) >= frozenset(permissions):
        raise RpcError(Reason.REASON_PERMISSION_DENIED)


async def is_owner(tx: Executor, organization_id: UUID, account_id: UUID) -> bool:
    now = await members.get_membership(tx, organization_id=organization_id, account_id=account_id)
    return now is not None and now.role == "owner"


async def require_owner(tx: Executor, organization_id: UUID, *roles: str | None) -> None:
    """Raises PERMISSION_DENIED if `roles`, the built-in ones before and after a change, include the owner's and the caller is no
    owner. A custom role with every permission does not make its holder an owner."""
    if "owner" in roles and not await is_owner(tx, organization_id, caller().account_id):
        raise RpcError(Reason.REASON_PERMISSION_DENIED)


async def leave_all(tx: Transaction, sessions: Sessions, account_id: UUID) -> None:
    """Ends all memberships of an account that the transaction has locked. Raises LAST_OWNER if an organization would have no
    owner left."""
    left = await members.lock_organizations_of_account(tx, account_id=account_id)
    try:
        owned = await members.get_solely_owned_organization(tx, account_id=account_id)
        if owned is not None:
            raise last_owner(owned)
        await members.delete_members_of_account(tx, account_id=account_id)
        for organization_id in left:
            await organizations.notify_organization_changed(tx, organization_id=organization_id)
    finally:
        for organization_id in left:
            sessions.forget(organization_id)


def last_owner(organization_id: UUID) -> RpcError:
    return RpcError(Reason.REASON_LAST_OWNER, organization_id=str(organization_id))


def organization_not_found(organization_id: UUID) -> RpcError:
    """Also for an organization of which the caller is not a member."""
    return RpcError(Reason.REASON_ORGANIZATION_NOT_FOUND, organization_id=str(organization_id))


async def _lock(tx: Transaction, organization_id: UUID, *, show_deleted: bool) -> None:
    locked = await organizations.get_organization_locked(tx, organization_id=organization_id, show_deleted=show_deleted)
    if locked is None:
        raise organization_not_found(organization_id)
