"""Stand-ins for gateway processes, and a connection that a test can cut."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import func, update

from accord_auth import sessions as sessions_module
from accord_auth.sessions import LiveSession, Sessions
from accord_auth.tokens import token_hash
from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.ids import uuid7
from accord_db.engine.listen import Listener
from accord_db.queries.accounts import insert_account
from accord_db.queries.sessions import get_session_by_token_hash
from accord_db.schema import Session

EndSilently = Callable[[str], Awaitable[None]]

HOUR = timedelta(hours=1)
# Longer than any test: a refusal within it is not due to an expired cache entry.
LONG = 60.0


@asynccontextmanager
async def process(
    dsn: str,
    *,
    lifetime: timedelta = HOUR,
    idle_lifetime: timedelta | None = None,
    cache_seconds: float = LONG,
    notices_of: str | None = None,
) -> AsyncIterator[Sessions]:
    """The sessions of one gateway process, with their own database connections and listener."""
    database = await Database.connect(DatabaseSettings(dsn=dsn, pool_size=2))
    listener = Listener(notices_of or dsn)
    sessions = Sessions(database, listener, lifetime=lifetime, idle_lifetime=idle_lifetime, cache_seconds=cache_seconds)
    await listener.start()
    try:
        await until(lambda: listener.connected)
        yield sessions
    finally:
        await listener.close()
        await database.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


async def until_refused(sessions: Sessions, token: str) -> None:
    async with asyncio.timeout(5):
        while await sessions.authenticate(token):
            await asyncio.sleep(0.005)


@pytest.fixture
async def here(dsn: str) -> AsyncIterator[Sessions]:
    async with process(dsn) as sessions:
        yield sessions


@pytest.fixture
async def there(dsn: str) -> AsyncIterator[Sessions]:
    async with process(dsn) as sessions:
        yield sessions


@pytest.fixture
async def deaf(dsn: str, postgres: str) -> AsyncIterator[Sessions]:
    """Listens on another database, and therefore receives no notifications."""
    async with process(dsn, notices_of=postgres) as sessions:
        yield sessions


@pytest.fixture
async def account_id(database: Database) -> UUID:
    account = await insert_account(
        database, account_id=uuid7(), email=f"{uuid4()}@example.com", display_name="Ada", password_hash="none"
    )
    assert account is not None
    return account.id


@pytest.fixture
def end_silently(database: Database) -> EndSilently:
    """Ends a session without a notification: it is still valid in caches only."""

    async def end_silently(token: str) -> None:
        assert await database.execute(
            update(Session).where(Session.token_hash == token_hash(token)).values(revoked_at=func.now())
        )

    return end_silently


class Line:
    """The connection on which one process receives notifications."""

    def __init__(self, server: str, dsn: str, listener: Listener) -> None:
        self._server = server
        self._database = str(conninfo_to_dict(dsn)["dbname"])
        self._listener = listener

    @contextmanager
    def cut(self) -> Iterator[None]:
        """The server ends the connection and accepts no new ones until the block ends. Others stay open."""
        with psycopg.connect(self._server, autocommit=True) as admin:
            self._allow(admin, False)
            self._terminate(admin)
            yield
            self._allow(admin, True)

    async def down(self) -> None:
        await until(lambda: not self._listener.connected)

    async def up(self) -> None:
        await until(lambda: self._listener.connected)

    def _terminate(self, admin: psycopg.Connection) -> None:
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND query LIKE 'LISTEN%%'",
            [self._database],
        )
        assert ended.rowcount

    def _allow(self, admin: psycopg.Connection, allowed: bool) -> None:
        statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        admin.execute(statement.format(sql.Identifier(self._database), sql.SQL(str(allowed))))


@pytest.fixture
def line(here: Sessions, postgres: str, dsn: str) -> Line:
    return Line(postgres, dsn, here.cache._listener)


class DelayedLookup:
    """Delays the result of a session lookup, as a slow network would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = asyncio.Event()
        self.arrive = asyncio.Event()
        monkeypatch.setattr(sessions_module, "get_session_by_token_hash", self.held)

    async def held(self, db: Database, *, token_hash: bytes, use_recorded_every: timedelta) -> LiveSession | None:
        session = await get_session_by_token_hash(db, token_hash=token_hash, use_recorded_every=use_recorded_every)
        self.read.set()
        await self.arrive.wait()
        return session


async def change_session(database: Database, token: str, **columns: object) -> Session:
    """Changes columns without a notification. Returns the changed row."""
    statement = update(Session).where(Session.token_hash == token_hash(token)).values(columns).returning(Session)
    changed = await database.fetch_one(statement)
    assert changed is not None
    return changed
