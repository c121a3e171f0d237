import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, text, update

from accord_auth import sessions as sessions_module
from accord_auth.sessions import Sessions
from accord_auth.tokens import new_session_token, token_hash
from accord_db.engine.database import Database
from accord_db.engine.errors import Unavailable
from accord_db.engine.ids import uuid7
from accord_db.queries.accounts import delete_account
from accord_db.queries.sessions import (
    insert_session,
    revoke_session,
    revoke_sessions_of_account,
    update_session_use,
)
from accord_db.schema import Account, Session
from tests.auth.conftest import HOUR, DelayedLookup, EndSilently, Line, change_session, process, until_refused


async def test_session_authenticates_its_account(here: Sessions, account_id: UUID) -> None:
    token, session = await here.open(here._database, account_id)
    found = await here.authenticate(token)
    assert found is not None
    assert (found.caller.credential_id, found.caller.account_id) == (session.id, account_id)
    assert found.valid_until == session.expires_at
    assert await here.authenticate(token) == found


async def test_session_lasts_for_the_configured_lifetime(dsn: str, account_id: UUID) -> None:
    async with process(dsn, lifetime=timedelta(days=3)) as sessions:
        _, session = await sessions.open(sessions._database, account_id)
    assert session.expires_at - session.created_at == timedelta(days=3)
    assert abs(session.created_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_session_token_is_not_stored(here: Sessions, database: Database, account_id: UUID) -> None:
    token, _ = await here.open(here._database, account_id, peer="192.0.2.1", user_agent="test/1")
    row = await database.fetch_one(select(func.row_to_json(text("sessions.*"))).select_from(Session))
    assert token not in str(row)
    assert token.removeprefix("acs_") not in str(row)
    assert token_hash(token).hex() in str(row)


async def test_long_user_agent_is_truncated(here: Sessions, account_id: UUID) -> None:
    _, session = await here.open(here._database, account_id, user_agent="x" * 8_000)
    assert session.user_agent == "x" * 256


async def test_unknown_session_token_is_refused(here: Sessions) -> None:
    assert await here.authenticate(new_session_token()) is None


async def test_malformed_session_token_is_refused_without_a_query(dsn: str) -> None:
    async with process(dsn) as sessions:
        await sessions._database.close()
        assert await sessions.authenticate("acs_" + "A" * 48) is None
        assert await sessions.authenticate("") is None
        with pytest.raises(Unavailable):
            await sessions.authenticate(new_session_token())


async def test_expired_session_is_refused(dsn: str, account_id: UUID) -> None:
    async with process(dsn, lifetime=timedelta(0)) as sessions:
        token, _ = await sessions.open(sessions._database, account_id)
        assert await sessions.authenticate(token) is None


async def test_cached_session_is_refused_when_it_expires(dsn: str, account_id: UUID) -> None:
    async with process(dsn, lifetime=timedelta(seconds=1)) as sessions:
        token, _ = await sessions.open(sessions._database, account_id)
        assert await sessions.authenticate(token)
        await asyncio.sleep(1)
        assert await sessions.authenticate(token) is None


async def test_session_of_a_deleted_account_is_refused(here: Sessions, database: Database, account_id: UUID) -> None:
    token, _ = await here.open(here._database, account_id)
    await delete_account(database, account_id=account_id)
    assert await here.authenticate(token) is None


async def test_session_of_a_banned_account_is_refused(here: Sessions, database: Database, account_id: UUID) -> None:
    token, _ = await here.open(here._database, account_id)
    await database.execute(update(Account).where(Account.id == account_id).values(banned_at=func.now()))
    assert await here.authenticate(token) is None


async def test_idle_expiry_is_as_configured_and_never_after_the_expiry(dsn: str, account_id: UUID) -> None:
    async with process(dsn, lifetime=timedelta(days=3), idle_lifetime=timedelta(days=2)) as sessions:
        _, session = await sessions.open(sessions._database, account_id)
    assert session.idle_expires_at - session.created_at == timedelta(days=2)
    async with process(dsn, lifetime=timedelta(days=3), idle_lifetime=timedelta(days=9)) as sessions:
        _, session = await sessions.open(sessions._database, account_id)
    assert session.idle_expires_at == session.expires_at


async def test_session_records_when_its_user_authenticated(here: Sessions, account_id: UUID) -> None:
    _, session = await here.open(here._database, account_id)
    assert session.authenticated_at == session.created_at
    earlier = session.created_at - timedelta(minutes=5)
    token, _ = await here.open(here._database, account_id, authenticated_at=earlier)
    found = await here.authenticate(token)
    assert found is not None
    assert found.caller.authenticated_at == earlier


async def test_idle_session_is_refused(here: Sessions, database: Database, account_id: UUID) -> None:
    token, _ = await here.open(here._database, account_id)
    await change_session(database, token, idle_expires_at=func.now())
    assert await here.authenticate(token) is None


async def test_use_extends_the_idle_expiry_but_never_past_the_expiry(
    dsn: str, database: Database, account_id: UUID
) -> None:
    async with process(dsn, lifetime=timedelta(days=3), idle_lifetime=timedelta(days=2), cache_seconds=0) as sessions:
        token, opened = await sessions.open(sessions._database, account_id)
        used_before = opened.created_at - timedelta(days=1)
        await change_session(database, token, last_used_at=used_before, idle_expires_at=opened.created_at + HOUR)
        assert await sessions.authenticate(token)
        now = await change_session(database, token, peer=None)
        assert now.last_used_at > opened.last_used_at
        assert now.idle_expires_at - now.last_used_at == timedelta(days=2)
        await change_session(database, token, last_used_at=used_before, expires_at=opened.created_at + HOUR)
        assert await sessions.authenticate(token)
        now = await change_session(database, token, peer=None)
        assert now.idle_expires_at == opened.created_at + HOUR


async def test_use_of_a_session_is_recorded_once_a_minute(dsn: str, database: Database, account_id: UUID) -> None:
    async with process(dsn, cache_seconds=0) as sessions:
        token, opened = await sessions.open(sessions._database, account_id)
        for seconds, written in ((0, False), (59, False), (60, True)):
            before = opened.created_at - timedelta(seconds=seconds)
            await change_session(database, token, last_used_at=before)
            found = await asyncio.gather(*(sessions.authenticate(token) for _ in range(5)))
            assert all(found)
            assert ((await change_session(database, token, peer=None)).last_used_at != before) == written


async def test_session_in_use_does_not_idle_out_after_seconds(dsn: str, account_id: UUID) -> None:
    """Although it is cached for longer than it may idle."""
    async with process(dsn, idle_lifetime=timedelta(seconds=1)) as sessions:
        token, opened = await sessions.open(sessions._database, account_id)
        while datetime.now(UTC) < opened.created_at + timedelta(seconds=1.5):
            assert await sessions.authenticate(token)
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        assert await sessions.authenticate(token) is None


async def test_recording_the_use_of_a_session_does_not_wait_for_its_row_lock(
    dsn: str, database: Database, account_id: UUID
) -> None:
    async with process(dsn, cache_seconds=0) as sessions:
        token, session = await sessions.open(sessions._database, account_id)
        await change_session(database, token, last_used_at=session.created_at - HOUR)
        async with database.transaction() as tx:
            await revoke_session(tx, session_id=session.id, account_id=account_id)
            async with asyncio.timeout(2):
                assert await sessions.authenticate(token)
        assert await sessions.authenticate(token) is None


async def test_use_does_not_revive_an_expired_session(here: Sessions, database: Database, account_id: UUID) -> None:
    token, session = await here.open(here._database, account_id)
    await change_session(database, token, last_used_at=session.created_at - HOUR, idle_expires_at=func.now())
    assert await update_session_use(database, session_id=session.id, idle_lifetime=HOUR) is None


async def test_cached_session_needs_no_query(here: Sessions, account_id: UUID, end_silently: EndSilently) -> None:
    token, _ = await here.open(here._database, account_id)
    found = await here.authenticate(token)
    await end_silently(token)
    assert await here.authenticate(token) is found


async def test_session_is_cached_for_seconds_only(dsn: str, account_id: UUID, end_silently: EndSilently) -> None:
    async with process(dsn, cache_seconds=0.2) as sessions:
        token, _ = await sessions.open(sessions._database, account_id)
        assert await sessions.authenticate(token)
        await end_silently(token)
        await asyncio.sleep(0.2)
        assert await sessions.authenticate(token) is None


async def test_absent_session_is_not_cached(here: Sessions, database: Database, account_id: UUID) -> None:
    """As when the transaction that opens it has not committed yet."""
    token, _ = await here.open(here._database, account_id)
    row = await database.fetch_one(delete(Session).where(Session.token_hash == token_hash(token)).returning(Session))
    assert row is not None
    assert await here.authenticate(token) is None
    await insert_session(database, session_id=row.id, account_id=account_id, token_hash=row.token_hash, lifetime=HOUR)
    assert await here.authenticate(token)


async def test_revoked_session_is_refused_at_once_in_the_same_process(deaf: Sessions, account_id: UUID) -> None:
    token, session = await deaf.open(deaf._database, account_id)
    assert await deaf.authenticate(token)
    await deaf.revoke(deaf._database, session_id=session.id, account_id=account_id)
    assert await deaf.authenticate(token) is None


async def test_revoked_session_is_refused_in_other_processes(here: Sessions, there: Sessions, account_id: UUID) -> None:
    token, session = await here.open(here._database, account_id)
    other_token, _ = await here.open(here._database, account_id)
    assert await there.authenticate(token)
    assert await there.authenticate(other_token)
    await here.revoke(here._database, session_id=session.id, account_id=account_id)
    await until_refused(there, token)
    assert await there.authenticate(other_token)


async def test_other_processes_drop_the_revoked_session_alone(
    here: Sessions, there: Sessions, account_id: UUID, end_silently: EndSilently
) -> None:
    token, session = await here.open(here._database, account_id)
    other_token, _ = await here.open(here._database, account_id)
    assert await there.authenticate(token)
    assert await there.authenticate(other_token)
    await end_silently(other_token)
    await here.revoke(here._database, session_id=session.id, account_id=account_id)
    await until_refused(there, token)
    assert await there.authenticate(other_token)  # still cached


async def test_session_of_another_account_is_not_revoked(here: Sessions, account_id: UUID) -> None:
    token, session = await here.open(here._database, account_id)
    await here.revoke(here._database, session_id=session.id, account_id=uuid7())
    assert await here.authenticate(token)


async def test_second_revocation_changes_nothing(here: Sessions, account_id: UUID) -> None:
    token, session = await here.open(here._database, account_id)
    await here.revoke(here._database, session_id=session.id, account_id=account_id)
    await here.revoke(here._database, session_id=session.id, account_id=account_id)
    assert await here.authenticate(token) is None


async def test_revoke_all_ends_the_account_s_other_sessions_and_counts_the_valid_ones(
    here: Sessions, there: Sessions, database: Database, account_id: UUID
) -> None:
    tokens = [(await here.open(here._database, account_id))[0] for _ in range(3)]
    _, kept = await here.open(here._database, account_id)
    await change_session(database, tokens[0], idle_expires_at=func.now())
    for token in tokens[1:]:
        assert await here.authenticate(token)
        assert await there.authenticate(token)
    assert await here.revoke_all(here._database, account_id, but=kept.id) == 2
    for token in tokens[1:]:
        assert await here.authenticate(token) is None
        await until_refused(there, token)
    assert await here.revoke_all(here._database, account_id) == 1
    assert await here.revoke_all(here._database, account_id) == 0


async def test_cancelled_revoke_all_drops_the_cached_sessions(
    deaf: Sessions, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, _ = await deaf.open(deaf._database, account_id)
    assert await deaf.authenticate(token)

    async def revoked_but_cancelled(db: Database, *, account_id: UUID, but: UUID | None) -> None:
        await revoke_sessions_of_account(db, account_id=account_id, but=but)
        raise asyncio.CancelledError

    monkeypatch.setattr(sessions_module, "revoke_sessions_of_account", revoked_but_cancelled)
    with pytest.raises(asyncio.CancelledError):
        await deaf.revoke_all(deaf._database, account_id)
    assert await deaf.authenticate(token) is None


async def test_renewed_session_has_a_new_token_and_the_old_one_is_refused_everywhere(
    here: Sessions, there: Sessions, account_id: UUID
) -> None:
    token, session = await here.open(here._database, account_id)
    assert await here.authenticate(token)
    assert await there.authenticate(token)
    renewed = await here.renew(
        here._database, session_id=session.id, account_id=account_id, authenticated_at=session.authenticated_at
    )
    assert renewed is not None
    new_token, same = renewed
    assert same.id == session.id
    assert same.authenticated_at > session.authenticated_at
    assert await here.authenticate(token) is None
    await until_refused(there, token)
    for sessions in (here, there):
        found = await sessions.authenticate(new_token)
        assert found is not None
        assert (found.caller.session_id, found.caller.authenticated_at) == (session.id, same.authenticated_at)


async def test_one_of_ten_concurrent_renewals_succeeds(here: Sessions, account_id: UUID) -> None:
    _, session = await here.open(here._database, account_id)
    seen = {"session_id": session.id, "account_id": account_id, "authenticated_at": session.authenticated_at}
    renewed = await asyncio.gather(*(here.renew(here._database, **seen) for _ in range(10)))  # type: ignore[arg-type]
    (valid,) = [each for each in renewed if each is not None]
    assert await here.authenticate(valid[0])


async def test_ended_session_is_not_renewed(here: Sessions, account_id: UUID) -> None:
    _, session = await here.open(here._database, account_id)
    await here.revoke(here._database, session_id=session.id, account_id=account_id)
    seen = session.authenticated_at
    assert await here.renew(here._database, session_id=session.id, account_id=account_id, authenticated_at=seen) is None
    assert await here.renew(here._database, session_id=session.id, account_id=uuid7(), authenticated_at=seen) is None


async def test_revoke_all_takes_effect_when_its_transaction_commits(
    here: Sessions, there: Sessions, database: Database, account_id: UUID
) -> None:
    tokens = [(await here.open(here._database, account_id))[0] for _ in range(3)]
    for token in tokens:
        assert await there.authenticate(token)
    async with database.transaction() as tx:
        assert len(await revoke_sessions_of_account(tx, account_id=account_id)) == 3
        await asyncio.sleep(0.1)
        assert await there.authenticate(tokens[0])
    for token in tokens:
        await until_refused(there, token)


async def test_rolled_back_revocation_changes_nothing(
    here: Sessions, there: Sessions, database: Database, account_id: UUID
) -> None:
    token, session = await here.open(here._database, account_id)
    assert await there.authenticate(token)
    with suppress(LookupError):
        async with database.transaction() as tx:
            assert await revoke_session(tx, session_id=session.id, account_id=account_id)
            raise LookupError
    await asyncio.sleep(0.1)
    assert await there.authenticate(token)
    assert await here.authenticate(token)


async def test_notice_with_an_account_id_drops_its_sessions(
    here: Sessions, database: Database, account_id: UUID, end_silently: EndSilently
) -> None:
    token, _ = await here.open(here._database, account_id)
    assert await here.authenticate(token)
    await end_silently(token)
    await database.fetch_one(select(func.pg_notify("accord_sessions", str(account_id))))
    await until_refused(here, token)


@pytest.mark.parametrize("payload", ["", "all", "0" * 31, "\N{SNOWMAN}"])
async def test_malformed_notice_drops_everything(
    here: Sessions, database: Database, account_id: UUID, end_silently: EndSilently, payload: str
) -> None:
    token, _ = await here.open(here._database, account_id)
    assert await here.authenticate(token)
    await end_silently(token)
    await database.fetch_one(select(func.pg_notify("accord_sessions", payload)))
    await until_refused(here, token)


async def test_result_read_before_a_revocation_is_not_cached(
    deaf: Sessions, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, session = await deaf.open(deaf._database, account_id)
    lookup = DelayedLookup(monkeypatch)
    finding = asyncio.create_task(deaf.authenticate(token))
    await lookup.read.wait()
    await deaf.revoke(deaf._database, session_id=session.id, account_id=account_id)
    lookup.arrive.set()
    assert await finding  # the call began before the revocation; the next one must be refused
    assert await deaf.authenticate(token) is None


async def test_result_read_before_a_notice_is_not_cached(
    here: Sessions, there: Sessions, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, session = await here.open(here._database, account_id)
    noticed = asyncio.Event()
    drop = there.cache._callers.drop

    def drop_and_tell(revoked: UUID) -> None:
        drop(revoked)
        noticed.set()

    monkeypatch.setattr(there.cache._callers, "drop", drop_and_tell)
    lookup = DelayedLookup(monkeypatch)
    finding = asyncio.create_task(there.authenticate(token))
    await lookup.read.wait()
    await here.revoke(here._database, session_id=session.id, account_id=account_id)
    await noticed.wait()
    lookup.arrive.set()
    assert await finding
    assert await there.authenticate(token) is None


async def test_cancelled_revocation_drops_the_cached_session(
    deaf: Sessions, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, session = await deaf.open(deaf._database, account_id)
    assert await deaf.authenticate(token)

    async def revoked_but_cancelled(db: Database, *, session_id: UUID, account_id: UUID) -> None:
        await revoke_session(db, session_id=session_id, account_id=account_id)
        raise asyncio.CancelledError

    monkeypatch.setattr(sessions_module, "revoke_session", revoked_but_cancelled)
    with pytest.raises(asyncio.CancelledError):
        await deaf.revoke(deaf._database, session_id=session.id, account_id=account_id)
    assert await deaf.authenticate(token) is None


async def test_cache_is_not_used_while_notices_cannot_arrive(
    here: Sessions, account_id: UUID, line: Line, end_silently: EndSilently
) -> None:
    tokens = [(await here.open(here._database, account_id))[0] for _ in range(3)]
    for token in tokens:
        assert await here.authenticate(token)
    with line.cut():
        await line.down()
        await end_silently(tokens[0])
        assert await here.authenticate(tokens[0]) is None
        assert await here.authenticate(tokens[1])
        await end_silently(tokens[1])
        assert await here.authenticate(tokens[1]) is None  # nor was it cached since
        await end_silently(tokens[2])
    await line.up()
    assert await here.authenticate(tokens[2]) is None  # nor is an earlier cache entry


async def test_sessions_are_cached_again_when_notices_arrive_again(
    here: Sessions, there: Sessions, account_id: UUID, line: Line, end_silently: EndSilently
) -> None:
    token, session = await here.open(here._database, account_id)
    other_token, _ = await here.open(here._database, account_id)
    async with asyncio.timeout(20):
        await there.cache._listener.close()  # one connection is enough to cut
        with line.cut():
            await line.down()
        await line.up()
    assert await here.authenticate(other_token)
    await end_silently(other_token)
    assert await here.authenticate(other_token)
    assert await here.authenticate(token)
    await there.revoke(there._database, session_id=session.id, account_id=account_id)
    await until_refused(here, token)


async def test_result_read_without_notices_is_not_cached(
    here: Sessions, account_id: UUID, line: Line, end_silently: EndSilently, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, _ = await here.open(here._database, account_id)
    lookup = DelayedLookup(monkeypatch)
    with line.cut():
        await line.down()
        finding = asyncio.create_task(here.authenticate(token))
        await lookup.read.wait()
        await end_silently(token)
    await line.up()
    lookup.arrive.set()
    assert await finding
    assert await here.authenticate(token) is None


async def test_revoked_session_is_refused_by_another_operating_system_process(
    here: Sessions, account_id: UUID, dsn: str
) -> None:
    token, session = await here.open(here._database, account_id)
    other_token, _ = await here.open(here._database, account_id)
    async with another_process(dsn) as check:
        for _ in range(3):
            assert await check(token) == "found"
            assert await check(other_token) == "found"
        await here.revoke(here._database, session_id=session.id, account_id=account_id)
        async with asyncio.timeout(5):  # for the notice; the other process caches for a minute
            while await check(token) != "refused":
                await asyncio.sleep(0.01)
        assert await check(other_token) == "found"


async def test_other_operating_system_process_caches_sessions(
    here: Sessions, account_id: UUID, dsn: str, end_silently: EndSilently
) -> None:
    token, _ = await here.open(here._database, account_id)
    async with another_process(dsn) as check:
        assert await check(token) == "found"
        await end_silently(token)
        assert await check(token) == "found"


@asynccontextmanager
async def another_process(dsn: str) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    program = Path(__file__).with_name("session_process.py")
    child = await asyncio.create_subprocess_exec(
        sys.executable, program, dsn, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    stdin, stdout = child.stdin, child.stdout

    async def check(token: str) -> str:
        stdin.write(f"{token}\n".encode())
        return (await asyncio.wait_for(stdout.readline(), 20)).decode().strip()

    try:
        assert (await asyncio.wait_for(stdout.readline(), 20)).strip() == b"ready"
        yield check
    finally:
        stdin.close()
        await asyncio.wait_for(child.wait(), 20)
    assert child.returncode == 0
