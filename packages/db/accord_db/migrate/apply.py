"""Brings a database to the head, once however many processes ask for it, and without holding up those that use it."""

from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from time import sleep
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.errors import LockNotAvailable

from accord_db.engine.errors import translate
from accord_db.migrate.errors import MigrationError
from accord_db.migrate.revisions import VERSIONS
from accord_db.migrate.state import State, connected, read_state

_log = getLogger(__name__)

# Any number does, as long as it stays the same; these are the letters "accord".
_LOCK = int.from_bytes(b"accord")
_POLL = 0.1  # seconds


@dataclass(frozen=True)
class Patience:
    """While a migration waits for a table, everybody else waits behind it: so briefly, and again after a pause."""

    lock_timeout: float = 4.0  # seconds
    attempts: int = 3
    pause: float = 2.0  # seconds


PATIENCE = Patience()


def apply(dsn: str, *, versions: Path = VERSIONS, patience: Patience = PATIENCE) -> bool:
    """Whether there was anything to do here. Waits while another process is doing it."""
    locked = False
    with connected(dsn) as connection:
        while not _is_settled(read_state(connection, versions)):
            if locked:
                _upgrade(connection, versions, patience)
                _unlock(connection)
                return True
            locked = _try_lock(connection)
            if not locked:
                sleep(_POLL)
    return False


def revert(dsn: str, *, versions: Path = VERSIONS) -> None:
    """Takes the last migration back, and with it what only that one had room for."""
    from accord_db.migrate import alembic_commands

    with connected(dsn) as connection:
        if not _try_lock(connection):
            raise MigrationError("another process is migrating the database: try again when it is done")
        if not read_state(connection, versions).current:
            raise MigrationError("there is no migration in the database, so there is none to take back")
        _set_limits(connection, PATIENCE.lock_timeout)
        try:
            alembic_commands.downgrade(connection, "-1", versions)
        except psycopg.Error as error:
            raise _failed(error) from error
        _unlock(connection)


def _is_settled(state: State) -> bool:
    if state.is_ahead:
        _log.warning("the database was migrated by a newer release: %s", ", ".join(sorted(state.current)))
    return state.is_ahead or state.is_current


def _try_lock(connection: Connection[Any]) -> bool:
    """Held until `_unlock`, or until the server has noticed that the connection is closed.

    Not waited for: a waiting session holds a snapshot, and CREATE INDEX CONCURRENTLY waits for those."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone()
    return row is not None and bool(row[0])


def _unlock(connection: Connection[Any]) -> None:
    """At once, so that the next process need not wait for the server to notice that this connection is closed."""
    connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _upgrade(connection: Connection[Any], versions: Path, patience: Patience) -> None:
    # Imported here and not above, because of what it takes: with a database that is current nobody gets this far.
    from accord_db.migrate import alembic_commands

    _set_limits(connection, patience.lock_timeout)
    for attempt in range(1, patience.attempts + 1):
        try:
            alembic_commands.upgrade(connection, versions)
            return
        except LockNotAvailable as error:
            if attempt == patience.attempts:
                raise MigrationError(_blocked(connection, patience)) from error
            _log.warning("a migration did not get its locks within %s s; trying again", patience.lock_timeout)
            sleep(patience.pause)
        except psycopg.Error as error:
            raise _failed(error) from error


def _failed(error: psycopg.Error) -> MigrationError:
    return MigrationError(f"a migration failed and was rolled back: {translate(error)}")


def _set_limits(connection: Connection[Any], lock_timeout: float) -> None:
    """Of the session, which is ours alone. What the role has by default is no measure: an index may take long to build."""
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{lock_timeout * 1000:.0f}ms"])
    connection.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
    # Row-level security holds the owner of a table, too, and a migration is about everybody's rows.
    connection.execute("SET accord.tenant = 'all'")


_OPEN_TRANSACTIONS = """
    SELECT format('pid %s (%s) for %s s', pid, application_name, extract(epoch FROM now() - xact_start)::int)
    FROM pg_stat_activity
    WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
    ORDER BY xact_start LIMIT 5
"""


def _blocked(connection: Connection[Any], patience: Patience) -> str:
    connection.rollback()
    transactions = "; ".join(line for (line,) in connection.execute(_OPEN_TRANSACTIONS)) or "none now"
    return (
        f"a migration did not get its locks, {patience.attempts} times within {patience.lock_timeout} s, and was rolled "
        f"back: another transaction holds the table. Open transactions: {transactions}. Wait for them, or end them with "
        "pg_terminate_backend(pid), and migrate again."
    )
