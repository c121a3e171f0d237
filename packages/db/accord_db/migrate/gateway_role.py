"""Checks in PostgreSQL that row-level security applies to the role of the gateways."""

from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.errors import InsufficientPrivilege, InvalidParameterValue
from psycopg.sql import SQL, Identifier

from accord_db.engine.row_level_security import is_tenant_bound
from accord_db.migrate.state import connected
from accord_db.schema import metadata

# row_security_active is false for superusers and BYPASSRLS. FORCE makes it true for owners, but an owner could disable it.
_BYPASSED = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relname = ANY(%s)
        AND (NOT row_security_active(oid) OR pg_has_role(relowner, 'USAGE'))
    ORDER BY relname
"""


class RoleProblem(NamedTuple):
    problem: str
    remedy: str


def role_problem(dsn: str, role: str | None) -> RoleProblem | None:
    """The problem of gateways that act as `role`; None: as the login role of `dsn`. The database must be migrated."""
    with connected(dsn, writable=False) as connection:
        login = connection.info.user
        try:
            if role is not None:
                connection.execute(SQL("SET ROLE {}").format(Identifier(role)))
        except InvalidParameterValue:
            return RoleProblem(
                f"there is no role {role}", f"Have a superuser run: CREATE ROLE {role} NOLOGIN; and migrate again."
            )
        except InsufficientPrivilege:
            return RoleProblem(f'"{login}" may not act as {role}', f'Have a superuser run: GRANT {role} TO "{login}";')
        bypassed = _bypassed_tables(connection)
    if not bypassed:
        return None
    return RoleProblem(f'"{role or login}" bypasses the row-level security of {", ".join(bypassed)}', _LOG_IN_AS)


_LOG_IN_AS = (
    "Gateways must log in as a role that is no superuser, has no BYPASSRLS and owns no table: see docs/operating.md, "
    '"Roles and migrations".'
)


def _bypassed_tables(connection: Connection[Any]) -> list[str]:
    tenant_bound = [table.name for table in metadata.sorted_tables if is_tenant_bound(table)]
    return [name for (name,) in connection.execute(_BYPASSED, [tenant_bound])]
