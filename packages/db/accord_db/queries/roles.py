"""Questions about the roles that organizations have made for themselves. Whose they are is part of each.

Whoever changes one, or gives it to somebody, has locked the organization.
"""

from collections.abc import Sequence
from typing import Final, TypedDict
from uuid import UUID

from sqlalchemy import bindparam, delete, select

from accord_db.engine.database import Executor
from accord_db.engine.dml import etag_matches, insert_row, update_row
from accord_db.engine.keyset import Listing, Page
from accord_db.schema import Role


class RoleChanges(TypedDict, total=False):
    """What is not there is left as it is."""

    name: str
    permissions: list[str]


_THEIRS = Role.organization_id == bindparam("organization_id")
_THIS = (Role.id == bindparam("role_id"), _THEIRS)
_UNCHANGED = etag_matches(Role)


async def insert_role(
    db: Executor, *, role_id: UUID, organization_id: UUID, name: str, permissions: Sequence[str]
) -> Role:
    """Raises AlreadyExists if the organization has a role of that name, ignoring the case of A to Z."""
    return await insert_row(
        db, Role, id=role_id, organization_id=organization_id, name=name, permissions=list(permissions)
    )


_GET = select(Role).where(*_THIS)


async def get_role(db: Executor, *, role_id: UUID, organization_id: UUID) -> Role | None:
    return await db.fetch_one(_GET, role_id=role_id, organization_id=organization_id)


_LISTING: Final = Listing[Role](select(Role).where(_THEIRS), id=Role.id, orders={"created_at": Role.created_at})


async def list_roles(db: Executor, *, organization_id: UUID, page: Page) -> list[Role]:
    return await _LISTING.fetch(db, page, organization_id=organization_id)


_NAMES = select(Role.id, Role.name).where(_THEIRS)


async def list_role_names(db: Executor, *, organization_id: UUID) -> dict[UUID, str]:
    return {row.id: row.name for row in await db.fetch_all(_NAMES, organization_id=organization_id)}


_CURRENT: Final = (*_THIS, _UNCHANGED)


async def update_role(
    db: Executor, *, role_id: UUID, organization_id: UUID, changes: RoleChanges, etag: UUID | None = None
) -> Role | None:
    """The role as it is now. None if there is none, or if it is no longer the one that `etag` names. Raises AlreadyExists
    if the organization has another role of that name, ignoring the case of A to Z."""
    return await update_row(
        db, Role, _CURRENT, changes, role_id=role_id, organization_id=organization_id, seen_etag=etag
    )


_DELETE = delete(Role).where(*_THIS, _UNCHANGED)


async def delete_role(db: Executor, *, role_id: UUID, organization_id: UUID, etag: UUID | None = None) -> bool:
    """Whoever has it has it no more. False if there is none, or if it is no longer the one that `etag` names."""
    return await db.execute(_DELETE, role_id=role_id, organization_id=organization_id, seen_etag=etag) == 1
