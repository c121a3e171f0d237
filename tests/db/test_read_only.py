"""A read-only server is unavailable: the pool drops its connections, and opens new ones only when it accepts writes again."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import func, literal, select, text

from accord_db.engine.connection import Connection
from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.errors import Unavailable
from accord_db.engine.listen import Listener
from accord_db.engine.pool import Lost
from accord_db.migrate.state import connected
from accord_postgres import EmbeddedPostgres
from tests.db import programs
from tests.db.programs import READ_ONLY

ONE = select(literal(1))
WRITE = text("INSERT INTO written VALUES (1)")
CLIENTS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'accord'"

each_cause = pytest.mark.parametrize("cause", READ_ONLY)


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[[], EmbeddedPostgres]]:
    with ExitStack() as stack:

        def start() -> EmbeddedPostgres:
            folder = stack.enter_context(TemporaryDirectory(prefix="accord-"))
            server = stack.enter_context(EmbeddedPostgres(Path(folder), sync=False))
            with psycopg.connect(server.dsn) as connection:
                connection.execute("CREATE TABLE written (number int)")
            return server

        yield start


@pytest.fixture(scope="module")
def shared_server(started: Callable[[], EmbeddedPostgres]) -> EmbeddedPostgres:
    return started()


@pytest.fixture(scope="module")
def second_server(started: Callable[[], EmbeddedPostgres]) -> EmbeddedPostgres:
    return started()


@pytest.fixture
def server(shared_server: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    yield shared_server
    for cause in READ_ONLY:
        if programs.is_read_only(shared_server, cause):
            programs.make_writable(shared_server, cause)


def settings(dsn: str) -> DatabaseSettings:
    return DatabaseSettings(dsn=dsn, role=None, pool_size=3, pool_wait=0.5)


@pytest.fixture
async def database(server: EmbeddedPostgres) -> AsyncIterator[Database]:
    database = await Database.connect(settings(server.dsn))
    await asyncio.gather(*(database.fetch_one(select(func.pg_sleep(0.05))) for _ in range(3)))
    yield database
    await database.close()


async def make_read_only(server: EmbeddedPostgres, cause: str) -> None:
    programs.make_read_only(server, cause)
    await asyncio.sleep(0.1)  # the event loop was blocked


async def make_writable(server: EmbeddedPostgres, cause: str) -> None:
    programs.make_writable(server, cause)
    await asyncio.sleep(0.1)


def clients(server: EmbeddedPostgres) -> int:
    gc.collect()  # psycopg leaves a connection open whose opening an earlier test has cancelled, until it is collected
    with psycopg.connect(server.dsn, target_session_attrs="any") as connection:
        row = connection.execute(CLIENTS).fetchone()
    assert row is not None
    return int(row[0])


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.05)


async def write_in_a_transaction(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.fetch_one(ONE)
        await tx.execute(WRITE)


@each_cause
@pytest.mark.parametrize("alone", [True, False])
async def test_write_to_a_read_only_server_is_unavailable(
    server: EmbeddedPostgres, database: Database, cause: str, alone: bool
) -> None:
    await make_read_only(server, cause)
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await (database.execute(WRITE) if alone else write_in_a_transaction(database))
        assert caught.value.retry_after > 0
        assert not caught.value.outcome_unknown


async def test_failed_write_drops_every_connection_of_the_pool(server: EmbeddedPostgres, database: Database) -> None:
    assert clients(server) == 3
    await make_read_only(server, "default_transaction_read_only")
    with pytest.raises(Unavailable, match="25006"):
        await database.execute(WRITE)
    await eventually(lambda: clients(server) == 0)


async def test_connection_in_use_during_a_failed_write_is_dropped_when_it_is_released(
    server: EmbeddedPostgres, database: Database
) -> None:
    slow = asyncio.create_task(database.fetch_one(select(func.pg_sleep(0.5))))
    await asyncio.sleep(0.1)
    await make_read_only(server, "default_transaction_read_only")
    with pytest.raises(Unavailable, match="25006"):
        await database.execute(WRITE)
    await slow
    await eventually(lambda: clients(server) == 0)


async def test_connection_that_is_being_opened_during_a_failed_write_is_dropped(
    server: EmbeddedPostgres, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, opened, added = database._pool._connect, asyncio.Event(), asyncio.Event()

    async def slow_connect(lost: Lost) -> Connection:
        connection = await connect(lost)
        opened.set()
        await added.wait()
        return connection

    monkeypatch.setattr(database._pool, "_connect", slow_connect)
    await end_a_connection_of(database, server)
    async with asyncio.timeout(10):
        await opened.wait()
    await make_read_only(server, "default_transaction_read_only")
    with pytest.raises(Unavailable, match="25006"):
        await database.execute(WRITE)
    added.set()
    await eventually(lambda: clients(server) == 0)


async def end_a_connection_of(database: Database, server: EmbeddedPostgres) -> None:
    pid = await database.fetch_one(select(func.pg_backend_pid()))
    with psycopg.connect(server.dsn) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])


@each_cause
async def test_ping_fails_on_a_read_only_server_and_drops_every_connection(
    server: EmbeddedPostgres, database: Database, cause: str
) -> None:
    await database.ping()
    await make_read_only(server, cause)
    with pytest.raises(Unavailable):
        await database.ping()
    await eventually(lambda: clients(server) == 0)


@each_cause
async def test_writes_succeed_within_a_second_after_the_server_accepts_them(
    server: EmbeddedPostgres, database: Database, cause: str
) -> None:
    await make_read_only(server, cause)
    with pytest.raises(Unavailable):
        await database.execute(WRITE)
    await make_writable(server, cause)
    since = time.monotonic()
    await database.execute(WRITE)
    assert time.monotonic() - since < 1


@each_cause
async def test_connecting_to_a_read_only_server_is_unavailable(server: EmbeddedPostgres, cause: str) -> None:
    await make_read_only(server, cause)
    with pytest.raises(Unavailable, match="read-only"):
        await Database.connect(settings(server.dsn))
    with pytest.raises(Unavailable, match="read-only"), connected(server.dsn):
        pass


@each_cause
async def test_listener_disconnects_from_a_read_only_server(server: EmbeddedPostgres, cause: str) -> None:
    """Writes, and so notifications, happen on another server."""
    listener = Listener(server.dsn, heartbeat=0.1)
    listener.listen("news", lambda _: None)
    await listener.start()
    await eventually(lambda: listener.connected)
    await make_read_only(server, cause)
    await eventually(lambda: not listener.connected)
    await asyncio.sleep(0.5)
    assert not listener.connected
    await make_writable(server, cause)
    await eventually(lambda: listener.connected)
    await listener.close()


def several_hosts(*servers: EmbeddedPostgres) -> str:
    """A connection string without target_session_attrs, as operators write it."""
    hosts = ",".join(str(conninfo_to_dict(server.dsn)["host"]) for server in servers)
    return make_conninfo(host=hosts, user="accord", dbname="accord")


async def test_pool_finds_the_writable_host_of_several(
    server: EmbeddedPostgres, second_server: EmbeddedPostgres
) -> None:
    first, second = server, second_server
    await make_read_only(first, "standby.signal")
    database = await Database.connect(replace(settings(several_hosts(first, second)), pool_size=1))
    await database.execute(WRITE)
    await make_writable(first, "standby.signal")
    await make_read_only(second, "default_transaction_read_only")
    with pytest.raises(Unavailable):
        await database.execute(WRITE)
    await database.execute(WRITE)
    assert (clients(first) > 0, clients(second)) == (True, 0)
    await database.close()


async def test_target_session_attrs_any_allows_a_read_only_server(server: EmbeddedPostgres) -> None:
    await make_read_only(server, "default_transaction_read_only")
    database = await Database.connect(settings(make_conninfo(server.dsn, target_session_attrs="any")))
    assert await database.fetch_one(ONE) == 1
    await database.close()
