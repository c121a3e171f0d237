"""Run by alembic. It connects to nothing by itself: the connection is handed in, with its locks and time limits set."""

from functools import partial
from typing import Any, Literal

from alembic import context
from sqlalchemy import Index
from sqlalchemy.sql.schema import SchemaItem
from sqlalchemy.types import TypeDecorator

from accord_db.migrate.row_level_security import add_row_level_security


def is_compared(item: SchemaItem, name: str | None, kind: str, reflected: bool, other: SchemaItem | None) -> bool:
    """alembic reads indexes without their collations, and would find such an index changed for ever. That there is drift
    is for `migrate check` to find, which asks PostgreSQL."""
    return not (
        isinstance(item, Index) and other is not None and any(" COLLATE " in str(each) for each in item.expressions)
    )


def render_type(kind: str, item: Any, context: Any) -> str | Literal[False]:
    """A migration states the type that PostgreSQL has, so that it does not change with the models."""
    return f"sa.{item.impl_instance!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


configure = partial(
    context.configure,
    target_metadata=context.config.attributes.get("metadata"),
    # A migration that fails leaves those before it in place, and no lock is held longer than one migration takes.
    transaction_per_migration=True,
    compare_server_default=True,
    process_revision_directives=add_row_level_security,
    include_object=is_compared,
    render_item=render_type,
)

if context.is_offline_mode():
    # Not the driver's paramstyle, for which every % would be doubled.
    configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True)
else:
    configure(connection=context.config.attributes["connection"])

with context.begin_transaction():
    context.run_migrations()
