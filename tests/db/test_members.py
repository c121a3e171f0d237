"""Members: the organization is part of every query."""

from uuid import UUID, uuid4

import pytest

from accord_db.engine.database import Database
from accord_db.engine.errors import ForeignKeyMissing
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Cursor, Page
from accord_db.queries import members, organizations, roles
from accord_db.queries.members import MemberWithAccount
from accord_db.schema import Account
from tests.db.conftest import NewAccount


async def organization(database: Database, *owners: Account) -> UUID:
    made = await organizations.insert_organization(
        database, organization_id=uuid7(), name="x", slug=f"slug-{uuid4().hex}"
    )
    assert made is not None
    for owner in owners:
        await members.insert_member(database, organization_id=made.id, account_id=owner.id, role="owner")
    return made.id


async def role(database: Database, organization_id: UUID, *permissions: str) -> UUID:
    made = await roles.insert_role(
        database, role_id=uuid7(), organization_id=organization_id, name=uuid4().hex, permissions=permissions
    )
    return made.id


async def get(database: Database, organization_id: UUID, account: Account) -> MemberWithAccount | None:
    return await members.get_member(database, organization_id=organization_id, account_id=account.id)


@pytest.fixture
async def ours(database: Database, account: Account) -> UUID:
    return await organization(database, account)


@pytest.fixture
async def theirs(database: Database, account: Account) -> UUID:
    """The account owns it too."""
    return await organization(database, account)


async def test_member_is_found_only_in_their_organization(
    database: Database, account: Account, new_account: NewAccount, ours: UUID
) -> None:
    elsewhere = await new_account()
    theirs = await organization(database, elsewhere)
    found = await get(database, ours, account)
    assert found is not None
    assert (found.account_id, found.email, found.display_name) == (account.id, account.email, account.display_name)
    assert (found.role, found.role_ids) == ("owner", [])
    assert await get(database, theirs, account) is None
    assert await get(database, ours, elsewhere) is None


async def test_insert_member_does_not_change_an_existing_membership(
    database: Database, account: Account, ours: UUID
) -> None:
    again = await members.insert_member(database, organization_id=ours, account_id=account.id, role="member")
    assert again is None
    found = await get(database, ours, account)
    assert found is not None
    assert found.role == "owner"


async def test_list_members_pages_through_one_organization(
    database: Database, account: Account, new_account: NewAccount, ours: UUID
) -> None:
    people = [await new_account() for _ in range(3)]
    await organization(database, people[0])
    for person in people:
        await members.insert_member(database, organization_id=ours, account_id=person.id, role=None)
    found = await members.list_members(database, organization_id=ours, page=Page(3))
    after = Cursor(found[-1].created_at, found[-1].account_id)
    found += await members.list_members(database, organization_id=ours, page=Page(3, after))
    assert [each.account_id for each in found] == [person.id for person in (*reversed(people), account)]


async def test_update_member_role_changes_one_organization(
    database: Database, account: Account, ours: UUID, theirs: UUID
) -> None:
    before, others = await get(database, ours, account), await get(database, theirs, account)
    assert await members.update_member_role(database, organization_id=ours, account_id=account.id, role=None) == 1
    now = await get(database, ours, account)
    assert before is not None
    assert now is not None
    assert (now.role, now.etag != before.etag) == (None, True)
    assert await get(database, theirs, account) == others


async def test_replace_member_roles_changes_one_organization(
    database: Database, account: Account, ours: UUID, theirs: UUID
) -> None:
    first, second, other = [await role(database, each) for each in (ours, ours, theirs)]
    for organization_id, role_ids in ((theirs, [other]), (ours, [first]), (ours, [second, first]), (ours, [second])):
        await members.replace_member_roles(
            database, organization_id=organization_id, account_id=account.id, role_ids=role_ids
        )
        found = await get(database, organization_id, account)
        assert found is not None
        assert found.role_ids == sorted(role_ids)
    await members.replace_member_roles(database, organization_id=ours, account_id=account.id, role_ids=[])
    left = await get(database, ours, account), await get(database, theirs, account)
    assert [each.role_ids if each else None for each in left] == [[], [other]]


async def test_role_of_another_organization_cannot_be_given(
    database: Database, account: Account, ours: UUID, theirs: UUID
) -> None:
    mine, other = await role(database, ours, "tasks.read"), await role(database, theirs, "tasks.write")
    found = await roles.get_permissions_of_roles(database, organization_id=ours, role_ids=[mine, other, uuid4()])
    assert found == {mine: ["tasks.read"]}
    with pytest.raises(ForeignKeyMissing):
        await members.replace_member_roles(database, organization_id=ours, account_id=account.id, role_ids=[other])


async def test_delete_member_ends_one_membership_with_its_roles(
    database: Database, account: Account, new_account: NewAccount, ours: UUID, theirs: UUID
) -> None:
    other = await new_account()
    await members.insert_member(database, organization_id=ours, account_id=other.id, role="member")
    role_id = await role(database, ours)
    await members.replace_member_roles(database, organization_id=ours, account_id=account.id, role_ids=[role_id])
    assert await members.delete_member(database, organization_id=ours, account_id=account.id) == 1
    assert await members.delete_member(database, organization_id=ours, account_id=account.id) == 0
    assert await get(database, ours, account) is None
    assert await get(database, ours, other) is not None
    assert await get(database, theirs, account) is not None


async def test_has_other_owner_ignores_owners_of_other_organizations(
    database: Database, account: Account, new_account: NewAccount, ours: UUID
) -> None:
    other = await new_account()
    await organization(database, account, other)
    await members.insert_member(database, organization_id=ours, account_id=other.id, role="admin")
    assert not await members.has_other_owner(database, organization_id=ours, account_id=account.id)
    assert await members.has_other_owner(database, organization_id=ours, account_id=other.id)


# --- all memberships of an account --------------------------------------------------------------------------------------
async def test_get_solely_owned_organization_finds_it(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    other = await new_account()
    shared = await organization(database, account, other)
    assert await members.get_solely_owned_organization(database, account_id=account.id) is None
    alone = await organization(database, account)
    await members.insert_member(database, organization_id=alone, account_id=other.id, role="admin")
    assert await members.get_solely_owned_organization(database, account_id=account.id) == alone
    assert await members.get_solely_owned_organization(database, account_id=other.id) is None
    await organizations.delete_organization(database, organization_id=alone)
    assert await members.get_solely_owned_organization(database, account_id=account.id) is None
    assert await members.lock_organizations_of_account(database, account_id=account.id) == sorted([shared, alone])


async def test_delete_members_of_account_ends_only_the_memberships_of_the_account(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    other = await new_account()
    both = [await organization(database, account, other) for _ in range(2)]
    assert await members.delete_members_of_account(database, account_id=account.id) == 2
    for organization_id in both:
        assert await get(database, organization_id, account) is None
        assert await get(database, organization_id, other) is not None
