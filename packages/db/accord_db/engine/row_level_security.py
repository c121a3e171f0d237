"""Row-level security: which tables have a wall between tenants, and what PostgreSQL is told to make it stand.

A second wall behind the predicate that each question has of its own: a question that forgot it finds nothing.
"""

from typing import Any, Final

from sqlalchemy import Column, Table

GATEWAY_ROLE: Final = "accord_gateway"
"""The role that gateways act as: it owns no table, and no policy lets it past."""

# Scalar subselects, so that PostgreSQL asks for the setting once a statement and not once a row. With an index of the
# tenant's column or without: what the statement itself asks for decides which one is used, and this is a filter behind it.
# Unset, or empty as it is once a transaction has had it, it lets nothing through.
_TENANT = "(SELECT nullif(nullif(current_setting('accord.tenant', true), ''), 'all')::uuid)"
_ALL = "(SELECT current_setting('accord.tenant', true) = 'all')"


def tenant_column(table: Table) -> "Column[Any] | None":
    """The column that says whose a row is: `owner_id` where people own rows as well as organizations, and else the
    `organization_id` that no row is without. None if the table has no wall."""
    if "owner_id" in table.c:
        return table.c.owner_id
    organization = table.c.get("organization_id")
    return organization if organization is not None and not organization.nullable else None


def raised(table: Table) -> list[str]:
    """What makes the wall of a table stand, if it has one. FORCE is for its owner, who would pass."""
    column = tenant_column(table)
    if column is None:
        return []
    return [
        # Without a WITH CHECK of its own it is for what is written as well.
        f"CREATE POLICY tenant ON {table.name} USING ({column.name} = {_TENANT} OR {_ALL})",
        f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table.name} FORCE ROW LEVEL SECURITY",
    ]
