import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import func, select, text, update

from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Cursor, Page
from accord_db.queries import invitations, members, organizations
from accord_db.queries.invitations import Outcome
from accord_db.schema import Account, Invitation
from tests.conftest import WAITING, Connect
from tests.db.plans import generic_plan

EMAIL = "ada@example.com"
HASH = b"x" * 32


async def insert(
    database: Database,
    organization_id: UUID,
    account: Account,
    *,
    email: str = EMAIL,
    token_hash: bytes | None = None,
    lifetime: timedelta = timedelta(days=7),
) -> Invitation:
    return await invitations.insert_invitation(
        database,
        invitation_id=uuid7(),
        organization_id=organization_id,
        email=email,
        role="member",
        token_hash=token_hash or uuid4().bytes * 2,
        created_by=account.id,
        lifetime=lifetime,
    )


async def end(database: Database, invitation: Invitation, outcome: Outcome = "accepted") -> bool:
    return await invitations.end_invitation(
        database, invitation_id=invitation.id, organization_id=invitation.organization_id, outcome=outcome
    )


async def test_invitation_is_found_by_token_and_address_together(
    database: Database, ours: UUID, account: Account
) -> None:
    invitation = await insert(database, ours, account, email="Ada.Lovelace@Example.com", token_hash=HASH)
    assert invitation.email == "ada.lovelace@example.com"
    found = await invitations.get_open_invitation_locked(database, token_hash=HASH, email="ADA.lovelace@example.com")
    assert found is not None
    assert (found.invitation.id, found.inviter_is_active) == (invitation.id, True)
    other = await invitations.get_open_invitation_locked(database, token_hash=HASH, email=EMAIL)
    assert other is None
    unknown = await invitations.get_open_invitation_locked(database, token_hash=b"y" * 32, email=invitation.email)
    assert unknown is None


async def test_ended_invitation_is_not_found_by_its_token(database: Database, ours: UUID, account: Account) -> None:
    await insert(database, ours, account, token_hash=HASH, lifetime=timedelta(0))
    assert await invitations.get_open_invitation_locked(database, token_hash=HASH, email=EMAIL) is None
    ended = await insert(database, ours, account, token_hash=b"y" * 32)
    await end(database, ended, "declined")
    assert await invitations.get_open_invitation_locked(database, token_hash=b"y" * 32, email=EMAIL) is None


async def test_invitation_to_a_deleted_organization_is_not_found_by_its_token(
    database: Database, ours: UUID, account: Account
) -> None:
    await insert(database, ours, account, token_hash=HASH)
    await organizations.delete_organization(database, organization_id=ours)
    assert await invitations.get_open_invitation_locked(database, token_hash=HASH, email=EMAIL) is None


async def is_waited_for(database: Database) -> bool:
    """Whether a statement waits for a lock."""
    return bool(await database.fetch_one(select(func.count()).select_from(text(WAITING))))


async def test_lookup_waits_for_a_deletion_of_the_organization_and_finds_nothing(
    connect: Connect, ours: UUID, account: Account, database: Database
) -> None:
    await insert(database, ours, account, token_hash=HASH)
    other = await connect()
    async with database.transaction() as tx:
        await organizations.delete_organization(tx, organization_id=ours)
        finding = asyncio.create_task(invitations.get_open_invitation_locked(other, token_hash=HASH, email=EMAIL))
        async with asyncio.timeout(10):
            while not await is_waited_for(other):
                await asyncio.sleep(0.01)
    assert await finding is None


@pytest.mark.parametrize("column", ["banned_at", "deleted_at"])
async def test_lookup_reports_a_banned_or_deleted_inviter(
    database: Database, ours: UUID, account: Account, column: str
) -> None:
    await insert(database, ours, account, token_hash=HASH)
    await database.execute(update(Account).where(Account.id == account.id).values({column: func.now()}))
    found = await invitations.get_open_invitation_locked(database, token_hash=HASH, email=EMAIL)
    assert found is not None
    assert not found.inviter_is_active


async def test_invitation_ends_once_with_its_outcome(database: Database, ours: UUID, account: Account) -> None:
    outcomes: tuple[Outcome, ...] = ("accepted", "declined", "cancelled")
    for outcome in outcomes:
        invitation = await insert(database, ours, account)
        assert await end(database, invitation, outcome)
        for again in outcomes:
            assert not await end(database, invitation, again)
        found = await invitations.get_invitation(database, invitation_id=invitation.id, organization_id=ours)
        assert found is not None
        assert found.status == outcome
        assert found.invitation.ended_at is not None


async def test_invitation_expires_without_an_outcome(database: Database, ours: UUID, account: Account) -> None:
    invitation = await insert(database, ours, account, lifetime=timedelta(0))
    assert not await end(database, invitation)
    found = await invitations.get_invitation(database, invitation_id=invitation.id, organization_id=ours)
    assert found is not None
    assert (found.status, found.invitation.ended_at) == ("expired", None)


async def test_invitation_of_another_organization_is_not_found(
    database: Database, ours: UUID, theirs: UUID, account: Account
) -> None:
    invitation = await insert(database, theirs, account)
    get = invitations.get_invitation
    assert await get(database, invitation_id=invitation.id, organization_id=ours) is None
    assert not await invitations.end_invitation(
        database, invitation_id=invitation.id, organization_id=ours, outcome="cancelled"
    )
    assert await invitations.list_invitations(database, organization_id=ours, page=Page(9), show_ended=True) == []
    assert await invitations.count_open_invitations(database, organization_id=ours) == 0
    assert not await invitations.is_invited(database, organization_id=ours, email=EMAIL)


async def test_ended_invitations_do_not_count_and_do_not_prevent_new_ones(
    database: Database, ours: UUID, account: Account
) -> None:
    await insert(database, ours, account, lifetime=timedelta(0))
    await end(database, await insert(database, ours, account))
    assert not await invitations.is_invited(database, organization_id=ours, email=EMAIL)
    assert await invitations.list_invitations(database, organization_id=ours, page=Page(9)) == []
    await insert(database, ours, account)
    assert await invitations.is_invited(database, organization_id=ours, email=EMAIL.upper())
    assert await invitations.count_open_invitations(database, organization_id=ours) == 1
    assert len(await invitations.list_invitations(database, organization_id=ours, page=Page(9), show_ended=True)) == 3


async def test_is_member_finds_members_by_the_address_of_accounts_that_are_not_deleted(
    database: Database, ours: UUID, theirs: UUID, account: Account
) -> None:
    await members.insert_member(database, organization_id=ours, account_id=account.id, role=None)
    assert await invitations.is_member(database, organization_id=ours, email=account.email.upper())
    assert not await invitations.is_member(database, organization_id=theirs, email=account.email)
    assert not await invitations.is_member(database, organization_id=ours, email=EMAIL)
    await database.execute(update(Account).where(Account.id == account.id).values(deleted_at=func.now()))
    assert not await invitations.is_member(database, organization_id=ours, email=account.email)


async def test_pages_have_every_invitation_once_newest_first(database: Database, ours: UUID, account: Account) -> None:
    made = [await insert(database, ours, account) for _ in range(5)]
    found: list[UUID] = []
    after = None
    while page := await invitations.list_invitations(database, organization_id=ours, page=Page(2, after)):
        found += [each.invitation.id for each in page]
        after = Cursor(page[-1].invitation.created_at, page[-1].invitation.id)
    assert found == [each.id for each in reversed(made)]


_MANY = """
    INSERT INTO invitations (id, organization_id, email, role, role_ids, token_hash, created_by, expires_at)
    SELECT gen_random_uuid(), invitations.organization_id, n || '@example.com', 'member', '{}', sha256(n::text::bytea),
        invitations.created_by, now() + interval '7 days'
    FROM invitations, generate_series(1, 5000) AS n
"""


async def test_received_invitations_are_found_by_an_index_of_addresses(
    database: Database, ours: UUID, account: Account, dsn: str
) -> None:
    await insert(database, ours, account)
    with psycopg.connect(dsn) as connection:
        connection.execute(_MANY)
        plan = generic_plan(connection, invitations._RECEIVED_LISTING._statement, "invitations")
        connection.rollback()
    assert "ix_invitations_folded_email_pending" in plan, plan
