"""alembic runs this file. The caller passes the connection, with its lock and timeouts set."""

from functools import partial
from typing import Any, Literal

from alembic import context
from alembic.operations.ops import CreateTableOp, ExecuteSQLOp, MigrationScript
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Index, MetaData
from sqlalchemy.sql.schema import SchemaItem
from sqlalchemy.types import TypeDecorator

from accord_db.engine.row_level_security import enable_row_level_security
from accord_db.migrate.comparison import Comparison

# Set only for a new migration.
comparison: Comparison | None = context.config.attributes.get("comparison")


def is_compared(item: SchemaItem, name: str | None, kind: str, reflected: bool, other: SchemaItem | None) -> bool:
    """alembic reads indexes without their collations, and would report each of them as changed. `migrate check` compares them
    in PostgreSQL."""
    return not (
        isinstance(item, Index) and other is not None and any(" COLLATE " in str(each) for each in item.expressions)
    )


def complete(migration: MigrationContext, revision: Any, scripts: list[MigrationScript]) -> None:
    for script in scripts:
        add_row_level_security(script, migration.opts["target_metadata"])
        if comparison:
            comparison.complete(script)


def add_row_level_security(script: MigrationScript, metadata: MetaData) -> None:
    """For each new tenant-bound table: alembic does not compare policies. For an existing table that becomes tenant-bound the
    author decides, since gateways of the release before set no tenant for it and would find no rows. `migrate check` reports
    the missing policy."""
    assert script.upgrade_ops is not None
    created = [metadata.tables[each.table_name] for each in script.upgrade_ops.ops if isinstance(each, CreateTableOp)]
    script.upgrade_ops.ops += [ExecuteSQLOp(sql) for table in created for sql in enable_row_level_security(table)]


def render_type(kind: str, item: Any, context: Any) -> str | Literal[False]:
    """A migration states PostgreSQL's type, so that it does not change with the models."""
    return f"sa.{item.impl_instance!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


configure = partial(
    context.configure,
    target_metadata=comparison.metadata if comparison else None,
    # A failed migration does not roll back earlier ones, and locks last no longer than one migration.
    transaction_per_migration=True,
    compare_type=comparison.type_differs if comparison else False,
    compare_server_default=False,  # alembic fails for JSON, and for functions of Accord in tables with a computed column
    process_revision_directives=complete,
    include_object=is_compared,
    render_item=render_type,
)

if context.is_offline_mode():
    # The driver's paramstyle would double every %.
    configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True)
else:
    configure(connection=context.config.attributes["connection"])

with context.begin_transaction():
    context.run_migrations()
