"""Prepares what a gateway needs: a database that is reachable, migrated and separates tenants, and a secret key."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread
from time import monotonic, sleep
from typing import TypeVar

import structlog

from accord_db.engine.errors import DatabaseError, Unavailable
from accord_db.engine.row_level_security import GATEWAY_ROLE
from accord_db.migrate import MigrationError, apply, current_and_head, is_current
from accord_db.migrate.gateway_role import role_problem
from accord_db.migrate.state import connect
from accord_db.migrate.text import read_text_settings
from accord_gateway.errors import StartupError
from accord_gateway.secret_key import secret_key
from accord_gateway.settings import Settings, ignore_libpq_environment
from accord_postgres import EmbeddedPostgres, EmbeddedPostgresError

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0  # seconds between attempts to reach the database
ATTEMPT_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class DatabaseAddresses:
    """Connection strings. LISTEN and migrations use `direct`, which bypasses a pooler if there is one."""

    pooled: str
    direct: str


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """The configuration of serving processes. Workers receive it and read no environment, so that a later replacement has the same
    settings even if `.env` has changed."""

    settings: Settings
    addresses: DatabaseAddresses
    secret_key: bytes


@contextmanager
def prepare(settings: Settings) -> Iterator[tuple[ServeConfig, EmbeddedPostgres | None]]:
    """Also yields the embedded PostgreSQL if this process starts it. It stops at the end of the block. Raises StartupError.

    Call on the main thread: the embedded PostgreSQL ends with the thread that started it."""
    ignored = ignore_libpq_environment(settings)
    log = structlog.get_logger()
    postgres = embedded_postgres(settings) if settings.database_url is None else None
    if postgres:
        log.info("starting_postgres", folder=str(postgres.log_file.parent))
    elif ignored:
        log.warning("environment_ignored", variables=ignored, reason="DATABASE_URL specifies the server")

    with _start(postgres) if postgres else _configured(settings) as addresses:
        yield _serve_config(settings, addresses), postgres


def prepare_reload(settings: Settings) -> ServeConfig:
    """Like `prepare`, but the embedded PostgreSQL runs already. Raises StartupError."""
    ignore_libpq_environment(settings)
    if settings.database_url is None:
        dsn = embedded_postgres(settings).dsn
        return _serve_config(settings, DatabaseAddresses(dsn, dsn))
    with _configured(settings) as addresses:
        return _serve_config(settings, addresses)


def _serve_config(settings: Settings, addresses: DatabaseAddresses) -> ServeConfig:
    def require_ready() -> None:
        require_migrated(addresses, migrate=settings.migrate_on_start)
        require_row_level_security(addresses, settings)

    retry_while_unavailable(addresses, require_ready, wait=settings.db_start_wait)
    return ServeConfig(settings, addresses, secret_key(settings))


@contextmanager
def open_database(settings: Settings) -> Iterator[DatabaseAddresses]:
    """The database for a command that may run while a gateway serves: an embedded server that runs already is used, and otherwise
    started until the block ends. Raises StartupError."""
    ignore_libpq_environment(settings)
    if settings.database_url is not None:
        database = _configured(settings)
    else:
        postgres = embedded_postgres(settings)
        database = _running(postgres) or _start(postgres)
    with database as addresses:
        yield addresses


def _configured(settings: Settings) -> AbstractContextManager[DatabaseAddresses]:
    assert settings.database_url is not None
    pooled = settings.database_url.get_secret_value()
    direct = settings.database_direct_url
    return nullcontext(DatabaseAddresses(pooled, direct.get_secret_value() if direct else pooled))


def embedded_postgres(settings: Settings) -> EmbeddedPostgres:
    return EmbeddedPostgres(settings.state_folder / "postgres")


def _running(postgres: EmbeddedPostgres) -> AbstractContextManager[DatabaseAddresses] | None:
    try:
        connect(postgres.dsn, writable=False).close()
    except DatabaseError:
        return None
    return nullcontext(DatabaseAddresses(postgres.dsn, postgres.dsn))


@contextmanager
def _start(postgres: EmbeddedPostgres) -> Iterator[DatabaseAddresses]:
    try:
        dsn = postgres.start()
    except EmbeddedPostgresError as error:
        raise StartupError(str(error)) from None
    try:
        yield DatabaseAddresses(dsn, dsn)
    finally:
        postgres.stop()


def retry_while_unavailable(addresses: DatabaseAddresses, action: Callable[[], T], *, wait: timedelta) -> T:
    """Connects and runs the action, and repeats both for `wait` while the database is unavailable. Logs each distinct reason once.
    Raises StartupError."""
    log = structlog.get_logger()
    until, pause, logged = monotonic() + wait.total_seconds(), FIRST_PAUSE, set[str]()
    while True:
        left = until - monotonic()
        try:
            timeout = min(ATTEMPT_TIMEOUT, left)
            _interruptible(lambda: _require_reachable(addresses, timeout=timeout))  # noqa: B023  # runs at once
            return action()
        except Unavailable as error:
            left = until - monotonic()
            if left <= 0:
                raise unreachable(error) from None
            if (reason := str(error)) not in logged:
                log.warning("database_unreachable", reason=reason, retry_for_seconds=round(left, 1))
                logged.add(reason)
        except DatabaseError as error:
            raise unreachable(error) from None
        sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE)


def _require_reachable(addresses: DatabaseAddresses, *, timeout: float) -> None:
    connect(addresses.direct, timeout=timeout).close()
    if addresses.pooled != addresses.direct:
        connect(addresses.pooled, writable=False, timeout=timeout).close()


def _interruptible(work: Callable[[], T]) -> T:
    """Runs it in a thread, which Ctrl-C abandons: no signal interrupts a resolver that waits for a name server."""
    outcome = Future[T]()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001  # raised again by the thread that waits
            outcome.set_exception(error)

    Thread(target=run, name="database check", daemon=True).start()
    return outcome.result()


def require_migrated(addresses: DatabaseAddresses, *, migrate: bool) -> None:
    """Migrates the database to this release's schema, or checks that it is migrated. Raises StartupError, DatabaseError."""
    try:
        _require_utf8(addresses)
        if migrate:
            if apply(addresses.direct):
                _, head = current_and_head(addresses.direct)
                structlog.get_logger().info("migrated", to=head)
        elif not is_current(addresses.direct):
            current, head = current_and_head(addresses.direct)
            raise StartupError(
                f"The database is at migration {current or 'none'}, and this release needs {head}. "
                "Run `accord migrate`, or set MIGRATE_ON_START=true."
            )
    except MigrationError as error:
        raise StartupError(f"The database cannot be migrated: {error}") from None


def _require_utf8(addresses: DatabaseAddresses) -> None:
    for address in {addresses.direct, addresses.pooled}:
        if encoding := read_text_settings(address).encoding_problem:
            raise StartupError(f"Accord cannot use the database: {encoding.problem}.\n{encoding.remedy}")


def require_row_level_security(addresses: DatabaseAddresses, settings: Settings) -> None:
    """Checks that a query that omits the tenant finds no other tenant's rows. Raises StartupError, DatabaseError."""
    if role := role_problem(addresses.pooled, gateway_role(settings)):
        raise StartupError(f"The database does not separate tenants: {role.problem}.\n{role.remedy}")


def gateway_role(settings: Settings) -> str | None:
    """The role of gateways' sessions. None for the login role: a pooler does not forward the startup option."""
    return None if settings.db_pooler else GATEWAY_ROLE


def unreachable(error: DatabaseError) -> StartupError:
    return StartupError(f"Cannot connect to the database: {error}\nCheck that it runs, and check DATABASE_URL.")
