"""Applies migrations. One process of many applies them, and waits only briefly for locks, which would block other users."""

from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from time import sleep
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.errors import LockNotAvailable

from accord_db.engine.errors import translate
from accord_db.migrate.revisions import VERSIONS, MigrationError
from accord_db.migrate.state import State, connected, read_state

_log = getLogger(__name__)

# The key of the advisory lock. It must never change.
_LOCK = int.from_bytes(b"accord")
_POLL = 0.1  # seconds


@dataclass(frozen=True)
class LockRetry:
    """A migration that waits for a lock blocks all other users of the table, so it waits briefly, and again after a pause."""

    lock_timeout: float = 4.0  # seconds
    attempts: int = 3
    pause: float = 2.0  # seconds


LOCK_RETRY = LockRetry()


def apply(dsn: str, *, versions: Path = VERSIONS, retry: LockRetry = LOCK_RETRY) -> bool:
    """True if this process applied migrations; False if there were none to apply, or another process applied them. Waits for
    that process."""
    locked = False
    with connected(dsn) as connection:
        while not _is_up_to_date(read_state(connection, versions)):
            if locked:
                _upgrade(connection, versions, retry)
                _unlock(connection)
                return True
            locked = _try_lock(connection)
            if not locked:
                sleep(_POLL)
    return False


def revert(dsn: str, *, versions: Path = VERSIONS) -> None:
    """Reverts the last migration. Data that only its schema can hold is lost."""
    from accord_db.migrate import alembic_commands

    with connected(dsn) as connection:
        if not _try_lock(connection):
            raise MigrationError("another process is migrating the database: try again when it is done")
        if not read_state(connection, versions).current:
            raise MigrationError("the database has no migration to revert")
        _set_limits(connection, LOCK_RETRY.lock_timeout)
        try:
            alembic_commands.downgrade(connection, "-1", versions)
        except psycopg.Error as error:
            raise _failed(error) from error
        _unlock(connection)


def _is_up_to_date(state: State) -> bool:
    if state.is_ahead:
        _log.warning("the database was migrated by a newer release: %s", ", ".join(sorted(state.current)))
    return state.is_ahead or state.is_current


def _try_lock(connection: Connection[Any]) -> bool:
    """The lock is held until `_unlock`, or until the server notices that the connection is closed.

    Never waits: a waiting session holds a snapshot, and CREATE INDEX CONCURRENTLY waits for snapshots."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone()
    return row is not None and bool(row[0])


def _unlock(connection: Connection[Any]) -> None:
    """Otherwise the next process would wait until the server notices that this connection is closed."""
    connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _upgrade(connection: Connection[Any], versions: Path, retry: LockRetry) -> None:
    # Imported here because it takes 0.4 s, which a process with a current database does not need.
    from accord_db.migrate import alembic_commands

    _set_limits(connection, retry.lock_timeout)
    for attempt in range(1, retry.attempts + 1):
        try:
            alembic_commands.upgrade(connection, versions)
            return
        except LockNotAvailable as error:
            if attempt == retry.attempts:
                raise MigrationError(_blocked(connection, retry)) from error
            _log.warning("a migration did not get its locks within %s s; trying again", retry.lock_timeout)
            sleep(retry.pause)
        except psycopg.Error as error:
            raise _failed(error) from error


def _failed(error: psycopg.Error) -> MigrationError:
    return MigrationError(f"a migration failed and was rolled back: {translate(error)}")


def _set_limits(connection: Connection[Any], lock_timeout: float) -> None:
    """For this session only. Defaults of the role do not apply: an index can take long to build."""
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{lock_timeout * 1000:.0f}ms"])
    connection.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
    # Row-level security applies to table owners too, and a migration changes the rows of all tenants.
    connection.execute("SET accord.tenant = 'all'")


_OPEN_TRANSACTIONS = """
    SELECT format('pid %s (%s) for %s s', pid, application_name, extract(epoch FROM now() - xact_start)::int)
    FROM pg_stat_activity
    WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
    ORDER BY xact_start LIMIT 5
"""


def _blocked(connection: Connection[Any], retry: LockRetry) -> str:
    connection.rollback()
    transactions = "; ".join(line for (line,) in connection.execute(_OPEN_TRANSACTIONS)) or "none now"
    return (
        f"a migration did not get its locks in {retry.attempts} attempts of {retry.lock_timeout} s, and was rolled back: "
        f"another transaction holds a lock on the table. Open transactions: {transactions}. Wait for them, or end them with "
        "pg_terminate_backend(pid), and migrate again."
    )
