"""Queries of members: who belongs to an organization, and the role and permissions of each.

Code that changes either first locks the organization, and sends its id on `REVOKED_CHANNEL`: concurrent changes run one after
another, and take effect at the next call.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Row,
    Text,
    Uuid,
    bindparam,
    column,
    delete,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, aliased

from accord_db.engine.database import Executor
from accord_db.engine.keyset import Listing, Page
from accord_db.schema import Account, Member, MemberRole, Organization, Role

_Id = ColumnElement[UUID] | InstrumentedAttribute[UUID] | InstrumentedAttribute[UUID | None]


class Membership(NamedTuple):
    """The built-in role, and the names of the permissions that custom roles grant. A member may have neither."""

    role: str | None
    permissions: list[str]


class MemberWithAccount(NamedTuple):
    """A membership with its account. `role_ids` are the custom roles."""

    account_id: UUID
    email: str
    display_name: str
    image_url: str | None
    role: str | None
    role_ids: list[UUID]
    created_at: datetime
    etag: UUID


_OF_ORGANIZATION = Member.organization_id == bindparam("organization_id")
_THIS = (_OF_ORGANIZATION, Member.account_id == bindparam("account_id"))

_INSERT = (
    insert(Member)
    .values(organization_id=bindparam("organization_id"), account_id=bindparam("account_id"), role=bindparam("role"))
    .on_conflict_do_nothing()
    .returning(Member)
)


async def insert_member(db: Executor, *, organization_id: UUID, account_id: UUID, role: str | None) -> Member | None:
    """None if the account already is a member; its membership does not change."""
    return await db.fetch_one(_INSERT, organization_id=organization_id, account_id=account_id, role=role)


_role_ids = (
    select(MemberRole.role_id)
    .where(MemberRole.organization_id == Member.organization_id, MemberRole.account_id == Member.account_id)
    .order_by(MemberRole.role_id)
    .scalar_subquery()
)
_WITH_ACCOUNT = (
    select(
        Member.account_id,
        Account.email,
        Account.display_name,
        Account.image_url,
        Member.role,
        func.array(_role_ids, type_=ARRAY(Uuid)).label("role_ids"),
        Member.created_at,
        Member.etag,
    )
    .join(Account, Account.id == Member.account_id)
    .where(_OF_ORGANIZATION)
)
_GET = _WITH_ACCOUNT.where(Member.account_id == bindparam("account_id"))


async def get_member(db: Executor, *, organization_id: UUID, account_id: UUID) -> MemberWithAccount | None:
    """Also of a deleted organization."""
    row = await db.fetch_one(_GET, organization_id=organization_id, account_id=account_id)
    return MemberWithAccount._make(row) if row is not None else None


def role_in(organization_id: _Id, account_id: _Id) -> ColumnElement[str | None]:
    """The built-in role. NULL if the account has none or is no member, or the organization is deleted."""
    return (
        select(Member.role)
        .join(Organization, Organization.id == Member.organization_id)
        .where(
            Member.organization_id == organization_id,
            Member.account_id == account_id,
            Organization.deleted_at.is_(None),
        )
        .scalar_subquery()
    )


def permissions_in(organization_id: _Id, account_id: _Id) -> ColumnElement[list[str]]:
    """The names of the permissions that custom roles grant. Empty if the account is no member, or the organization is
    deleted."""
    names = (
        select(func.unnest(Role.permissions))
        .join(MemberRole, (MemberRole.organization_id == Role.organization_id) & (MemberRole.role_id == Role.id))
        .join(Organization, Organization.id == Role.organization_id)
        .where(
            MemberRole.organization_id == organization_id,
            MemberRole.account_id == account_id,
            Organization.deleted_at.is_(None),
        )
        .scalar_subquery()
    )
    return func.array(names, type_=ARRAY(Text))


_GET_MEMBERSHIP = (
    select(Member.role, permissions_in(Member.organization_id, Member.account_id).label("permissions"))
    .join(Organization, Organization.id == Member.organization_id)
    .where(*_THIS, Organization.deleted_at.is_(None))
)


async def get_membership(db: Executor, *, organization_id: UUID, account_id: UUID) -> Membership | None:
    """None if the account is no member, or the organization does not exist or is deleted."""
    row = await db.fetch_one(_GET_MEMBERSHIP, organization_id=organization_id, account_id=account_id)
    return Membership._make(row) if row is not None else None


_LISTING: Final = Listing[Row[Any]](_WITH_ACCOUNT, id=Member.account_id, orders={"created_at": Member.created_at})


async def list_members(db: Executor, *, organization_id: UUID, page: Page) -> list[MemberWithAccount]:
    return [MemberWithAccount._make(row) for row in await _LISTING.fetch(db, page, organization_id=organization_id)]


_another = aliased(Member, name="another")
_HAS_OTHER_OWNER = select(
    exists().where(_OF_ORGANIZATION, Member.role == "owner", Member.account_id != bindparam("account_id"))
)


async def has_other_owner(db: Executor, *, organization_id: UUID, account_id: UUID) -> bool:
    return await db.fetch_one(_HAS_OTHER_OWNER, organization_id=organization_id, account_id=account_id) is True


_UPDATE_ROLE = update(Member).where(*_THIS).values(role=bindparam("new_role", type_=Text))


async def update_member_role(db: Executor, *, organization_id: UUID, account_id: UUID, role: str | None) -> int:
    return await db.execute(_UPDATE_ROLE, organization_id=organization_id, account_id=account_id, new_role=role)


_roles = (
    func.unnest(bindparam("role_ids", type_=ARRAY(Uuid)))
    .table_valued(column("id", Uuid), name="roles")
    .render_derived()
)
_DELETE_OTHER_ROLES = delete(MemberRole).where(
    MemberRole.organization_id == bindparam("organization_id"),
    MemberRole.account_id == bindparam("account_id"),
    MemberRole.role_id != func.all(bindparam("role_ids", type_=ARRAY(Uuid))),
)
_INSERT_ROLES = (
    insert(MemberRole)
    .from_select(
        ["organization_id", "account_id", "role_id"],
        select(bindparam("organization_id", type_=Uuid), bindparam("account_id", type_=Uuid), _roles.c.id),
    )
    .on_conflict_do_nothing()
)


async def replace_member_roles(
    db: Executor, *, organization_id: UUID, account_id: UUID, role_ids: Sequence[UUID]
) -> None:
    """Gives the member these custom roles and takes all others. Raises ForeignKeyMissing if the organization lacks one."""
    parameters = {"organization_id": organization_id, "account_id": account_id, "role_ids": list(role_ids)}
    await db.execute(_DELETE_OTHER_ROLES, **parameters)
    await db.execute(_INSERT_ROLES, **parameters)


_DELETE = delete(Member).where(*_THIS)


async def delete_member(db: Executor, *, organization_id: UUID, account_id: UUID) -> int:
    """Deletes the membership and its custom roles."""
    return await db.execute(_DELETE, organization_id=organization_id, account_id=account_id)


# --- all memberships of an account ------------------------------------------------------------------------------------
_OF_ACCOUNT = Member.account_id == bindparam("account_id")
_LOCK_ORGANIZATIONS = (
    select(Organization.id)
    .join(Member, Member.organization_id == Organization.id)
    .where(_OF_ACCOUNT)
    .order_by(Organization.id)
    .with_for_update(of=Organization, key_share=True)
    .execution_options(across_tenants=True)
)


async def lock_organizations_of_account(db: Executor, *, account_id: UUID) -> list[UUID]:
    """Locks the organizations of the account and returns their ids. Lock the account first, so that none is added. The order
    of the locks is that of the ids, which prevents deadlocks."""
    return await db.fetch_all(_LOCK_ORGANIZATIONS, account_id=account_id)


_GET_SOLELY_OWNED = (
    select(Organization.id)
    .join(Member, Member.organization_id == Organization.id)
    .where(
        _OF_ACCOUNT,
        Member.role == "owner",
        Organization.deleted_at.is_(None),
        ~exists().where(
            _another.organization_id == Organization.id,
            _another.role == "owner",
            _another.account_id != Member.account_id,
        ),
    )
    .order_by(Organization.id)
    .limit(1)
    .execution_options(across_tenants=True)
)


async def get_solely_owned_organization(db: Executor, *, account_id: UUID) -> UUID | None:
    """The id of an organization, not deleted, whose only owner is the account."""
    return await db.fetch_one(_GET_SOLELY_OWNED, account_id=account_id)


_DELETE_OF_ACCOUNT = delete(Member).where(_OF_ACCOUNT).execution_options(across_tenants=True)


async def delete_members_of_account(db: Executor, *, account_id: UUID) -> int:
    return await db.execute(_DELETE_OF_ACCOUNT, account_id=account_id)
