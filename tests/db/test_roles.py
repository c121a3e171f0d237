from uuid import UUID

import pytest

from accord_db.engine.database import Database
from accord_db.engine.errors import AlreadyExists
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Cursor, Page
from accord_db.queries import roles
from accord_db.queries.roles import RoleChanges
from accord_db.schema import Role


async def insert(database: Database, organization_id: UUID, name: str, *permissions: str) -> Role:
    return await roles.insert_role(
        database, role_id=uuid7(), organization_id=organization_id, name=name, permissions=permissions
    )


async def test_insert_role_stores_name_and_permissions(database: Database, ours: UUID) -> None:
    role = await insert(database, ours, "Support", "tasks.read", "of.a.later.release")
    assert (role.organization_id, role.name) == (ours, "Support")
    assert role.permissions == ["tasks.read", "of.a.later.release"]
    found = await roles.get_role(database, role_id=role.id, organization_id=ours)
    assert found is not None
    assert (found.id, found.etag) == (role.id, role.etag)


async def test_role_names_are_unique_in_an_organization_ignoring_case(
    database: Database, ours: UUID, theirs: UUID
) -> None:
    await insert(database, ours, "Support")
    other = await insert(database, ours, "other")
    await insert(database, theirs, "support")
    with pytest.raises(AlreadyExists):
        await insert(database, ours, "SUPPORT")
    with pytest.raises(AlreadyExists):
        await roles.update_role(database, role_id=other.id, organization_id=ours, changes=RoleChanges(name="support"))


async def test_role_of_another_organization_is_not_found(database: Database, ours: UUID, theirs: UUID) -> None:
    role = await insert(database, theirs, "x", "tasks.read")
    assert await roles.get_role(database, role_id=role.id, organization_id=ours) is None
    assert await roles.list_roles(database, organization_id=ours, page=Page(9)) == []
    assert await roles.list_role_names(database, organization_id=ours) == {}
    changed = await roles.update_role(database, role_id=role.id, organization_id=ours, changes=RoleChanges(name="mine"))
    assert changed is None
    assert not await roles.delete_role(database, role_id=role.id, organization_id=ours)
    still = await roles.get_role(database, role_id=role.id, organization_id=theirs)
    assert still is not None
    assert still.etag == role.etag


async def test_update_role_changes_the_given_columns_and_the_etag(database: Database, ours: UUID) -> None:
    role = await insert(database, ours, "x", "tasks.read")
    changed = await roles.update_role(
        database, role_id=role.id, organization_id=ours, changes=RoleChanges(permissions=[]), etag=role.etag
    )
    assert changed is not None
    assert (changed.name, changed.permissions) == ("x", [])
    assert changed.etag != role.etag
    assert changed.updated_at > role.updated_at
    stale = RoleChanges(name="stale")
    assert (
        await roles.update_role(database, role_id=role.id, organization_id=ours, changes=stale, etag=role.etag) is None
    )
    assert not await roles.delete_role(database, role_id=role.id, organization_id=ours, etag=role.etag)
    assert await roles.delete_role(database, role_id=role.id, organization_id=ours, etag=changed.etag)


async def test_pages_have_every_role_once_newest_first(database: Database, ours: UUID) -> None:
    async with database.transaction() as tx:  # gives all the same created_at
        together = [
            await roles.insert_role(tx, role_id=uuid7(), organization_id=ours, name=str(n), permissions=[])
            for n in range(3)
        ]
    last = await insert(database, ours, "last")
    expected = [last.id, *sorted((role.id for role in together), reverse=True)]
    found: list[UUID] = []
    after = None
    while page := await roles.list_roles(database, organization_id=ours, page=Page(2, after)):
        found += [role.id for role in page]
        after = Cursor(page[-1].created_at, page[-1].id)
    assert found == expected
