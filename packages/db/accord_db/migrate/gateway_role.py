"""Whether row-level security holds whoever gateways act as, asked of PostgreSQL itself."""

from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.errors import InsufficientPrivilege, InvalidParameterValue
from psycopg.sql import SQL, Identifier

from accord_db.engine.row_level_security import is_tenant_bound
from accord_db.migrate.state import connected
from accord_db.schema import metadata

# Active is it for nobody who is a superuser or has BYPASSRLS. An owner, whom FORCE holds, could take that away.
_PASSED = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relname = ANY(%s)
        AND (NOT row_security_active(oid) OR pg_has_role(relowner, 'USAGE'))
    ORDER BY relname
"""


class Fault(NamedTuple):
    what: str
    remedy: str


def role_problem(dsn: str, role: str | None) -> Fault | None:
    """What is wrong with acting as `role`, or without one as whoever `dsn` logs in. None if nothing is. For a database that
    is migrated."""
    with connected(dsn, writable=False) as connection:
        login = connection.info.user
        try:
            if role is not None:
                connection.execute(SQL("SET ROLE {}").format(Identifier(role)))
        except InvalidParameterValue:
            return Fault(
                f"there is no role {role}", f"Have a superuser run: CREATE ROLE {role} NOLOGIN; and migrate again."
            )
        except InsufficientPrivilege:
            return Fault(f'"{login}" may not act as {role}', f'Have a superuser run: GRANT {role} TO "{login}";')
        passed = _passed(connection)
    return (
        Fault(f'"{role or login}" passes the row-level security of {", ".join(passed)}', _LOG_IN_AS) if passed else None
    )


_LOG_IN_AS = (
    "Gateways must log in as a role that is no superuser, has no BYPASSRLS and owns no table: docs/operating.md, "
    '"Roles and migrations", says how to make it.'
)


def _passed(connection: Connection[Any]) -> list[str]:
    tenant_bound = [table.name for table in metadata.sorted_tables if is_tenant_bound(table)]
    return [name for (name,) in connection.execute(_PASSED, [tenant_bound])]
