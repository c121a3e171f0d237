"""Organizations: members find theirs, and a change of one does not change another."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from accord_db.engine.database import Database
from accord_db.engine.errors import AlreadyExists
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Page
from accord_db.queries import members, organizations
from accord_db.queries.organizations import OrganizationChanges
from accord_db.queries.sessions import REVOKED_CHANNEL
from accord_db.schema import Account, Organization
from tests.db.conftest import NewAccount

KEPT = timedelta(days=30)


async def insert(database: Database, account: Account, slug: str, role: str | None = "owner") -> Organization:
    organization = await organizations.insert_organization(
        database, organization_id=uuid7(), name=slug.upper(), slug=slug
    )
    assert organization is not None
    await members.insert_member(database, organization_id=organization.id, account_id=account.id, role=role)
    return organization


@pytest.fixture
async def ours(database: Database, account: Account) -> Organization:
    return await insert(database, account, "ours")


@pytest.fixture
async def theirs(database: Database, new_account: NewAccount) -> Organization:
    return await insert(database, await new_account(), "theirs")


@pytest.fixture
async def theirs_unchanged(database: Database, theirs: Organization) -> AsyncIterator[None]:
    """Checks after the test that the other organization has not changed."""
    yield
    assert await organizations.get_organization_locked(database, organization_id=theirs.id, show_deleted=True) == theirs


async def listed(database: Database, account: Account, *, show_deleted: bool = False) -> list[UUID]:
    found = await organizations.list_organizations(
        database, account_id=account.id, page=Page(10), show_deleted=show_deleted
    )
    return [each.organization.id for each in found]


async def test_organization_is_found_only_by_its_members(
    database: Database, account: Account, ours: Organization, theirs: Organization
) -> None:
    found = await organizations.get_organization(database, organization_id=ours.id, account_id=account.id)
    assert found == (ours, "owner")
    for organization_id in (theirs.id, uuid4()):
        assert (
            await organizations.get_organization(database, organization_id=organization_id, account_id=account.id)
            is None
        )
    assert await listed(database, account) == [ours.id]


async def test_list_can_be_limited_to_one_organization(
    database: Database, account: Account, ours: Organization, theirs: Organization
) -> None:
    another = await insert(database, account, "another", None)
    for only, expected in (
        (another.id, [(another, None)]),
        (theirs.id, []),
        (None, [(another, None), (ours, "owner")]),
    ):
        found = await organizations.list_organizations(database, account_id=account.id, page=Page(10), only=only)
        assert found == expected


@pytest.mark.usefixtures("theirs_unchanged")
async def test_update_changes_one_organization(database: Database, ours: Organization) -> None:
    changes = OrganizationChanges(name="Ours")
    now = await organizations.update_organization(database, organization_id=ours.id, changes=changes)
    assert now is not None
    assert (now.name, now.slug) == ("Ours", "ours")
    assert now.etag != ours.etag
    assert (
        await organizations.update_organization(database, organization_id=ours.id, changes=changes, etag=ours.etag)
        is None
    )


async def test_slug_is_unique_among_organizations_that_are_not_deleted(
    database: Database, account: Account, ours: Organization, theirs: Organization
) -> None:
    assert await organizations.insert_organization(database, organization_id=uuid7(), name="x", slug="ours") is None
    with pytest.raises(AlreadyExists):
        changes = OrganizationChanges(slug="ours")
        await organizations.update_organization(database, organization_id=theirs.id, changes=changes)
    await organizations.delete_organization(database, organization_id=ours.id)
    await insert(database, account, "ours")
    with pytest.raises(AlreadyExists):
        await organizations.undelete_organization(database, organization_id=ours.id, deleted_kept=KEPT)


@pytest.mark.usefixtures("theirs_unchanged")
async def test_delete_and_undelete_change_one_organization(
    database: Database, account: Account, ours: Organization
) -> None:
    assert await organizations.delete_organization(database, organization_id=ours.id, etag=uuid4()) is None
    deleted = await organizations.delete_organization(database, organization_id=ours.id, etag=ours.etag)
    assert deleted is not None
    assert deleted.deleted_at is not None
    assert await organizations.delete_organization(database, organization_id=ours.id) is None
    assert await organizations.get_organization_locked(database, organization_id=ours.id) is None
    assert (await listed(database, account), await listed(database, account, show_deleted=True)) == ([], [ours.id])
    back = await organizations.undelete_organization(database, organization_id=ours.id, deleted_kept=KEPT)
    assert back is not None
    assert back.deleted_at is None
    assert await organizations.undelete_organization(database, organization_id=ours.id, deleted_kept=KEPT) is None
    assert await listed(database, account) == [ours.id]


async def test_change_is_notified_at_commit(database: Database, dsn: str, ours: Organization) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"LISTEN {REVOKED_CHANNEL}".encode())
        with pytest.raises(LookupError):
            async with database.transaction() as tx:
                await organizations.notify_organization_changed(tx, organization_id=uuid4())
                raise LookupError
        async with database.transaction() as tx:
            await organizations.notify_organization_changed(tx, organization_id=ours.id)
        [notification] = connection.notifies(timeout=10, stop_after=1)
    assert notification.payload == str(ours.id)
