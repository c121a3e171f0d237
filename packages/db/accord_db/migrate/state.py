"""The migrations of a database, compared with those of this release."""

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
        """A newer release has migrated the database. This release can still serve: migrations keep the release before them
        working."""
        return not self.current <= self.revisions.known


def connect(dsn: str, *, writable: bool = True, timeout: float = 10.0) -> Connection[Any]:
    """A connection without a pool, in autocommit mode. Raises Unavailable; with `writable`, also for a read-only server."""
    parameters = parse_for_writing(dsn) if writable else parse(dsn) | {"target_session_attrs": "any"}
    # libpq accepts whole seconds, at least two.
    parameters |= {"application_name": "accord-migrate", "connect_timeout": max(2, round(timeout))}
    try:
        return psycopg.connect(**parameters, autocommit=True)
    except psycopg.Error as error:
        raise translate(error) from None


@contextmanager
def connected(dsn: str, *, writable: bool = True) -> Iterator[Connection[Any]]:
    """Like `connect`, for a block. Errors of the driver in the block become DatabaseErrors."""
    try:
        with connect(dsn, writable=writable) as connection:
            yield connection
    except psycopg.Error as error:
        raise translate(error) from error


def read_state(connection: Connection[Any], versions: Path = VERSIONS) -> State:
    return State(_current(connection), read_revisions(versions))


def current_and_head(dsn: str, *, versions: Path = VERSIONS) -> tuple[str | None, str | None]:
    """The revisions of the database and of this release. None: the database was never migrated; there are no migrations."""
    with connected(dsn) as connection:
        state = read_state(connection, versions)
    return ", ".join(sorted(state.current)) or None, state.revisions.head


def is_current(dsn: str, *, versions: Path = VERSIONS) -> bool:
    """Whether this release can serve from the database without migrating it."""
    with connected(dsn) as connection:
        state = read_state(connection, versions)
    return state.is_current or state.is_ahead


def _current(connection: Connection[Any]) -> frozenset[str]:
    try:
        return frozenset(version for (version,) in connection.execute("SELECT version_num FROM alembic_version"))
    except UndefinedTable:
        return frozenset()
