"""Query plans of PostgreSQL."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Executable
from sqlalchemy.dialects import postgresql

from tests.conftest import temporary_database

_PARAMETER = re.compile(r"%\((\w+)\)s")


@contextmanager
def filled_database(server: str, template: str, fill: str) -> Iterator[str]:
    """A migrated database with the rows that the statement inserts: PostgreSQL scans small tables whatever their indexes."""
    with temporary_database(server, template=template) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(fill.encode())
        yield dsn


def generic_plan(connection: psycopg.Connection, statement: Executable, table: str) -> str:
    """The generic plan of a prepared statement, which does not depend on the parameters."""
    connection.execute(f"ANALYZE {table}".encode())
    connection.execute("SET plan_cache_mode = force_generic_plan")
    sql, parameters = _numbered(statement)
    connection.execute(f"PREPARE query AS {sql}".encode())
    arguments = ", ".join("NULL" for _ in parameters)
    return "\n".join(line for (line,) in connection.execute(f"EXPLAIN EXECUTE query({arguments})".encode()))


def _numbered(statement: Executable) -> tuple[str, list[str]]:
    """The SQL with $1, $2, … as parameters."""
    sql = str(statement.compile(dialect=postgresql.dialect(paramstyle="pyformat")))  # type: ignore[attr-defined,no-untyped-call]  # every statement has it
    names = list(dict.fromkeys(_PARAMETER.findall(sql)))
    return _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", sql), names
