"""Databases whose clock differs from the clock of the process."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from accord_db import migrate
from tests.conftest import execute, temporary_database

# As a gateway's operator would describe it.
SHIFTS = {"gateway 11 minutes ahead": timedelta(minutes=-11), "gateway 90 minutes behind": timedelta(minutes=90)}

_SHIFT = """
    CREATE FUNCTION now() RETURNS timestamptz STABLE LANGUAGE sql RETURN pg_catalog.now() + interval {shift};
    CREATE FUNCTION clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql
        RETURN pg_catalog.clock_timestamp() + interval {shift};
    ALTER DATABASE {database} SET search_path = public, pg_catalog;
"""


@contextmanager
def shifted_database(server: str, by: timedelta) -> Iterator[str]:
    """A migrated database in which `now()` and `clock_timestamp()` are `by` later than on this machine, for every statement and
    every default."""
    with temporary_database(server) as dsn:
        name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
        execute(dsn, sql.SQL(_SHIFT).format(shift=sql.Literal(f"{by.total_seconds()} seconds"), database=name))
        migrate.apply(dsn)
        yield dsn
