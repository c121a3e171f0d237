"""Row-level security: the tables that it covers, and the statements that enable it.

It is a second check, in PostgreSQL, after the predicate of each query: a query without the predicate finds no rows of another
tenant. A table is tenant-bound by a column or through its parents; every other table states why it is exempt.
"""

from typing import Any, Final

from sqlalchemy import Column, ForeignKeyConstraint, MetaData, Table
from sqlalchemy.dialects import postgresql

GATEWAY_ROLE: Final = "accord_gateway"
"""The role that gateways act as. It owns no table, and every policy applies to it."""

_EXEMPT: Final = "tenant_exempt"

# Scalar subselects, which PostgreSQL evaluates once per statement and not once per row. The query's own predicate selects
# the index, and the policy filters. A setting that is unset, or empty after a transaction had set it, matches no row.
_TENANT: Final = "(SELECT nullif(nullif(current_setting('accord.tenant', true), ''), 'all')::uuid)"
_ALL: Final = "(SELECT current_setting('accord.tenant', true) = 'all')"


def tenant_exempt(reason: str) -> dict[str, Any]:
    """The last element of the `__table_args__` of a table that is not tenant-bound."""
    return {"info": {_EXEMPT: reason}}


def tenant_column(table: Table) -> "Column[Any] | None":
    """The column with the tenant of a row: `owner_id`, or a NOT NULL `organization_id`. None if the table has neither."""
    for name in ("owner_id", "organization_id"):
        column = table.c.get(name)
        if column is not None and not column.nullable:
            return column
    return None


def is_tenant_bound(table: Table) -> bool:
    return tenant_column(table) is not None or bool(tenant_parents(table))


def tenant_parents(table: Table, _below: frozenset[Table] = frozenset()) -> list[ForeignKeyConstraint]:
    """The NOT NULL foreign keys that lead to tenant-bound tables. Each of them binds a table without a tenant column."""
    below = _below | {table}
    return [
        key
        for key in sorted(table.foreign_key_constraints, key=lambda key: tuple(key.column_keys))
        if key.referred_table not in below
        and not any(column.nullable for column in key.columns)
        and (tenant_column(key.referred_table) is not None or tenant_parents(key.referred_table, below))
    ]


def tenant_problems(metadata: MetaData) -> list[str]:
    """One sentence for each table that is neither tenant-bound nor exempt for a reason, or both."""
    return [problem for table in metadata.sorted_tables if (problem := _problem(table))]


def _problem(table: Table) -> str | None:
    reason, bound = table.info.get(_EXEMPT), is_tenant_bound(table)
    if bound and reason is not None:
        return f"table {table.name} is tenant-bound. Remove tenant_exempt() from its __table_args__"
    if not bound and not (reason and reason.strip()):
        return (
            f"table {table.name} has no row-level security: it has neither a NOT NULL owner_id or organization_id nor a NOT "
            "NULL foreign key to a tenant-bound table. Add one, or state in its __table_args__ why every tenant may see its "
            'rows: tenant_exempt("reason")'
        )
    return None


def enable_row_level_security(table: Table) -> list[str]:
    """The statements for a tenant-bound table; none for an exempt one. FORCE applies the policy to the table's owner too."""
    if not is_tenant_bound(table):
        return []
    name = _quoted(table.name)
    return [
        # Without a WITH CHECK it applies to inserted and updated rows as well.
        f"CREATE POLICY tenant ON {name} USING ({_predicate(table)})",
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
    ]


def _predicate(table: Table) -> str:
    column = tenant_column(table)
    if column is not None:
        return f"{_quoted(column.name)} = {_TENANT} OR {_ALL}"
    return " AND ".join(map(_visible_parent, tenant_parents(table)))


def _visible_parent(key: ForeignKeyConstraint) -> str:
    """The parent's own policy applies in the subselect. Not EXISTS: PostgreSQL may plan that as a scan of all parents."""
    parent, child = _quoted(key.referred_table.name), _quoted(key.table.name)
    same = " AND ".join(
        f"{parent}.{_quoted(element.column.name)} = {child}.{_quoted(element.parent.name)}" for element in key.elements
    )
    return f"(SELECT true FROM {parent} WHERE {same})"  # noqa: S608 — of names in the models


_quoted: Final = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]  # untyped there
