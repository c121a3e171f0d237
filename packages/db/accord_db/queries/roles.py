"""Queries of custom roles. The organization is part of each.

Code that changes a role, or gives it to a member, first locks the organization.
"""

from collections.abc import Sequence
from typing import Final, TypedDict
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, delete, select

from accord_db.engine.database import Executor
from accord_db.engine.dml import etag_matches, insert_row, update_row
from accord_db.engine.keyset import Listing, Page
from accord_db.schema import Role


class RoleChanges(TypedDict, total=False):
    """The columns to change."""

    name: str
    permissions: list[str]


_OF_ORGANIZATION = Role.organization_id == bindparam("organization_id")
_THIS = (Role.id == bindparam("role_id"), _OF_ORGANIZATION)
_UNCHANGED = etag_matches(Role)


async def insert_role(
    db: Executor, *, role_id: UUID, organization_id: UUID, name: str, permissions: Sequence[str]
) -> Role:
    """Raises AlreadyExists if another role of the organization has the name, ignoring the case of A to Z."""
    return await insert_row(
        db, Role, id=role_id, organization_id=organization_id, name=name, permissions=list(permissions)
    )


_GET = select(Role).where(*_THIS)


async def get_role(db: Executor, *, role_id: UUID, organization_id: UUID) -> Role | None:
    return await db.fetch_one(_GET, role_id=role_id, organization_id=organization_id)


_GET_PERMISSIONS = select(Role.id, Role.permissions).where(
    _OF_ORGANIZATION, Role.id == any_(bindparam("role_ids", type_=ARRAY(Uuid)))
)


async def get_permissions_of_roles(
    db: Executor, *, organization_id: UUID, role_ids: Sequence[UUID]
) -> dict[UUID, list[str]]:
    """The names of each role's permissions, by role id. Roles that the organization does not have are missing."""
    rows = await db.fetch_all(_GET_PERMISSIONS, organization_id=organization_id, role_ids=list(role_ids))
    return {row.id: row.permissions for row in rows}


_LISTING: Final = Listing[Role](
    select(Role).where(_OF_ORGANIZATION), id=Role.id, orders={"created_at": Role.created_at}
)


async def list_roles(db: Executor, *, organization_id: UUID, page: Page) -> list[Role]:
    return await _LISTING.fetch(db, page, organization_id=organization_id)


_NAMES = select(Role.id, Role.name).where(_OF_ORGANIZATION)


async def list_role_names(db: Executor, *, organization_id: UUID) -> dict[UUID, str]:
    return {row.id: row.name for row in await db.fetch_all(_NAMES, organization_id=organization_id)}


_CURRENT: Final = (*_THIS, _UNCHANGED)


async def update_role(
    db: Executor, *, role_id: UUID, organization_id: UUID, changes: RoleChanges, etag: UUID | None = None
) -> Role | None:
    """The changed role. None if it does not exist or has another etag. Raises AlreadyExists if another role of the
    organization has the name, ignoring the case of A to Z."""
    return await update_row(
        db, Role, _CURRENT, changes, role_id=role_id, organization_id=organization_id, seen_etag=etag
    )


_DELETE = delete(Role).where(*_THIS, _UNCHANGED)


async def delete_role(db: Executor, *, role_id: UUID, organization_id: UUID, etag: UUID | None = None) -> bool:
    """Also takes the role from its members. False if it does not exist or has another etag."""
    return await db.execute(_DELETE, role_id=role_id, organization_id=organization_id, seen_etag=etag) == 1
