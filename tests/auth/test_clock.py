"""Sessions and streams end by the database's clock, whatever the clock of the process shows."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from accord_auth import sessions as sessions_module
from accord_db.engine.database import Database
from accord_db.queries.sessions import LiveSession, list_live_sessions
from tests.auth.conftest import EndSilently, process, until_refused
from tests.auth.test_streams import is_ended, streaming
from tests.clocks import SHIFTS, shifted_database


@pytest.fixture(params=SHIFTS.values(), ids=list(SHIFTS))
def dsn(postgres: str, request: pytest.FixtureRequest) -> Iterator[str]:
    with shifted_database(postgres, request.param) as dsn:
        yield dsn


async def test_cached_session_is_refused_when_it_expires(dsn: str, account_id: UUID) -> None:
    async with process(dsn, lifetime=timedelta(seconds=1)) as sessions:
        token, _ = await sessions.open(sessions._database, account_id)
        assert await sessions.authenticate(token)
        await until_refused(sessions, token)


async def test_session_does_not_idle_out_while_its_cached_result_is_used(dsn: str, account_id: UUID) -> None:
    async with process(dsn, idle_lifetime=timedelta(seconds=1)) as sessions:
        token, _ = await sessions.open(sessions._database, account_id)
        for _ in range(20):
            assert await sessions.authenticate(token)
            await asyncio.sleep(0.1)
        await asyncio.sleep(1.2)
        assert await sessions.authenticate(token) is None


async def test_session_is_cached_until_it_expires(dsn: str, account_id: UUID, end_silently: EndSilently) -> None:
    async with process(dsn, lifetime=timedelta(minutes=5)) as sessions:
        token, _ = await sessions.open(sessions._database, account_id)
        assert await sessions.authenticate(token)
        await end_silently(token)
        assert await sessions.authenticate(token)


@pytest.mark.parametrize("limit", ["lifetime", "idle_lifetime"])
async def test_stream_ends_when_its_session_expires(dsn: str, account_id: UUID, limit: str) -> None:
    expiring: Any = {limit: timedelta(seconds=1)}
    async with process(dsn, **expiring) as sessions:
        token, _ = await sessions.open(sessions._database, account_id)
        async with streaming(sessions, token) as stream:
            assert await is_ended(stream)


async def test_stream_is_rechecked_when_its_session_expires_and_not_before(
    dsn: str, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with process(dsn, lifetime=timedelta(minutes=5)) as sessions:
        token, _ = await sessions.open(sessions._database, account_id)
        rechecked = 0

        async def recheck(db: Database, *, token_hashes: Sequence[bytes]) -> dict[bytes, LiveSession]:
            nonlocal rechecked
            rechecked += 1
            return await list_live_sessions(db, token_hashes=token_hashes)

        monkeypatch.setattr(sessions_module, "list_live_sessions", recheck)
        async with streaming(sessions, token) as stream:
            await asyncio.sleep(2)
            assert not stream.done()
        assert rechecked == 0
