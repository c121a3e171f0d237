"""Temporary servers and databases, for comparing and writing migrations."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from accord_db.migrate.state import connected
from accord_postgres import EmbeddedPostgres


@contextmanager
def scratch_server() -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(prefix="accord-scratch-") as folder,
        EmbeddedPostgres(Path(folder) / "postgres", sync=False) as server,
    ):
        yield server.dsn


@contextmanager
def scratch_database(dsn: str) -> Iterator[str]:
    """A new empty database on the server of `dsn`, dropped at the end of the block."""
    name = Identifier(database := f"accord_scratch_{uuid4().hex[:12]}")
    with connected(dsn) as connection:
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE template0").format(name))
        try:
            yield make_conninfo(dsn, dbname=database)
        finally:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(name))
