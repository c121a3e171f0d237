"""Sessions: good until they expire, are revoked, or their account is gone; and everybody is told of it."""

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from accord_db.engine.database import Database
from accord_db.engine.errors import AlreadyExists, InvalidValue
from accord_db.engine.ids import uuid7
from accord_db.queries import sessions
from accord_db.queries.accounts import ban_account, delete_account, unban_account, update_role
from accord_db.schema import Account, Session
from tests.db.conftest import NewAccount

DAY = timedelta(days=1)
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def token_hash(token: str = "token") -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def insert(database: Database, account: Account, token: str = "token", lifetime: timedelta = DAY) -> Session:
    return await sessions.insert_session(
        database, session_id=uuid7(), account_id=account.id, token_hash=token_hash(token), lifetime=lifetime
    )


async def impersonated(database: Database, account: Account, administrator: Account, token: str = "token") -> Session:
    await update_role(database, account_id=administrator.id, role="administrator")
    return await sessions.insert_session(
        database,
        session_id=uuid7(),
        account_id=account.id,
        token_hash=token_hash(token),
        lifetime=DAY,
        impersonator_id=administrator.id,
    )


async def is_live(database: Database, token: str = "token") -> bool:
    return await sessions.get_session_by_token_hash(database, token_hash=token_hash(token)) is not None


async def test_a_session_is_found_by_its_token_with_whose_it_is(database: Database, account: Account) -> None:
    made = await insert(database, account)
    found = await sessions.get_session_by_token_hash(database, token_hash=token_hash())
    assert found is not None
    assert (found.id, found.account_id) == (made.id, account.id)
    assert (found.created_at, found.expires_at) == (made.created_at, made.expires_at)


async def test_a_session_expires_after_its_lifetime_by_the_clock_of_the_database(
    database: Database, account: Account
) -> None:
    session = await insert(database, account, lifetime=timedelta(days=30, seconds=5, microseconds=7))
    assert session.expires_at - session.created_at == timedelta(days=30, seconds=5, microseconds=7)


async def test_an_expired_session_is_none(database: Database, account: Account) -> None:
    await insert(database, account, lifetime=timedelta(0))
    assert not await is_live(database)


async def test_an_unknown_token_is_none(database: Database, account: Account) -> None:
    await insert(database, account)
    assert not await is_live(database, "another")


async def test_the_session_of_a_deleted_account_is_none(database: Database, account: Account) -> None:
    await insert(database, account)
    await delete_account(database, account_id=account.id)
    assert not await is_live(database)


async def test_the_session_of_a_banned_account_is_none_until_the_ban_is_lifted(
    database: Database, account: Account
) -> None:
    await insert(database, account)
    assert await ban_account(database, account_id=account.id) is not None
    assert not await is_live(database)
    assert await sessions.list_live_sessions(database, token_hashes=[token_hash()]) == {}
    assert await unban_account(database, account_id=account.id) is not None
    assert await is_live(database)


async def test_banned_twice_is_banned_since_the_first_time(database: Database, account: Account) -> None:
    first = await ban_account(database, account_id=account.id, reason="spam")
    second = await ban_account(database, account_id=account.id, reason="more spam", until=LATER)
    assert first is not None
    assert second is not None
    assert first.banned_at == second.banned_at is not None
    assert (second.ban_reason, second.banned_until) == ("more spam", LATER)


async def test_a_ban_is_over_at_its_time_and_the_next_one_begins_anew(database: Database, account: Account) -> None:
    await insert(database, account)
    first = await ban_account(database, account_id=account.id, until=LATER)
    assert not await is_live(database)
    await ban_account(database, account_id=account.id, until=datetime.now(UTC) - timedelta(seconds=1))
    assert await is_live(database)
    next_one = await ban_account(database, account_id=account.id)
    assert not await is_live(database)
    assert first is not None
    assert first.banned_at is not None
    assert next_one is not None
    assert next_one.banned_at is not None
    assert first.banned_at < next_one.banned_at


async def test_nobody_to_ban_is_none(database: Database, account: Account) -> None:
    await delete_account(database, account_id=account.id)
    assert await ban_account(database, account_id=account.id) is None
    assert await unban_account(database, account_id=account.id) is None


async def test_a_session_may_idle_as_long_as_it_lasts_unless_it_is_said(database: Database, account: Account) -> None:
    session = await insert(database, account)
    assert session.idle_expires_at == session.expires_at
    for idle_lifetime, lasts in ((DAY / 2, DAY / 2), (2 * DAY, DAY)):
        session = await sessions.insert_session(
            database,
            session_id=uuid7(),
            account_id=account.id,
            token_hash=token_hash(str(idle_lifetime)),
            lifetime=DAY,
            idle_lifetime=idle_lifetime,
        )
        assert session.idle_expires_at - session.created_at == lasts


async def test_good_tokens_are_told_with_the_end_of_their_sessions(database: Database, account: Account) -> None:
    short = await insert(database, account, "short", DAY)
    long = await insert(database, account, "long", 2 * DAY)
    revoked = await insert(database, account, "revoked")
    await insert(database, account, "expired", timedelta(0))
    await sessions.revoke_session(database, session_id=revoked.id, account_id=account.id)
    tokens = ["short", "long", "revoked", "expired", "unknown"]
    live = await sessions.list_live_sessions(database, token_hashes=[token_hash(token) for token in tokens])
    assert {key: session.expires_at for key, session in live.items()} == {
        token_hash("short"): short.expires_at,
        token_hash("long"): long.expires_at,
    }
    assert await sessions.list_live_sessions(database, token_hashes=[]) == {}


async def test_two_sessions_cannot_have_one_token(database: Database, account: Account) -> None:
    await insert(database, account)
    with pytest.raises(AlreadyExists):
        await insert(database, account)


async def test_what_is_no_hash_is_refused(database: Database, account: Account) -> None:
    with pytest.raises(InvalidValue):
        await sessions.insert_session(
            database, session_id=uuid7(), account_id=account.id, token_hash=b"token", lifetime=DAY
        )


async def test_revoke_session_ends_it_and_leaves_the_others(database: Database, account: Account) -> None:
    session = await insert(database, account)
    await insert(database, account, "another")
    assert await sessions.revoke_session(database, session_id=session.id, account_id=account.id) == session.id
    assert not await is_live(database)
    assert await is_live(database, "another")
    assert await sessions.revoke_session(database, session_id=session.id, account_id=account.id) is None


async def test_revoke_session_of_another_account_is_none(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    session, other = await insert(database, account), await new_account()
    assert await sessions.revoke_session(database, session_id=session.id, account_id=other.id) is None
    assert await is_live(database)


async def test_revoke_sessions_of_account_ends_all_of_them_and_nobody_elses(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    mine = [await insert(database, account, token) for token in ("1", "2")]
    await insert(database, await new_account(), "theirs")
    revoked = await sessions.revoke_sessions_of_account(database, account_id=account.id)
    assert sorted(revoked) == sorted(session.id for session in mine)
    assert [await is_live(database, token) for token in ("1", "2", "theirs")] == [False, False, True]


async def test_revocation_is_announced_when_it_is_committed(database: Database, account: Account, dsn: str) -> None:
    session = await insert(database, account)
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN accord_sessions")
        async with database.transaction() as transaction:
            await sessions.revoke_session(transaction, session_id=session.id, account_id=account.id)
            assert announced(listener) == []
        assert announced(listener) == [session.id]


async def test_revocation_that_is_rolled_back_is_not_announced(database: Database, account: Account, dsn: str) -> None:
    session = await insert(database, account)
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN accord_sessions")
        with suppress(ZeroDivisionError):
            async with database.transaction() as transaction:
                await sessions.revoke_session(transaction, session_id=session.id, account_id=account.id)
                raise ZeroDivisionError
        assert announced(listener) == []
    assert await is_live(database)


def announced(listener: psycopg.Connection) -> list[UUID]:
    return [UUID(notice.payload) for notice in listener.notifies(timeout=0.2)]


async def test_an_impersonated_session_is_good_as_long_as_its_administrator_is_one(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    administrator = await new_account()
    await impersonated(database, account, administrator)
    assert await is_live(database)
    await update_role(database, account_id=administrator.id, role="person")
    assert not await is_live(database)


@pytest.mark.parametrize("gone", [ban_account, delete_account])
async def test_an_impersonated_session_is_none_when_its_administrator_is_kept_out(
    database: Database, account: Account, new_account: NewAccount, gone: Callable[..., Awaitable[object]]
) -> None:
    administrator = await new_account()
    await impersonated(database, account, administrator)
    await gone(database, account_id=administrator.id)
    assert not await is_live(database)


async def test_nobody_acts_as_somebody_who_has_become_an_administrator(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    await impersonated(database, account, await new_account())
    await update_role(database, account_id=account.id, role="administrator")
    assert not await is_live(database)


@pytest.mark.parametrize("whose", ["person", "administrator"])
async def test_who_ends_all_sessions_ends_those_in_which_somebody_acts_as_somebody(
    database: Database, account: Account, new_account: NewAccount, whose: str
) -> None:
    administrator = await new_account()
    session = await impersonated(database, account, administrator)
    by = account if whose == "person" else administrator
    assert await sessions.revoke_sessions_of_account(database, account_id=by.id) == [session.id]
    assert not await is_live(database)


async def test_revoke_impersonations_leaves_sessions_of_their_own(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    administrator, other = await new_account(), await new_account()
    await impersonated(database, account, administrator, "acting")
    await impersonated(database, other, administrator, "acting as another")
    await insert(database, account, "own")
    await insert(database, administrator, "the administrator's own")
    await sessions.revoke_impersonations(database, account_id=account.id)
    tokens = ("acting", "acting as another", "own", "the administrator's own")
    assert [await is_live(database, token) for token in tokens] == [False, True, True, True]
    await sessions.revoke_impersonations(database, account_id=administrator.id)
    assert [await is_live(database, token) for token in tokens] == [False, False, True, True]
