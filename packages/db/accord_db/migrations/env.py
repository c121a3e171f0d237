"""Run by alembic, on a connection whose locks and time limits are set. Opens none of its own."""

from functools import partial
from typing import Any, Literal

from alembic import context
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Index
from sqlalchemy.sql.schema import SchemaItem
from sqlalchemy.types import TypeDecorator

from accord_db.migrate.comparison import Comparison
from accord_db.migrate.row_level_security import add_row_level_security

# For a new migration only.
comparison: Comparison | None = context.config.attributes.get("comparison")


def is_compared(item: SchemaItem, name: str | None, kind: str, reflected: bool, other: SchemaItem | None) -> bool:
    """alembic reads indexes without their collations, and would report each such index as changed. `migrate check` compares
    them, in PostgreSQL."""
    return not (
        isinstance(item, Index) and other is not None and any(" COLLATE " in str(each) for each in item.expressions)
    )


def complete(migration: MigrationContext, revision: Any, scripts: list[MigrationScript]) -> None:
    add_row_level_security(migration, revision, scripts)
    for script in scripts:
        if comparison:
            comparison.complete(script)


def render_type(kind: str, item: Any, context: Any) -> str | Literal[False]:
    """A migration states the type that PostgreSQL has, so that it does not change with the models."""
    return f"sa.{item.impl_instance!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


configure = partial(
    context.configure,
    target_metadata=comparison.metadata if comparison else None,
    # A migration that fails leaves those before it in place, and no lock is held longer than one migration takes.
    transaction_per_migration=True,
    compare_type=comparison.type_differs if comparison else False,
    compare_server_default=False,  # alembic fails on JSON, and on a function of ours if there is a computed column
    process_revision_directives=complete,
    include_object=is_compared,
    render_item=render_type,
)

if context.is_offline_mode():
    # Not the driver's paramstyle, which doubles every %.
    configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True)
else:
    configure(connection=context.config.attributes["connection"])

with context.begin_transaction():
    context.run_migrations()
