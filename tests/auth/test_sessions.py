import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import delete, func, select, text, update

from accord_auth import sessions as sessions_module
from accord_auth.sessions import LiveSession, Sessions
from accord_auth.tokens import new_session_token, token_hash
from accord_db.database import Database, DatabaseSettings
from accord_db.errors import Unavailable
from accord_db.ids import uuid7
from accord_db.listen import Listener
from accord_db.queries.accounts import insert_account
from accord_db.queries.sessions import (
    get_session_by_token_hash,
    insert_session,
    revoke_session,
    revoke_sessions_of_account,
)
from accord_db.schema import Account, Session

EndSilently = Callable[[str], Awaitable[None]]

HOUR = timedelta(hours=1)
# Longer than any test: what is refused sooner was refused for another reason than that the cache had grown old.
LONG = 60.0


@asynccontextmanager
async def process(
    dsn: str, *, lifetime: timedelta = HOUR, cache_seconds: float = LONG, notices_of: str | None = None
) -> AsyncIterator[Sessions]:
    """What one gateway process has: a database, a listener and sessions of its own."""
    database = await Database.connect(DatabaseSettings(dsn=dsn, pool_size=2))
    listener = Listener(notices_of or dsn)
    sessions = Sessions(database, listener, lifetime=lifetime, cache_seconds=cache_seconds)
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
        while await sessions.find(token):
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
    """Listens, to another database: it hears nothing of ours."""
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
    """Ends a session without a notice: whoever still finds it has not asked the database."""

    async def end_silently(token: str) -> None:
        assert await database.run(
            update(Session).where(Session.token_hash == token_hash(token)).values(revoked_at=func.now())
        )

    return end_silently


async def test_an_opened_session_is_found_by_its_token(here: Sessions, account_id: UUID) -> None:
    token, session = await here.open(account_id)
    found = await here.find(token)
    assert found is not None
    assert (found.id, found.account_id) == (session.id, account_id)
    assert (found.created_at, found.expires_at) == (session.created_at, session.expires_at)
    assert await here.find(token) == found


async def test_a_session_lasts_as_long_as_the_installation_says(dsn: str, account_id: UUID) -> None:
    async with process(dsn, lifetime=timedelta(days=3)) as sessions:
        _, session = await sessions.open(account_id)
    assert session.expires_at - session.created_at == timedelta(days=3)
    assert abs(session.created_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_the_token_is_kept_nowhere(here: Sessions, database: Database, account_id: UUID) -> None:
    token, _ = await here.open(account_id, peer="192.0.2.1", user_agent="test/1")
    row = await database.first(select(func.row_to_json(text("sessions.*"))).select_from(Session))
    assert token not in str(row)
    assert token.removeprefix("acs_") not in str(row)
    assert token_hash(token).hex() in str(row)


async def test_a_long_user_agent_is_cut(here: Sessions, account_id: UUID) -> None:
    _, session = await here.open(account_id, user_agent="x" * 8_000)
    assert session.user_agent == "x" * 256


async def test_an_unknown_token_finds_nothing(here: Sessions) -> None:
    assert await here.find(new_session_token()) is None


async def test_a_malformed_token_is_refused_without_asking_the_database(dsn: str) -> None:
    async with process(dsn) as sessions:
        await sessions._database.close()
        assert await sessions.find("acs_" + "A" * 48) is None
        assert await sessions.find("") is None
        with pytest.raises(Unavailable):
            await sessions.find(new_session_token())


async def test_an_expired_session_is_refused(dsn: str, account_id: UUID) -> None:
    async with process(dsn, lifetime=timedelta(0)) as sessions:
        token, _ = await sessions.open(account_id)
        assert await sessions.find(token) is None


async def test_a_session_that_expires_while_it_is_remembered_is_refused(dsn: str, account_id: UUID) -> None:
    async with process(dsn, lifetime=timedelta(seconds=1)) as sessions:
        token, _ = await sessions.open(account_id)
        assert await sessions.find(token)
        await asyncio.sleep(1)
        assert await sessions.find(token) is None


async def test_the_session_of_a_deleted_account_is_refused(
    here: Sessions, database: Database, account_id: UUID
) -> None:
    token, _ = await here.open(account_id)
    await database.run(update(Account).where(Account.id == account_id).values(deleted_at=func.now()))
    assert await here.find(token) is None


async def test_a_session_found_again_costs_no_question(
    here: Sessions, account_id: UUID, end_silently: EndSilently
) -> None:
    token, _ = await here.open(account_id)
    found = await here.find(token)
    await end_silently(token)
    assert await here.find(token) is found


async def test_a_session_is_remembered_for_seconds_only(dsn: str, account_id: UUID, end_silently: EndSilently) -> None:
    async with process(dsn, cache_seconds=0.2) as sessions:
        token, _ = await sessions.open(account_id)
        assert await sessions.find(token)
        await end_silently(token)
        await asyncio.sleep(0.2)
        assert await sessions.find(token) is None


async def test_a_session_that_was_not_there_is_found_once_it_is(
    here: Sessions, database: Database, account_id: UUID
) -> None:
    """As when a transaction that opens it has not committed yet: what is absent is not remembered."""
    token, _ = await here.open(account_id)
    row = await database.first(delete(Session).where(Session.token_hash == token_hash(token)).returning(Session))
    assert row is not None
    assert await here.find(token) is None
    await insert_session(database, session_id=row.id, account_id=account_id, token_hash=row.token_hash, lifetime=HOUR)
    assert await here.find(token)


async def test_a_revoked_session_is_refused_at_once_where_it_was_revoked(deaf: Sessions, account_id: UUID) -> None:
    token, session = await deaf.open(account_id)
    assert await deaf.find(token)
    await deaf.revoke(session_id=session.id, account_id=account_id)
    assert await deaf.find(token) is None


async def test_a_revoked_session_is_refused_in_the_other_process(
    here: Sessions, there: Sessions, account_id: UUID
) -> None:
    token, session = await here.open(account_id)
    other_token, _ = await here.open(account_id)
    assert await there.find(token)
    assert await there.find(other_token)
    await here.revoke(session_id=session.id, account_id=account_id)
    await until_refused(there, token)
    assert await there.find(other_token)


async def test_the_other_process_forgets_that_session_alone(
    here: Sessions, there: Sessions, account_id: UUID, end_silently: EndSilently
) -> None:
    token, session = await here.open(account_id)
    other_token, _ = await here.open(account_id)
    assert await there.find(token)
    assert await there.find(other_token)
    await end_silently(other_token)
    await here.revoke(session_id=session.id, account_id=account_id)
    await until_refused(there, token)
    assert await there.find(other_token)  # still remembered


async def test_the_session_of_another_account_is_not_revoked(here: Sessions, account_id: UUID) -> None:
    token, session = await here.open(account_id)
    await here.revoke(session_id=session.id, account_id=uuid7())
    assert await here.find(token)


async def test_revoking_twice_is_revoking_once(here: Sessions, account_id: UUID) -> None:
    token, session = await here.open(account_id)
    await here.revoke(session_id=session.id, account_id=account_id)
    await here.revoke(session_id=session.id, account_id=account_id)
    assert await here.find(token) is None


async def test_all_sessions_of_an_account_are_refused_when_the_transaction_commits_and_not_before(
    here: Sessions, there: Sessions, database: Database, account_id: UUID
) -> None:
    tokens = [(await here.open(account_id))[0] for _ in range(3)]
    for token in tokens:
        assert await there.find(token)
    async with database.transaction() as tx:
        assert len(await revoke_sessions_of_account(tx, account_id=account_id)) == 3
        await asyncio.sleep(0.1)
        assert await there.find(tokens[0])
    for token in tokens:
        await until_refused(there, token)


async def test_a_revocation_that_is_rolled_back_revokes_nothing(
    here: Sessions, there: Sessions, database: Database, account_id: UUID
) -> None:
    token, session = await here.open(account_id)
    assert await there.find(token)
    with suppress(LookupError):
        async with database.transaction() as tx:
            assert await revoke_session(tx, session_id=session.id, account_id=account_id)
            raise LookupError
    await asyncio.sleep(0.1)
    assert await there.find(token)
    assert await here.find(token)


async def test_a_notice_may_name_the_account_instead(
    here: Sessions, database: Database, account_id: UUID, end_silently: EndSilently
) -> None:
    token, _ = await here.open(account_id)
    assert await here.find(token)
    await end_silently(token)
    await database.first(select(func.pg_notify("accord_sessions", str(account_id))))
    await until_refused(here, token)


@pytest.mark.parametrize("payload", ["", "all", "0" * 31, "\N{SNOWMAN}"])
async def test_a_notice_that_names_nothing_we_know_drops_everything(
    here: Sessions, database: Database, account_id: UUID, end_silently: EndSilently, payload: str
) -> None:
    token, _ = await here.open(account_id)
    assert await here.find(token)
    await end_silently(token)
    await database.first(select(func.pg_notify("accord_sessions", payload)))
    await until_refused(here, token)


class HeldAnswers:
    """Holds back what the database has answered about a session, as a slow network would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answered = asyncio.Event()
        self.arrive = asyncio.Event()
        monkeypatch.setattr(sessions_module, "get_session_by_token_hash", self.held)

    async def held(self, db: Database, *, token_hash: bytes) -> LiveSession | None:
        session = await get_session_by_token_hash(db, token_hash=token_hash)
        self.answered.set()
        await self.arrive.wait()
        return session


async def test_an_answer_older_than_the_revocation_is_not_remembered(
    deaf: Sessions, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, session = await deaf.open(account_id)
    answers = HeldAnswers(monkeypatch)
    finding = asyncio.create_task(deaf.find(token))
    await answers.answered.wait()
    await deaf.revoke(session_id=session.id, account_id=account_id)
    answers.arrive.set()
    assert await finding  # the call came before the revocation; the next one must not profit
    assert await deaf.find(token) is None


async def test_an_answer_older_than_the_notice_is_not_remembered(
    here: Sessions, there: Sessions, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, session = await here.open(account_id)
    noticed = asyncio.Event()
    drop = there._cache.drop

    def drop_and_tell(revoked: UUID) -> None:
        drop(revoked)
        noticed.set()

    monkeypatch.setattr(there._cache, "drop", drop_and_tell)
    answers = HeldAnswers(monkeypatch)
    finding = asyncio.create_task(there.find(token))
    await answers.answered.wait()
    await here.revoke(session_id=session.id, account_id=account_id)
    await noticed.wait()
    answers.arrive.set()
    assert await finding
    assert await there.find(token) is None


async def test_who_is_cancelled_while_revoking_has_forgotten_the_session_all_the_same(
    deaf: Sessions, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, session = await deaf.open(account_id)
    assert await deaf.find(token)

    async def revoked_but_cancelled(db: Database, *, session_id: UUID, account_id: UUID) -> None:
        await revoke_session(db, session_id=session_id, account_id=account_id)
        raise asyncio.CancelledError

    monkeypatch.setattr(sessions_module, "revoke_session", revoked_but_cancelled)
    with pytest.raises(asyncio.CancelledError):
        await deaf.revoke(session_id=session.id, account_id=account_id)
    assert await deaf.find(token) is None


class Line:
    """The connection on which one process hears notices."""

    def __init__(self, server: str, dsn: str, listener: Listener) -> None:
        self._server = server
        self._database = str(conninfo_to_dict(dsn)["dbname"])
        self._listener = listener

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Ended by the server, which lets nobody in until the block ends; who is connected already stays so."""
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
        assert ended.rowcount == 1

    def _allow(self, admin: psycopg.Connection, allowed: bool) -> None:
        statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        admin.execute(statement.format(sql.Identifier(self._database), sql.SQL(str(allowed))))


@pytest.fixture
def line(here: Sessions, postgres: str, dsn: str) -> Line:
    return Line(postgres, dsn, here._listener)


async def test_nothing_remembered_is_used_while_notices_cannot_come(
    here: Sessions, account_id: UUID, line: Line, end_silently: EndSilently
) -> None:
    tokens = [(await here.open(account_id))[0] for _ in range(3)]
    for token in tokens:
        assert await here.find(token)
    with line.cut():
        await line.down()
        await end_silently(tokens[0])
        assert await here.find(tokens[0]) is None
        assert await here.find(tokens[1])
        await end_silently(tokens[1])
        assert await here.find(tokens[1]) is None  # nor was it remembered in the meantime
        await end_silently(tokens[2])
    await line.up()
    assert await here.find(tokens[2]) is None  # nor is what was remembered before


async def test_sessions_are_remembered_again_when_notices_come_again(
    here: Sessions, there: Sessions, account_id: UUID, line: Line, end_silently: EndSilently
) -> None:
    token, session = await here.open(account_id)
    other_token, _ = await here.open(account_id)
    async with asyncio.timeout(20):
        await there._listener.close()  # one line is enough to cut
        with line.cut():
            await line.down()
        await line.up()
    assert await here.find(other_token)
    await end_silently(other_token)
    assert await here.find(other_token)
    assert await here.find(token)
    await there.revoke(session_id=session.id, account_id=account_id)
    await until_refused(here, token)


async def test_an_answer_from_the_time_without_notices_is_not_remembered(
    here: Sessions, account_id: UUID, line: Line, end_silently: EndSilently, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, _ = await here.open(account_id)
    answers = HeldAnswers(monkeypatch)
    with line.cut():
        await line.down()
        finding = asyncio.create_task(here.find(token))
        await answers.answered.wait()
        await end_silently(token)
    await line.up()
    answers.arrive.set()
    assert await finding
    assert await here.find(token) is None


async def test_a_session_revoked_here_is_refused_at_the_next_call_of_another_real_process(
    here: Sessions, account_id: UUID, dsn: str
) -> None:
    token, session = await here.open(account_id)
    other_token, _ = await here.open(account_id)
    async with another_process(dsn) as ask:
        for _ in range(3):
            assert await ask(token) == "found"
            assert await ask(other_token) == "found"
        await here.revoke(session_id=session.id, account_id=account_id)
        async with asyncio.timeout(5):  # for the notice; the cache over there would last a minute
            while await ask(token) != "refused":
                await asyncio.sleep(0.01)
        assert await ask(other_token) == "found"


async def test_the_other_real_process_does_remember(
    here: Sessions, account_id: UUID, dsn: str, end_silently: EndSilently
) -> None:
    token, _ = await here.open(account_id)
    async with another_process(dsn) as ask:
        assert await ask(token) == "found"
        await end_silently(token)
        assert await ask(token) == "found"


@asynccontextmanager
async def another_process(dsn: str) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    program = Path(__file__).with_name("session_process.py")
    child = await asyncio.create_subprocess_exec(
        sys.executable, program, dsn, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    stdin, stdout = child.stdin, child.stdout

    async def ask(token: str) -> str:
        stdin.write(f"{token}\n".encode())
        return (await asyncio.wait_for(stdout.readline(), 20)).decode().strip()

    try:
        assert (await asyncio.wait_for(stdout.readline(), 20)).strip() == b"ready"
        yield ask
    finally:
        stdin.close()
        await asyncio.wait_for(child.wait(), 20)
    assert child.returncode == 0
