"""What an account is in an organization: a part of the question about each credential, and a question of its own.

Whoever changes what somebody may do in an organization locks the organization first, and tells of it by its id on
`REVOKED_CHANNEL`: so they wait for one another in one line, and what they change holds from the next call on.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Text, Uuid, any_, bindparam, func, select
from sqlalchemy.orm import InstrumentedAttribute

from accord_db.engine.database import Executor
from accord_db.schema import Member, MemberRole, Organization, Role

_Id = ColumnElement[UUID] | InstrumentedAttribute[UUID] | InstrumentedAttribute[UUID | None]


class Standing(NamedTuple):
    """The built-in role, and the names of what the organization's own roles permit beside it. A member may have neither."""

    role: str | None
    permissions: list[str]


def role_in(organization_id: _Id, account_id: _Id) -> ColumnElement[str | None]:
    """The built-in role; NULL too for whoever is no member, or where the organization is deleted."""
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
    """The names of what the organization's own roles permit; none for whoever is no member."""
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


_GET = (
    select(Member.role, permissions_in(Member.organization_id, Member.account_id).label("permissions"))
    .join(Organization, Organization.id == Member.organization_id)
    .where(
        Member.organization_id == bindparam("organization_id"),
        Member.account_id == bindparam("account_id"),
        Organization.deleted_at.is_(None),
    )
)


async def get_membership(db: Executor, *, organization_id: UUID, account_id: UUID) -> Standing | None:
    """None for whoever is no member of it, and where there is no such organization (any more)."""
    row = await db.fetch_one(_GET, organization_id=organization_id, account_id=account_id)
    return Standing._make(row) if row is not None else None


_GET_PERMISSIONS_OF_ROLES = select(Role.id, Role.permissions).where(
    Role.organization_id == bindparam("organization_id"), Role.id == any_(bindparam("role_ids", type_=ARRAY(Uuid)))
)


async def get_permissions_of_roles(
    db: Executor, *, organization_id: UUID, role_ids: Sequence[UUID]
) -> dict[UUID, list[str]]:
    """The names of what each of the organization's own roles permits. Those that there are not are missing."""
    rows = await db.fetch_all(_GET_PERMISSIONS_OF_ROLES, organization_id=organization_id, role_ids=list(role_ids))
    return {row.id: row.permissions for row in rows}
