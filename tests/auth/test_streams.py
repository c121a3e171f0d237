import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from accord.errors.v1.errors_pb2 import Reason
from accord_auth import sessions as sessions_module
from accord_auth import streams as streams_module
from accord_auth.sessions import Sessions
from accord_db.engine.database import Database
from accord_db.engine.errors import Unavailable
from accord_db.engine.scope import remaining, set_deadline
from accord_db.queries.accounts import ban_account, delete_account
from accord_db.queries.sessions import list_live_sessions
from accord_rpc.errors import RpcError
from tests.auth.conftest import DelayedLookup, EndSilently, Line, change_session, process, until

Stream = asyncio.Task[None]


async def run(sessions: Sessions, token: str, until_over: Callable[[], Awaitable[object]]) -> None:
    """Serves a stream."""
    changes = sessions.streams.changes
    found = await sessions.authenticate(token)
    assert found is not None
    with sessions.streams.hold(sessions, token, found, changes=changes):
        await until_over()


async def for_ever() -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def streaming(
    sessions: Sessions, token: str, until_over: Callable[[], Awaitable[object]] = for_ever
) -> AsyncIterator[Stream]:
    begun = asyncio.Event()

    async def served() -> None:
        begun.set()
        await until_over()

    stream = asyncio.create_task(run(sessions, token, served))
    await begun.wait()
    yield stream
    stream.cancel()
    await asyncio.wait([stream])


async def is_ended(stream: Stream, within: float = 5) -> bool:
    await asyncio.wait([stream], timeout=within)
    if not stream.done():
        return False
    with pytest.raises(RpcError) as refused:
        await stream
    return refused.value.reason == Reason.REASON_CREDENTIAL_INVALID


async def goes_on(stream: Stream, sessions: Sessions) -> bool:
    """Also after a recheck."""
    sessions.streams.all_changed()
    await asyncio.sleep(0.2)
    return not stream.done()


async def test_revocation_in_another_process_ends_the_stream_alone(
    here: Sessions, there: Sessions, account_id: UUID
) -> None:
    token, session = await here.open(here._database, account_id)
    other_token, _ = await here.open(here._database, account_id)
    async with streaming(there, token) as stream, streaming(there, token) as second, streaming(
        there, other_token
    ) as other:  # fmt: skip
        await here.revoke(here._database, session_id=session.id, account_id=account_id)
        assert await is_ended(stream)
        assert await is_ended(second)
        assert await goes_on(other, there)


async def test_revocation_in_the_same_process_ends_the_stream(here: Sessions, account_id: UUID) -> None:
    token, session = await here.open(here._database, account_id)
    async with streaming(here, token) as stream:
        await here.revoke(here._database, session_id=session.id, account_id=account_id)
        assert await is_ended(stream)


async def test_revoke_all_ends_the_stream(here: Sessions, there: Sessions, account_id: UUID) -> None:
    token, _ = await here.open(here._database, account_id)
    kept_token, kept = await here.open(here._database, account_id)
    async with streaming(there, token) as stream, streaming(there, kept_token) as other:
        await here.revoke_all(here._database, account_id, but=kept.id)
        assert await is_ended(stream)
        assert await goes_on(other, there)


async def test_rolled_back_revocation_does_not_end_the_stream(
    here: Sessions, database: Database, account_id: UUID
) -> None:
    token, session = await here.open(here._database, account_id)
    async with streaming(here, token) as stream:
        with suppress(LookupError):
            async with here._database.transaction() as tx:
                await here.revoke(tx, session_id=session.id, account_id=account_id)
                assert await goes_on(stream, here)  # it does not end before the commit
                raise LookupError
        assert await goes_on(stream, here)


async def test_renewal_ends_streams_of_the_old_token_alone(here: Sessions, there: Sessions, account_id: UUID) -> None:
    token, session = await here.open(here._database, account_id)
    async with streaming(there, token) as stream:
        renewed = await here.renew(
            here._database, session_id=session.id, account_id=account_id, authenticated_at=session.authenticated_at
        )
        assert renewed is not None
        async with streaming(there, renewed[0]) as new:
            assert await is_ended(stream)
            assert await goes_on(new, there)


async def test_revocation_while_a_stream_begins_ends_it(
    here: Sessions, there: Sessions, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, session = await here.open(here._database, account_id)
    lookup = DelayedLookup(monkeypatch)
    stream = asyncio.create_task(run(there, token, for_ever))
    await lookup.read.wait()
    await here.revoke(here._database, session_id=session.id, account_id=account_id)
    await until(lambda: there.streams.changes > 1)  # one is from the start of listening
    lookup.arrive.set()
    assert await is_ended(stream)


@pytest.mark.parametrize("limit", ["lifetime", "idle_lifetime"])
async def test_stream_ends_when_its_session_expires(dsn: str, account_id: UUID, limit: str) -> None:
    expiring: Any = {limit: timedelta(seconds=1)}
    async with process(dsn, **expiring) as sessions:
        token, _ = await sessions.open(sessions._database, account_id)
        async with streaming(sessions, token) as stream:
            assert await is_ended(stream)


async def test_stream_does_not_idle_out_while_its_session_is_used_elsewhere(
    dsn: str, there: Sessions, database: Database, account_id: UUID
) -> None:
    async with process(dsn, idle_lifetime=timedelta(seconds=1)) as sessions:
        token, session = await sessions.open(sessions._database, account_id)
        async with streaming(sessions, token) as stream:
            await change_session(database, token, idle_expires_at=session.expires_at)
            assert not await is_ended(stream, within=1.5)
            await change_session(database, token, idle_expires_at=func.now())
            assert await goes_on(stream, there)
            assert await goes_on(stream, sessions) is False


@pytest.mark.parametrize("gone", [ban_account, delete_account])
async def test_ban_or_deletion_ends_the_stream_without_a_notice(
    here: Sessions, database: Database, account_id: UUID, monkeypatch: pytest.MonkeyPatch, gone: Callable[..., Any]
) -> None:
    monkeypatch.setattr(streams_module, "_RECHECK_EVERY", 0.2)
    token, _ = await here.open(here._database, account_id)
    async with streaming(here, token) as stream:
        await gone(database, account_id=account_id)
        assert await is_ended(stream)


@pytest.mark.parametrize("payload", ["", "all", "0" * 31])
async def test_malformed_notice_ends_streams_of_ended_sessions_alone(
    here: Sessions, database: Database, account_id: UUID, end_silently: EndSilently, payload: str
) -> None:
    token, _ = await here.open(here._database, account_id)
    bad_token, _ = await here.open(here._database, account_id)
    async with streaming(here, token) as stream, streaming(here, bad_token) as bad:
        await end_silently(bad_token)
        await database.fetch_one(select(func.pg_notify("accord_sessions", payload)))
        assert await is_ended(bad)
        assert not stream.done()


async def test_revocation_ends_the_stream_while_notices_cannot_arrive(
    here: Sessions, account_id: UUID, line: Line, end_silently: EndSilently
) -> None:
    token, _ = await here.open(here._database, account_id)
    other_token, _ = await here.open(here._database, account_id)
    late_token, _ = await here.open(here._database, account_id)
    async with streaming(here, token) as stream, streaming(here, other_token) as other:
        with line.cut():
            await line.down()
            async with streaming(here, late_token) as late:  # began without notices
                await asyncio.sleep(0.3)  # rechecked when the connection was lost
                await end_silently(token)
                await end_silently(late_token)
                assert await is_ended(stream)
                assert await is_ended(late)
        assert await goes_on(other, here)


async def test_stream_is_rechecked_when_notices_arrive_again(
    here: Sessions, account_id: UUID, line: Line, end_silently: EndSilently, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "_RECHECK_EVERY_WITHOUT_NOTICES", 60.0)
    token, _ = await here.open(here._database, account_id)
    async with streaming(here, token) as stream:
        with line.cut():
            await line.down()
            await asyncio.sleep(0.7)
            await end_silently(token)
        await line.up()
        assert await is_ended(stream)


async def test_revocation_ends_the_stream_once_the_database_is_available_again(
    here: Sessions, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "_RECHECK_EVERY_WITHOUT_NOTICES", 0.1)
    failed = 0

    async def fails_twice(database: Database, *, token_hashes: list[bytes]) -> Any:
        nonlocal failed
        if failed < 2:
            failed += 1
            raise Unavailable("gone")
        return await list_live_sessions(database, token_hashes=token_hashes)

    monkeypatch.setattr(sessions_module, "list_live_sessions", fails_twice)
    token, session = await here.open(here._database, account_id)
    async with streaming(here, token) as stream:
        await here.revoke(here._database, session_id=session.id, account_id=account_id)
        assert await is_ended(stream)
    assert failed == 2


async def test_notice_during_a_recheck_causes_another_one(
    here: Sessions, there: Sessions, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, arrive = asyncio.Event(), asyncio.Event()

    async def held(database: Database, *, token_hashes: list[bytes]) -> Any:
        valid = await list_live_sessions(database, token_hashes=token_hashes)
        read.set()
        await arrive.wait()
        return valid

    monkeypatch.setattr(sessions_module, "list_live_sessions", held)
    token, session = await here.open(here._database, account_id)
    async with streaming(there, token) as stream:
        changes = there.streams.changes
        there.streams.changed(session.id)
        await read.wait()
        await here.revoke(here._database, session_id=session.id, account_id=account_id)
        await until(lambda: there.streams.changes == changes + 2)
        arrive.set()
        assert await is_ended(stream)


async def test_cancellation_by_the_client_ends_the_stream_as_cancelled(here: Sessions, account_id: UUID) -> None:
    token, session = await here.open(here._database, account_id)
    async with streaming(here, token) as stream:
        stream.cancel()
        await asyncio.wait([stream])
        assert stream.cancelled()
    ending = asyncio.Event()

    async def takes_its_time() -> None:
        try:
            await for_ever()
        finally:
            ending.set()
            await for_ever()

    async with streaming(here, token, takes_its_time) as stream:
        await here.revoke(here._database, session_id=session.id, account_id=account_id)
        await ending.wait()
        stream.cancel()
        await asyncio.wait([stream])
        assert stream.cancelled()


async def test_stream_that_suppresses_its_cancellation_is_refused(here: Sessions, account_id: UUID) -> None:
    token, session = await here.open(here._database, account_id)

    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await for_ever()

    async with streaming(here, token, stubborn) as stream:
        await here.revoke(here._database, session_id=session.id, account_id=account_id)
        assert await is_ended(stream)


async def test_completed_stream_is_removed_and_others_are_watched(here: Sessions, account_id: UUID) -> None:
    token, session = await here.open(here._database, account_id)
    await run(here, token, lambda: asyncio.sleep(0))
    assert len(here.streams) == 0
    assert here.streams._by_id == {}
    watching = here.streams._watching
    assert watching is not None
    await until(watching.done)  # the watch ends without streams
    async with streaming(here, token) as stream:
        await here.revoke(here._database, session_id=session.id, account_id=account_id)
        assert await is_ended(stream)


async def test_deadline_of_the_first_stream_does_not_end_the_watch(
    here: Sessions, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float | None] = []

    async def telling(database: Database, *, token_hashes: list[bytes]) -> Any:
        left.append(remaining())
        return await list_live_sessions(database, token_hashes=token_hashes)

    monkeypatch.setattr(sessions_module, "list_live_sessions", telling)
    token, session = await here.open(here._database, account_id)

    async def with_deadline() -> None:
        set_deadline(monotonic() + 60)
        await run(here, token, for_ever)

    stream = asyncio.create_task(with_deadline())
    await until(lambda: len(here.streams) == 1)
    await here.revoke(here._database, session_id=session.id, account_id=account_id)
    assert await is_ended(stream)
    assert left == [None]
