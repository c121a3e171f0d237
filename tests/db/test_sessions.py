"""Sessions: valid until they expire, are revoked, or their account is banned or deleted; revocations are notified."""

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


async def test_session_is_found_by_its_token(database: Database, account: Account) -> None:
    made = await insert(database, account)
    found = await sessions.get_session_by_token_hash(database, token_hash=token_hash())
    assert found is not None
    assert (found.id, found.account_id) == (made.id, account.id)
    assert (found.created_at, found.expires_at) == (made.created_at, made.expires_at)


async def test_session_expires_after_its_lifetime_by_the_database_clock(database: Database, account: Account) -> None:
    session = await insert(database, account, lifetime=timedelta(days=30, seconds=5, microseconds=7))
    assert session.expires_at - session.created_at == timedelta(days=30, seconds=5, microseconds=7)


async def test_expired_session_is_not_found(database: Database, account: Account) -> None:
    await insert(database, account, lifetime=timedelta(0))
    assert not await is_live(database)


async def test_unknown_token_is_not_found(database: Database, account: Account) -> None:
    await insert(database, account)
    assert not await is_live(database, "another")


async def test_session_of_a_deleted_account_is_not_found(database: Database, account: Account) -> None:
    await insert(database, account)
    await delete_account(database, account_id=account.id)
    assert not await is_live(database)


async def test_session_of_a_banned_account_is_not_found_until_the_ban_is_lifted(
    database: Database, account: Account
) -> None:
    await insert(database, account)
    assert await ban_account(database, account_id=account.id) is not None
    assert not await is_live(database)
    assert await sessions.list_live_sessions(database, token_hashes=[token_hash()]) == {}
    assert await unban_account(database, account_id=account.id) is not None
    assert await is_live(database)


async def test_second_ban_keeps_the_time_of_the_first(database: Database, account: Account) -> None:
    first = await ban_account(database, account_id=account.id, reason="spam")
    second = await ban_account(database, account_id=account.id, reason="more spam", until=LATER)
    assert first is not None
    assert second is not None
    assert first.banned_at == second.banned_at is not None
    assert (second.ban_reason, second.banned_until) == ("more spam", LATER)


async def test_ban_ends_at_its_time_and_the_next_one_gets_a_new_time(database: Database, account: Account) -> None:
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


async def test_ban_and_unban_of_a_deleted_account_are_none(database: Database, account: Account) -> None:
    await delete_account(database, account_id=account.id)
    assert await ban_account(database, account_id=account.id) is None
    assert await unban_account(database, account_id=account.id) is None


async def test_session_without_an_idle_lifetime_can_idle_until_it_expires(database: Database, account: Account) -> None:
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


async def test_list_live_sessions_returns_the_valid_sessions_by_token(database: Database, account: Account) -> None:
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


async def test_token_hashes_of_sessions_are_unique(database: Database, account: Account) -> None:
    await insert(database, account)
    with pytest.raises(AlreadyExists):
        await insert(database, account)


async def test_token_hash_that_is_not_a_sha256_is_invalid(database: Database, account: Account) -> None:
    with pytest.raises(InvalidValue):
        await sessions.insert_session(
            database, session_id=uuid7(), account_id=account.id, token_hash=b"token", lifetime=DAY
        )


async def test_revoke_session_ends_only_this_session(database: Database, account: Account) -> None:
    session = await insert(database, account)
    await insert(database, account, "another")
    assert await sessions.revoke_session(database, session_id=session.id, account_id=account.id) == session.id
    assert not await is_live(database)
    assert await is_live(database, "another")
    assert await sessions.revoke_session(database, session_id=session.id, account_id=account.id) is None


async def test_revoke_session_of_another_account_is_none_and_changes_nothing(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    session, other = await insert(database, account), await new_account()
    assert await sessions.revoke_session(database, session_id=session.id, account_id=other.id) is None
    assert await is_live(database)


async def test_revoke_sessions_of_account_ends_only_the_sessions_of_the_account(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    mine = [await insert(database, account, token) for token in ("1", "2")]
    await insert(database, await new_account(), "theirs")
    revoked = await sessions.revoke_sessions_of_account(database, account_id=account.id)
    assert sorted(revoked) == sorted(session.id for session in mine)
    assert [await is_live(database, token) for token in ("1", "2", "theirs")] == [False, False, True]


async def test_revocation_is_notified_at_commit(database: Database, account: Account, dsn: str) -> None:
    session = await insert(database, account)
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN accord_sessions")
        async with database.transaction() as transaction:
            await sessions.revoke_session(transaction, session_id=session.id, account_id=account.id)
            assert notified(listener) == []
        assert notified(listener) == [session.id]


async def test_rolled_back_revocation_is_not_notified(database: Database, account: Account, dsn: str) -> None:
    session = await insert(database, account)
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN accord_sessions")
        with suppress(ZeroDivisionError):
            async with database.transaction() as transaction:
                await sessions.revoke_session(transaction, session_id=session.id, account_id=account.id)
                raise ZeroDivisionError
        assert notified(listener) == []
    assert await is_live(database)


def notified(listener: psycopg.Connection) -> list[UUID]:
    return [UUID(notification.payload) for notification in listener.notifies(timeout=0.2)]


async def test_impersonated_session_ends_when_the_impersonator_is_no_administrator(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    administrator = await new_account()
    await impersonated(database, account, administrator)
    assert await is_live(database)
    await update_role(database, account_id=administrator.id, role="person")
    assert not await is_live(database)


@pytest.mark.parametrize("gone", [ban_account, delete_account])
async def test_impersonated_session_ends_when_the_impersonator_is_banned_or_deleted(
    database: Database, account: Account, new_account: NewAccount, gone: Callable[..., Awaitable[object]]
) -> None:
    administrator = await new_account()
    await impersonated(database, account, administrator)
    await gone(database, account_id=administrator.id)
    assert not await is_live(database)


async def test_impersonated_session_ends_when_the_account_becomes_an_administrator(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    await impersonated(database, account, await new_account())
    await update_role(database, account_id=account.id, role="administrator")
    assert not await is_live(database)


@pytest.mark.parametrize("side", ["person", "administrator"])
async def test_revoke_sessions_of_account_ends_impersonated_sessions_of_either_side(
    database: Database, account: Account, new_account: NewAccount, side: str
) -> None:
    administrator = await new_account()
    session = await impersonated(database, account, administrator)
    revoked = account if side == "person" else administrator
    assert await sessions.revoke_sessions_of_account(database, account_id=revoked.id) == [session.id]
    assert not await is_live(database)


async def test_revoke_impersonations_keeps_other_sessions(
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


@pytest.mark.parametrize("change", ["revoked_at = now()", "expires_at = now()", "idle_expires_at = now()"])
async def test_metadata_of_an_ended_session_does_not_change(
    database: Database, account: Account, dsn: str, change: str
) -> None:
    session = await insert(database, account)
    place = {"session_id": session.id, "account_id": account.id}
    updated = await sessions.update_client_metadata(database, **place, client_metadata={"a": "b"})
    assert updated is not None
    assert updated.client_metadata == {"a": "b"}
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"UPDATE sessions SET {change}".encode())
    assert await sessions.update_client_metadata(database, **place, client_metadata={}) is None
    other = {**place, "account_id": uuid7()}
    assert await sessions.update_client_metadata(database, **other, client_metadata={}) is None


async def test_end_of_a_password_change_concerns_one_session_and_is_notified(
    database: Database, account: Account, dsn: str
) -> None:
    first, second = [
        await sessions.insert_session(
            database,
            session_id=uuid7(),
            account_id=account.id,
            token_hash=token_hash(token),
            lifetime=DAY,
            password_change_required=True,
        )
        for token in ("first", "second")
    ]
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute(f"LISTEN {sessions.REVOKED_CHANNEL}".encode())
        await sessions.end_password_change(database, session_id=first.id, account_id=account.id)
        assert [notice.payload for notice in listener.notifies(timeout=5, stop_after=1)] == [str(first.id)]
    required = []
    for token in ("first", "second"):
        found = await sessions.get_session_by_token_hash(database, token_hash=token_hash(token))
        assert found is not None
        required.append(found.password_change_required)
    assert required == [False, True]
    delegated = [
        await sessions.get_delegated_session(
            database, session_id=session.id, account_id=account.id, organization_id=None
        )
        for session in (first, second)
    ]
    assert [found is not None for found in delegated] == [True, False]
