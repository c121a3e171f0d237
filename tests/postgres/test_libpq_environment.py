"""No environment variable or service file of libpq changes the server that clients of the embedded server connect to."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from psycopg import pq
from sqlalchemy import func, select

from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.listen import Listener
from accord_db.migrate.state import connected
from accord_postgres import EmbeddedPostgres
from tests.db.programs import hostile_environment, recording_server

STARTED = "SELECT pg_postmaster_start_time()"
VARIABLES = [option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar]

Elsewhere = tuple[dict[str, str], list[str]]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with TemporaryDirectory(prefix="accord-") as folder, EmbeddedPostgres(Path(folder), sync=False) as server:
        yield server


@pytest.fixture(scope="module")
def started(server: EmbeddedPostgres) -> object:
    """The start time of the embedded server, which identifies it."""
    return through_psycopg(server.dsn)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Elsewhere]:
    with recording_server() as (port, clients):
        yield hostile_environment(tmp_path, port), clients


def through_psycopg(dsn: str) -> object:
    with psycopg.connect(dsn) as connection:
        return (connection.execute(STARTED).fetchone() or [None])[0]


async def through_async_psycopg(dsn: str) -> object:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        return (await (await connection.execute(STARTED)).fetchone() or [None])[0]


async def through_the_pool(dsn: str) -> object:
    database = await Database.connect(DatabaseSettings(dsn=dsn, role=None, pool_size=1))
    try:
        return await database.fetch_one(select(func.pg_postmaster_start_time()))
    finally:
        await database.close()


async def through_migrations(dsn: str) -> object:
    with connected(dsn) as connection:
        return (connection.execute(STARTED).fetchone() or [None])[0]


async def through_listen(dsn: str) -> object:
    listener = Listener(dsn)
    listener.listen("news", lambda _: None)
    await listener.start()
    async with asyncio.timeout(10):
        while not listener.connected:
            await asyncio.sleep(0.01)
    await listener.close()
    return None


CONNECTIONS: list[Callable[[str], Awaitable[object]]] = [
    through_async_psycopg,
    through_the_pool,
    through_migrations,
    through_listen,
]


async def require_same_server(dsn: str, started: object, clients: list[str]) -> None:
    assert through_psycopg(dsn) == started
    for connect in CONNECTIONS:
        assert await connect(dsn) in (started, None)
    assert clients == []


def test_libpq_has_the_variables_that_redirect() -> None:
    assert {"PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGOPTIONS", "PGTARGETSESSIONATTRS"} <= set(VARIABLES)


@pytest.mark.parametrize("variable", VARIABLES)
async def test_variable_does_not_reach_connections_to_the_embedded_server(
    server: EmbeddedPostgres, started: object, elsewhere: Elsewhere, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, clients = elsewhere
    monkeypatch.setenv("PGSERVICEFILE", values["PGSERVICEFILE"])
    monkeypatch.setenv(variable, values[variable])
    await require_same_server(server.dsn, started, clients)


async def test_all_variables_together_do_not_reach_connections_to_the_embedded_server(
    server: EmbeddedPostgres, started: object, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, clients = elsewhere
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    await require_same_server(server.dsn, started, clients)


def read(file: str) -> str:
    return Path(file).read_text()


@pytest.mark.parametrize(("variable", "name"), [("HOME", ".pg_service.conf"), ("PGSYSCONFDIR", "pg_service.conf")])
async def test_service_file_does_not_reach_connections_to_the_embedded_server(
    server: EmbeddedPostgres,
    started: object,
    elsewhere: Elsewhere,
    variable: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values, clients = elsewhere
    (tmp_path / name).write_text(read(values["PGSERVICEFILE"]))
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    await require_same_server(server.dsn, started, clients)


async def test_server_is_started_in_any_environment(
    tmp_path: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, clients = elsewhere
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with TemporaryDirectory(prefix="accord-") as folder, EmbeddedPostgres(Path(folder), sync=False) as server:
        through_psycopg(server.dsn)
    assert clients == []


def test_migrate_command_uses_its_own_server_in_any_environment(elsewhere: Elsewhere) -> None:
    values, clients = elsewhere
    hostile = values | {"PGSERVICE": "undefined", "PGTZ": "nonsense"}
    program = [sys.executable, "-m", "accord_db.migrate", "apply"]
    done = subprocess.run(program, env=os.environ | hostile, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("migrated to"), done.stderr
    assert clients == []
