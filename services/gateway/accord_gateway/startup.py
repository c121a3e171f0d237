"""What has to be there before anything is served: a database that answers and is migrated, and a key."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import structlog

from accord_db.engine.errors import DatabaseError
from accord_db.engine.row_level_security import GATEWAY_ROLE
from accord_db.migrate import MigrationError, apply, current_and_head, is_current
from accord_db.migrate.gateway_role import role_problem
from accord_db.migrate.state import connect
from accord_db.migrate.text import read_text_settings
from accord_gateway.errors import StartupError
from accord_gateway.secret_key import secret_key
from accord_gateway.settings import Settings
from accord_postgres import EmbeddedPostgres, EmbeddedPostgresError


@dataclass(frozen=True, slots=True)
class DatabaseAddresses:
    """Where the database is. LISTEN and migrations go past a pooler, if there is one."""

    pooled: str
    direct: str


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What a process is to serve. Workers are told, and read no environment: one that starts later than the others
    serves with the same settings, whatever became of `.env` in the meantime."""

    settings: Settings
    addresses: DatabaseAddresses
    secret_key: bytes


@contextmanager
def prepared(settings: Settings) -> Iterator[ServeConfig]:
    """Raises StartRefused. The database is there for as long as the block lasts.

    To be entered on the main thread, which embedded PostgreSQL is bound to."""
    server = embedded(settings)
    if settings.database_url is None:
        structlog.get_logger().info("starting_postgres", folder=str(server.log_file.parent))
    with given(settings) or _started(server) as addresses:
        require_migrated(addresses, migrate=settings.migrate_on_start)
        require_row_level_security(addresses, settings)
        yield ServeConfig(settings, addresses, secret_key(settings))


@contextmanager
def visited(settings: Settings) -> Iterator[DatabaseAddresses]:
    """The database for a command that may run beside a gateway: embedded PostgreSQL is used if it runs, and else
    started for as long as the block lasts. Raises StartRefused."""
    server = embedded(settings)
    with given(settings) or _running(server) or _started(server) as addresses:
        yield addresses


def given(settings: Settings) -> AbstractContextManager[DatabaseAddresses] | None:
    """The database that the settings name, if they do."""
    if settings.database_url is None:
        return None
    pooled = settings.database_url.get_secret_value()
    direct = settings.database_direct_url
    return nullcontext(DatabaseAddresses(pooled, direct.get_secret_value() if direct else pooled))


def embedded(settings: Settings) -> EmbeddedPostgres:
    return EmbeddedPostgres(settings.state_folder / "postgres")


def _running(server: EmbeddedPostgres) -> AbstractContextManager[DatabaseAddresses] | None:
    try:
        connect(server.dsn).close()
    except DatabaseError:
        return None
    return nullcontext(DatabaseAddresses(server.dsn, server.dsn))


@contextmanager
def _started(server: EmbeddedPostgres) -> Iterator[DatabaseAddresses]:
    try:
        dsn = server.start()
    except EmbeddedPostgresError as error:
        raise StartupError(str(error)) from None
    try:
        yield DatabaseAddresses(dsn, dsn)
    finally:
        server.stop()


def require_migrated(addresses: DatabaseAddresses, *, migrate: bool) -> None:
    """Brings the database to this release's schema, or checks that it is there. Raises StartupError."""
    try:
        _require_utf8(addresses)
        if migrate:
            if apply(addresses.direct):
                structlog.get_logger().info("migrated")
        elif not is_current(addresses.direct):
            current, head = current_and_head(addresses.direct)
            raise StartupError(
                f"The database is at migration {current or 'none'}, and this release needs {head}. "
                "Run `accord migrate`, or set MIGRATE_ON_START=true."
            )
    except MigrationError as error:
        raise StartupError(f"The database cannot be migrated: {error}") from None
    except DatabaseError as error:
        raise unreachable(error) from None


def _require_utf8(addresses: DatabaseAddresses) -> None:
    for address in {addresses.direct, addresses.pooled}:
        if fault := read_text_settings(address).encoding_fault:
            raise StartupError(f"Accord cannot use the database: {fault.what}.\n{fault.remedy}")


def require_row_level_security(addresses: DatabaseAddresses, settings: Settings) -> None:
    """Sees that no tenant's rows are open to a question that forgot whose they are. Raises StartRefused."""
    try:
        fault = role_problem(addresses.pooled, gateway_role(settings))
    except DatabaseError as error:
        raise unreachable(error) from None
    if fault:
        raise StartupError(f"The database would not keep tenants apart: {fault.what}.\n{fault.remedy}")


def gateway_role(settings: Settings) -> str | None:
    """Whom gateways act as. Start options do not pass a pooler: there it is whoever they log in as."""
    return None if settings.db_pooler else GATEWAY_ROLE


def unreachable(error: DatabaseError) -> StartupError:
    return StartupError(f"The database does not answer: {error}\nSee that it runs, and check DATABASE_URL.")
