"""PostgreSQL for the tests, and the number of processes that run them.

Each pytest worker starts an embedded server. With DATABASE_URL, all workers use that server instead: the tests create
and drop their own databases on it. They connect to the URL's database but do not change it.
"""

import gc
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from accord_db import migrate
from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.libpq_environment import drop_ignored_variables
from accord_db.engine.scope import set_tenant
from accord_gateway.settings import Settings
from accord_postgres import EmbeddedPostgres
from features import Feature, unknown_features

TESTS: Final = Path(__file__).parent
# For `count`: the sessions of this database that wait for a lock. Unlike pg_stat_activity, pg_locks changes during a
# transaction.
WAITING: Final = (
    "pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_locks WHERE database ="
    " (SELECT oid FROM pg_database WHERE datname = current_database()))"
)
MEMORY: Final = Path("/dev/shm")
MEMORY_NEEDED: Final = 4 * 1024**3  # bytes; the workers' servers and temporary files take a quarter of that

# Any number works if all workers use the same one. Migrations lock another number.
_TEMPLATE_LOCK: Final = 7_061_993


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--hostile", type=int, default=100, metavar="N", help="send N hostile messages to each method (default: 100)"
    )
    parser.addoption(
        "--faces",
        choices=["some", "all"],
        default="some",
        help="test Connect, gRPC-Web and REST with one method of each kind (default), or with all methods, as gRPC is",
    )
    parser.addoption(
        "--face",
        help="call the API through a face other than gRPC: rest, connect+json, connect+proto, grpc-web, grpc-web-text",
    )
    parser.addoption("--matrix", action="store_true", help="print the table of tests/api/test_matrix.py")
    parser.addoption(
        "--server", choices=["accord", "grpcio"], help="the server that carries calls (default: the one of the product)"
    )
    parser.addoption(
        "--feature", action="append", default=[], metavar="NAME", help="run only the tests that concern the feature"
    )


@pytest.hookimpl(tryfirst=True)  # before a plugin opens a temporary file
def pytest_configure(config: pytest.Config) -> None:
    keep_temporary_files_in_memory()
    if error := unknown_features(config.getoption("feature")):
        raise pytest.UsageError(error)
    if server := config.getoption("server"):
        Settings.model_fields["server"].default = server
        Settings.model_rebuild(force=True)


# --- garbage ----------------------------------------------------------------------------------------------------------
# Imported modules live until the end, so the collector need not visit them: that takes an eighth of the CPU time.
gc.set_threshold(20_000, 20, 50)


def pytest_collection_finish() -> None:
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """The process ends without visiting all objects again."""
    gc.freeze()


# --- selection --------------------------------------------------------------------------------------------------------
@pytest.hookimpl(tryfirst=True)  # before pytest reads the markers for -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if depends_on_server(item):
            item.add_marker("server")
    if features := [Feature(name) for name in config.getoption("feature")]:
        select(config, items, [item for item in items if concerns_any(item, features)])
    if config.getoption("--face"):
        select(config, items, [item for item in items if calls_through_one_face(item)])
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def select(config: pytest.Config, items: list[pytest.Item], selected: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item not in set(selected)])
    items[:] = selected


def calls_through_one_face(item: pytest.Item) -> bool:
    """Other tests of the API choose their faces themselves, or test something else."""
    fixtures = getattr(item, "fixturenames", ())
    return (
        item.get_closest_marker("grpc") is None
        and ("client" in fixtures or "ends" in fixtures)
        and "faces" not in fixtures
    )


def depends_on_server(item: pytest.Item) -> bool:
    """A test depends on the PostgreSQL server if it executes SQL in this process: if it is about the database, the API
    or authentication and has a database. Other tests start gateways, which execute the same SQL."""
    folder = item.path.relative_to(TESTS).parts[0]
    return folder in ("db", "api", "auth") and "dsn" in getattr(item, "fixturenames", ())


def concerns_any(item: pytest.Item, features: Collection[Feature]) -> bool:
    if item.get_closest_marker("every_feature"):
        return True
    test, _, case = item.name.partition("[")
    return any(feature.concerns(item.path.name, test, case) for feature in features)


# --- processes --------------------------------------------------------------------------------------------------------
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker more than there are cores, because tests of gateways mostly wait for other processes; not for a selection by -k,
    feature or files, for which that worker takes longer to start than it saves. No workers for a single file, whose tests end
    before workers have started, and for output that a worker would swallow."""
    shows_output = config.getoption("matrix") or config.getoption("capture") == "no"
    files = [names_file(argument, config.invocation_params.dir) for argument in config.args]
    if shows_output or files == [True]:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    some = all(files) or config.getoption("keyword") or config.getoption("feature")
    return cores if some else cores + 1


def names_file(argument: str, folder: Path) -> bool:
    """Whether an argument of pytest is a file, or a test in one, and not a folder."""
    return (folder / argument.partition("::")[0]).is_file()


# --- temporary files --------------------------------------------------------------------------------------------------
def keep_temporary_files_in_memory() -> None:
    """Of this process and of those that it starts, except if programs there cannot be executed. Starting a new PostgreSQL takes
    twice the CPU time on a disk."""
    folder = memory()
    if folder and not os.statvfs(folder).f_flag & os.ST_NOEXEC:
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)


def memory() -> Path | None:
    """A folder in memory if there is one with enough room, otherwise None. Creating and dropping 2,000 databases on a
    busy disk takes ten times as long."""
    try:
        enough = shutil.disk_usage(MEMORY).free >= MEMORY_NEEDED
    except OSError:
        return None
    return MEMORY if enough and os.access(MEMORY, os.W_OK | os.X_OK) else None


# --- responses of REST ------------------------------------------------------------------------------------------------
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Workers send to the process that started them which errors were produced. There, a run of all tests of the API fails if one
    was not."""
    config = session.config
    if config.getoption("--face") == "rest":
        from tests.api.documented import missing, produced

        if hasattr(config, "workeroutput"):
            config.workeroutput["produced"] = sorted(produced)
        elif [Path(each) for each in config.args] == [Path("tests/api")] and missing():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if pairs := getattr(node, "workeroutput", {}).get("produced"):
        from tests.api.documented import produced

        produced.update(map(tuple, pairs))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("--face") == "rest":
        from tests.api.documented import missing

        terminalreporter.section("documented, but returned by no test through REST")
        for operation, reasons in missing().items():
            terminalreporter.line(f"{operation}: {', '.join(reasons)}")


# --- the server -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session", autouse=True)
def _all_tenants() -> None:
    """Queries that a test runs itself see the rows of all tenants. Queries of a gateway see those of the caller."""
    set_tenant("all")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of a server on which tests may create databases."""
    drop_ignored_variables(os.environ, embedded="DATABASE_URL" not in os.environ)
    if dsn := os.environ.get("DATABASE_URL"):
        yield dsn
        return
    # pytest's own folder is closed to the unprivileged account that the server runs as.
    with (
        TemporaryDirectory(prefix="accord-", dir=memory()) as folder,
        EmbeddedPostgres(Path(folder), sync=False) as server,
    ):
        yield server.dsn


# --- databases --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def template(postgres: str) -> Iterator[str]:
    """The name of a migrated database. Copying it takes a tenth of the time that migrating takes."""
    with temporary_database(postgres) as dsn:
        # Migrations create a role, which belongs to the server: one worker at a time.
        with psycopg.connect(postgres, autocommit=True) as one_at_a_time:
            one_at_a_time.execute("SELECT pg_advisory_lock(%s)", [_TEMPLATE_LOCK])
            migrate.apply(dsn)
            # Tests that wait for a lock read pg_stat_activity, where the gateway's role sees only its own sessions.
            execute(dsn, sql.SQL("GRANT pg_read_all_stats TO accord_gateway"))
        yield str(conninfo_to_dict(dsn)["dbname"])


@pytest.fixture(scope="session")
def databases(postgres: str, template: str) -> Iterator["Databases"]:
    databases = Databases(postgres, template)
    yield databases
    databases.close()


@pytest.fixture
def dsn(databases: "Databases") -> Iterator[str]:
    """A migrated, empty database for this test only."""
    dsn = databases.acquire()
    yield dsn
    databases.release(dsn)


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
    """The same database, connected as the superuser."""
    return await connect(role=None)


class Connect(Protocol):
    async def __call__(self, **changes: Any) -> Database: ...


@pytest.fixture
async def connect(settings: DatabaseSettings) -> AsyncIterator[Connect]:
    """Connects to the same database with other settings. Closes the connections after the test."""
    async with AsyncExitStack() as opened:

        async def connect(**changes: Any) -> Database:
            database = await Database.connect(replace(settings, **changes))
            opened.push_async_callback(database.close)
            return database

        yield connect


class Databases:
    """Creates the next test's database and drops the last test's while a test runs."""

    def __init__(self, server: str, template: str) -> None:
        self._server, self._template = server, template
        self._connection = psycopg.connect(server, autocommit=True)
        self._background = ThreadPoolExecutor(1)
        self._next = self._begin()
        self._dropped: Future[None] | None = None

    def _begin(self) -> Future[str]:
        return self._background.submit(create_database, self._connection, template=self._template)

    def acquire(self) -> str:
        name, self._next = self._next.result(), self._begin()
        return make_conninfo(self._server, dbname=name)

    def release(self, dsn: str) -> None:
        if self._dropped is not None:
            self._dropped.result()
        name = str(conninfo_to_dict(dsn)["dbname"])
        self._dropped = self._background.submit(drop_database, self._connection, name)

    def close(self) -> None:
        drop_database(self._connection, self._next.result())
        self._background.shutdown()
        self._connection.close()


@contextmanager
def temporary_database(server: str, *, template: str = "template1") -> Iterator[str]:
    with psycopg.connect(server, autocommit=True) as connection:
        name = create_database(connection, template=template)
    try:
        yield make_conninfo(server, dbname=name)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            drop_database(connection, name)


def create_database(server: psycopg.Connection, *, template: str) -> str:
    """Returns the name. Copies files: the default strategy also writes them to the log, which takes twice the time."""
    name = f"accord_test_{uuid4().hex}"
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    server.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return name


def drop_database(server: psycopg.Connection, name: str) -> None:
    server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def count(dsn: str, table: str) -> int:
    """The number of rows. `table` may include a WHERE clause."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def change(dsn: str, statement: str, *values: object) -> None:
    """Executes a statement that must change at least one row."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert connection.execute(statement.encode(), values).rowcount > 0


def execute(dsn: str, *statements: sql.Composed | sql.SQL) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
