"""Where a database stands, and where it should."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.errors import UndefinedTable

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


def connect(dsn: str) -> Connection[Any]:
    """A connection that is no pool's. Statements are transactions of their own until `autocommit` is switched off."""
    try:
        return psycopg.connect(dsn, autocommit=True, application_name="accord-migrate", connect_timeout=10)
    except psycopg.Error as error:
        raise translate(error) from error


@contextmanager
def connected(dsn: str) -> Iterator[Connection[Any]]:
    """As `connect`. What the driver raises in the block leaves it as an error of ours."""
    try:
        with connect(dsn) as connection:
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
