"""Questions about the roles that organizations have made for themselves. Whose they are is part of each.

Whoever changes one, or gives it to somebody, has locked the organization.
"""

from collections.abc import Sequence
from functools import cache
from typing import TypedDict
from uuid import UUID

from sqlalchemy import (
    DateTime,
    Integer,
    Select,
    Uuid,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from accord_db.engine.database import Executor
from accord_db.engine.keyset import Cursor
from accord_db.schema import Role


class RoleChanges(TypedDict, total=False):
    """What is not there is left as it is."""

    name: str
    permissions: list[str]


_THEIRS = Role.organization_id == bindparam("organization_id")
_THIS = (Role.id == bindparam("role_id"), _THEIRS)
_UNCHANGED = or_(bindparam("seen_etag", type_=Uuid).is_(None), Role.etag == bindparam("seen_etag"))

_INSERT = (
    insert(Role)
    .values(
        id=bindparam("id"),
        organization_id=bindparam("organization_id"),
        name=bindparam("name"),
        permissions=bindparam("permissions"),
    )
    .returning(Role)
)


async def insert_role(
    db: Executor, *, role_id: UUID, organization_id: UUID, name: str, permissions: Sequence[str]
) -> Role:
    """Raises AlreadyExists if the organization has a role of that name, in upper or lower case."""
    role = await db.first(
        _INSERT, id=role_id, organization_id=organization_id, name=name, permissions=list(permissions)
    )
    assert role is not None
    return role


_GET = select(Role).where(*_THIS)


async def get_role(db: Executor, *, role_id: UUID, organization_id: UUID) -> Role | None:
    return await db.first(_GET, role_id=role_id, organization_id=organization_id)


@cache
def _list(later_page: bool) -> Select[Role]:
    statement = select(Role).where(_THEIRS)
    if later_page:
        place = tuple_(bindparam("after_value", type_=DateTime(timezone=True)), bindparam("after_id", type_=Uuid))
        statement = statement.where(tuple_(Role.created_at, Role.id) < place)
    return statement.order_by(Role.created_at.desc(), Role.id.desc()).limit(bindparam("limit", type_=Integer))


async def list_roles(db: Executor, *, organization_id: UUID, limit: int, after: Cursor | None = None) -> list[Role]:
    """A page, the newest first; those made in the same instant by id."""
    place = {"after_value": after.value, "after_id": after.id} if after is not None else {}
    return await db.all(_list(after is not None), organization_id=organization_id, limit=limit, **place)


_COUNT = select(func.count()).select_from(Role).where(_THEIRS)


async def count_roles(db: Executor, *, organization_id: UUID) -> int:
    return await db.first(_COUNT, organization_id=organization_id) or 0


@cache
def _update(changed: frozenset[str]) -> ReturningUpdate[Role]:
    values = {name: bindparam(name, type_=Role.__table__.c[name].type) for name in sorted(changed)}
    return update(Role).where(*_THIS, _UNCHANGED).values(values).returning(Role)


async def update_role(
    db: Executor, *, role_id: UUID, organization_id: UUID, changes: RoleChanges, etag: UUID | None = None
) -> Role | None:
    """The role as it is now. None if there is none, or if it is no longer the one that `etag` names. Raises AlreadyExists
    if the organization has another role of that name, in upper or lower case."""
    return await db.first(
        _update(frozenset(changes)), role_id=role_id, organization_id=organization_id, seen_etag=etag, **changes
    )


_DELETE = delete(Role).where(*_THIS, _UNCHANGED)


async def delete_role(db: Executor, *, role_id: UUID, organization_id: UUID, etag: UUID | None = None) -> bool:
    """Whoever has it has it no more. False if there is none, or if it is no longer the one that `etag` names."""
    return await db.run(_DELETE, role_id=role_id, organization_id=organization_id, seen_etag=etag) == 1
