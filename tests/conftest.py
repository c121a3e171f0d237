"""A real PostgreSQL for every test: the embedded one, or the server that DATABASE_URL names.

There too all databases are our own, made and dropped here; the one that is named is only connected to.
"""

import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from accord_db import migrate
from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.libpq_environment import drop_ignored_variables
from accord_db.engine.scope import set_tenant
from accord_postgres import EmbeddedPostgres


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--hostile", type=int, default=1000, metavar="N", help="how many hostile messages are sent to each RPC (1000)"
    )
    parser.addoption(
        "--matrix", action="store_true", help="show who may call what, as tests/api/test_matrix.py finds it"
    )


@pytest.fixture(scope="session", autouse=True)
def _everybody() -> None:
    """What a test itself asks of a database is about all tenants; what a gateway asks in a call, about the caller's alone."""
    set_tenant("all")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of a server on which databases may be made."""
    drop_ignored_variables(os.environ, embedded="DATABASE_URL" not in os.environ)
    if given := os.environ.get("DATABASE_URL"):
        yield given
        return
    # Not below pytest's own folder, into which an unprivileged server may not look.
    with TemporaryDirectory(prefix="accord-") as folder, EmbeddedPostgres(Path(folder), sync=False) as server:
        yield server.dsn


@pytest.fixture(scope="session")
def template(postgres: str) -> Iterator[str]:
    """The name of a migrated database; copying it is ten times as fast as migrating."""
    with temporary_database(postgres) as dsn:
        migrate.apply(dsn)
        # So that a test can wait until somebody waits: gateways do not see what others do.
        execute(dsn, sql.SQL("GRANT pg_read_all_stats TO accord_gateway"))
        yield str(conninfo_to_dict(dsn)["dbname"])


@pytest.fixture(scope="session")
def databases(postgres: str, template: str) -> Iterator["Databases"]:
    databases = Databases(postgres, template)
    yield databases
    databases.close()


@pytest.fixture
def dsn(databases: "Databases") -> Iterator[str]:
    """A migrated, empty database that no other test sees."""
    dsn = databases.take()
    yield dsn
    databases.give_back(dsn)


@pytest.fixture
def settings(dsn: str) -> DatabaseSettings:
    return DatabaseSettings(dsn=dsn, pool_size=4)


@pytest.fixture
async def database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    database = await Database.connect(settings)
    yield database
    await database.close()


@pytest.fixture
async def superuser(connect: "Connect") -> Database:
    """The same database as whoever runs the server is let in."""
    return await connect(role=None)


class Connect(Protocol):
    async def __call__(self, **changes: Any) -> Database: ...


@pytest.fixture
async def connect(settings: DatabaseSettings) -> AsyncIterator[Connect]:
    """The same database with other settings; closed after the test."""
    async with AsyncExitStack() as opened:

        async def connect(**changes: Any) -> Database:
            database = await Database.connect(replace(settings, **changes))
            opened.push_async_callback(database.close)
            return database

        yield connect


class Databases:
    """While a test runs, the database of the next is made, and that of the last is dropped: it takes as long as many a test."""

    def __init__(self, server: str, template: str) -> None:
        self._server, self._template = server, template
        self._aside = ThreadPoolExecutor(1)
        self._next = self._begin()
        self._dropped: Future[None] | None = None

    def _begin(self) -> Future[str]:
        return self._aside.submit(create_database, self._server, template=self._template)

    def take(self) -> str:
        dsn, self._next = self._next.result(), self._begin()
        return dsn

    def give_back(self, dsn: str) -> None:
        if self._dropped is not None:
            self._dropped.result()
        self._dropped = self._aside.submit(drop_database, self._server, dsn)

    def close(self) -> None:
        self.give_back(self._next.result())
        self._aside.shutdown()


@contextmanager
def temporary_database(server: str, *, template: str = "template1") -> Iterator[str]:
    dsn = create_database(server, template=template)
    try:
        yield dsn
    finally:
        drop_database(server, dsn)


def create_database(server: str, *, template: str) -> str:
    name = f"accord_test_{uuid4().hex}"
    execute(server, sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    return make_conninfo(server, dbname=name)


def drop_database(server: str, dsn: str) -> None:
    name = str(conninfo_to_dict(dsn)["dbname"])
    execute(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def count(dsn: str, table: str) -> int:
    """Its rows; those of them that a WHERE after its name leaves."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def change(dsn: str, statement: str, *values: object) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert connection.execute(statement.encode(), values).rowcount > 0


def execute(dsn: str, *statements: sql.Composed | sql.SQL) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
