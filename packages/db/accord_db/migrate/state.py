"""Where a database stands, and where it should."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.errors import UndefinedTable

from accord_db.engine.connection_string import parse, parse_for_writing
from accord_db.engine.errors import translate
from accord_db.migrate.revisions import VERSIONS, Revisions, read_revisions


@dataclass(frozen=True)
class State:
    current: frozenset[str]
    revisions: Revisions

    @property
    def is_current(self) -> bool:
        return self.current == {self.revisions.head} - {None}

    @property
    def is_ahead(self) -> bool:
        """A newer release has migrated it. This one still serves: a migration never breaks the release before it."""
        return not self.current <= self.revisions.known


def connect(dsn: str, *, writable: bool = True, timeout: float = 10.0) -> Connection[Any]:
    """A connection outside of any pool, in autocommit mode. Raises Unavailable, also for a server that is read-only unless
    `writable` is false."""
    parameters = parse_for_writing(dsn) if writable else parse(dsn) | {"target_session_attrs": "any"}
    # psycopg takes whole seconds, and at least two.
    parameters |= {"application_name": "accord-migrate", "connect_timeout": max(2, round(timeout))}
    try:
        return psycopg.connect(**parameters, autocommit=True)
    except psycopg.Error as error:
        raise translate(error) from None


@contextmanager
def connected(dsn: str, *, writable: bool = True) -> Iterator[Connection[Any]]:
    """As `connect`. An error of the driver in the block is raised as a DatabaseError."""
    try:
        with connect(dsn, writable=writable) as connection:
            yield connection
    except psycopg.Error as error:
        raise translate(error) from error


def read_state(connection: Connection[Any], versions: Path = VERSIONS) -> State:
    return State(_current(connection), read_revisions(versions))


def current_and_head(dsn: str, *, versions: Path = VERSIONS) -> tuple[str | None, str | None]:
    """None for a database that was never migrated, and where there are no migrations."""
    with connected(dsn) as connection:
        state = read_state(connection, versions)
    return ", ".join(sorted(state.current)) or None, state.revisions.head


def is_current(dsn: str, *, versions: Path = VERSIONS) -> bool:
    """Whether a process of this release can serve from it, without further ado."""
    with connected(dsn) as connection:
        state = read_state(connection, versions)
    return state.is_current or state.is_ahead


def _current(connection: Connection[Any]) -> frozenset[str]:
    try:
        return frozenset(version for (version,) in connection.execute("SELECT version_num FROM alembic_version"))
    except UndefinedTable:
        return frozenset()
