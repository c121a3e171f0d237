"""Questions about who belongs to an organization. Whoever changes that has locked the organization."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
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
from sqlalchemy.orm import aliased

from accord_db.engine.database import Executor
from accord_db.engine.keyset import Listing, Page
from accord_db.schema import Account, Member, MemberRole, Organization


class MemberWithAccount(NamedTuple):
    """A membership, and whose it is. `role_ids` are of the organization's own roles."""

    account_id: UUID
    email: str
    display_name: str
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
    """None if the account is a member already: it is left as it is."""
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
    """Also of an organization that is deleted."""
    row = await db.fetch_one(_GET, organization_id=organization_id, account_id=account_id)
    return MemberWithAccount._make(row) if row is not None else None


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


_given = (
    func.unnest(bindparam("role_ids", type_=ARRAY(Uuid)))
    .table_valued(column("id", Uuid), name="given")
    .render_derived()
)
_TAKE_ROLES = delete(MemberRole).where(
    MemberRole.organization_id == bindparam("organization_id"),
    MemberRole.account_id == bindparam("account_id"),
    MemberRole.role_id != func.all(bindparam("role_ids", type_=ARRAY(Uuid))),
)
_GIVE_ROLES = (
    insert(MemberRole)
    .from_select(
        ["organization_id", "account_id", "role_id"],
        select(bindparam("organization_id", type_=Uuid), bindparam("account_id", type_=Uuid), _given.c.id),
    )
    .on_conflict_do_nothing()
)


async def replace_member_roles(
    db: Executor, *, organization_id: UUID, account_id: UUID, role_ids: Sequence[UUID]
) -> None:
    """Of the organization's own roles the member has these, and no others. Raises ForeignKeyMissing if it has no such
    role."""
    place = {"organization_id": organization_id, "account_id": account_id, "role_ids": list(role_ids)}
    await db.execute(_TAKE_ROLES, **place)
    await db.execute(_GIVE_ROLES, **place)


_DELETE = delete(Member).where(*_THIS)


async def delete_member(db: Executor, *, organization_id: UUID, account_id: UUID) -> int:
    """With the roles that they had."""
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
    """The organizations that the account belongs to, and none can be added while the account is locked too. In the order
    of their ids, so that two who do this wait for one another in one line."""
    return await db.fetch_all(_LOCK_ORGANIZATIONS, account_id=account_id)


_GET_OWNED_ALONE = (
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


async def get_organization_owned_alone(db: Executor, *, account_id: UUID) -> UUID | None:
    """The id of a living organization that would have no owner without the account."""
    return await db.fetch_one(_GET_OWNED_ALONE, account_id=account_id)


_DELETE_OF_ACCOUNT = delete(Member).where(_OF_ACCOUNT).execution_options(across_tenants=True)


async def delete_members_of_account(db: Executor, *, account_id: UUID) -> int:
    return await db.execute(_DELETE_OF_ACCOUNT, account_id=account_id)
