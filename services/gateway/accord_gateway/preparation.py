"""What has to be there before anything is served: a database that answers and is migrated, and a key."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import structlog

from accord_db.embedded import EmbeddedPostgres, EmbeddedPostgresError
from accord_db.errors import DatabaseError
from accord_db.migrate import MigrationError, apply, current_and_head, is_current
from accord_db.migrate.state import connect
from accord_db.roles import fault_of_role
from accord_db.schema.walls import GATEWAY_ROLE
from accord_gateway.refusals import StartRefused
from accord_gateway.secret_key import secret_key
from accord_gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the database is. LISTEN and migrations go past a pooler, if there is one."""

    pooled: str
    direct: str


@dataclass(frozen=True, slots=True)
class Orders:
    """What a process is to serve. Workers are told, and read no environment: one that starts later than the others
    serves with the same settings, whatever became of `.env` in the meantime."""

    settings: Settings
    addresses: Addresses
    secret_key: bytes


@contextmanager
def prepared(settings: Settings) -> Iterator[Orders]:
    """Raises StartRefused. The database is there for as long as the block lasts.

    To be entered on the main thread, which embedded PostgreSQL is bound to."""
    server = embedded(settings)
    if settings.database_url is None:
        structlog.get_logger().info("starting_postgres", folder=str(server.log_file.parent))
    with given(settings) or _started(server) as addresses:
        require_migrated(addresses, migrate=settings.migrate_on_start)
        require_walls(addresses, settings)
        yield Orders(settings, addresses, secret_key(settings))


@contextmanager
def visited(settings: Settings) -> Iterator[Addresses]:
    """The database for a command that may run beside a gateway: embedded PostgreSQL is used if it runs, and else
    started for as long as the block lasts. Raises StartRefused."""
    server = embedded(settings)
    with given(settings) or _running(server) or _started(server) as addresses:
        yield addresses


def given(settings: Settings) -> AbstractContextManager[Addresses] | None:
    """The database that the settings name, if they do."""
    if settings.database_url is None:
        return None
    pooled = settings.database_url.get_secret_value()
    direct = settings.database_direct_url
    return nullcontext(Addresses(pooled, direct.get_secret_value() if direct else pooled))


def embedded(settings: Settings) -> EmbeddedPostgres:
    return EmbeddedPostgres(settings.state_folder / "postgres")


def _running(server: EmbeddedPostgres) -> AbstractContextManager[Addresses] | None:
    try:
        connect(server.dsn).close()
    except DatabaseError:
        return None
    return nullcontext(Addresses(server.dsn, server.dsn))


@contextmanager
def _started(server: EmbeddedPostgres) -> Iterator[Addresses]:
    try:
        dsn = server.start()
    except EmbeddedPostgresError as error:
        raise StartRefused(str(error)) from None
    try:
        yield Addresses(dsn, dsn)
    finally:
        server.stop()


def require_migrated(addresses: Addresses, *, migrate: bool) -> None:
    """Brings the database to this release's schema, or sees that it is there. Raises StartRefused."""
    try:
        if migrate:
            if apply(addresses.direct):
                structlog.get_logger().info("migrated")
        elif not is_current(addresses.direct):
            current, head = current_and_head(addresses.direct)
            raise StartRefused(
                f"The database is at migration {current or 'none'}, and this release needs {head}. "
                "Run `accord migrate`, or set MIGRATE_ON_START=true."
            )
    except MigrationError as error:
        raise StartRefused(f"The database cannot be migrated: {error}") from None
    except DatabaseError as error:
        raise unreachable(error) from None


def require_walls(addresses: Addresses, settings: Settings) -> None:
    """Sees that no tenant's rows are open to a question that forgot whose they are. Raises StartRefused."""
    try:
        fault = fault_of_role(addresses.pooled, gateway_role(settings))
    except DatabaseError as error:
        raise unreachable(error) from None
    if fault:
        raise StartRefused(f"The database would not keep tenants apart: {fault.what}.\n{fault.remedy}")


def gateway_role(settings: Settings) -> str | None:
    """Whom gateways act as. Start options do not pass a pooler: there it is whoever they log in as."""
    return None if settings.db_pooler else GATEWAY_ROLE


def unreachable(error: DatabaseError) -> StartRefused:
    return StartRefused(f"The database does not answer: {error}\nSee that it runs, and check DATABASE_URL.")
