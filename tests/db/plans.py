"""Query plans of PostgreSQL."""

import re

import psycopg
from sqlalchemy import Executable
from sqlalchemy.dialects import postgresql

_PARAMETER = re.compile(r"%\((\w+)\)s")


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
