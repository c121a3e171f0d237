"""Rows for tests, made from the types of a table's columns."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Enum,
    Float,
    Integer,
    LargeBinary,
    String,
    Table,
    Uuid,
    and_,
    exists,
)
from sqlalchemy.types import TypeEngine

from accord_db.engine.ids import uuid7
from accord_db.engine.row_level_security import tenant_column, tenant_parents

Row = Mapping[str, Any]

# In this order: SQLAlchemy's Enum is a String. Texts and bytes are unique, and bytes as long as a SHA-256.
_VALUES: Final[tuple[tuple[type[TypeEngine[Any]], Callable[[Any], Any]], ...]] = (
    (Uuid, lambda _: uuid7()),
    (Enum, lambda type_: type_.enums[0]),
    (String, lambda type_: uuid7().hex[-(type_.length or 32) :]),
    (Boolean, lambda _: False),
    (Integer, lambda _: 1),
    (Float, lambda _: 1.0),
    (DateTime, lambda _: datetime.now(UTC)),
    (LargeBinary, lambda _: uuid7().bytes * 2),
    (ARRAY, lambda _: []),
    (JSON, lambda _: {}),
)


def row_of(table: Table, parents: Mapping[str, Row], **given: Any) -> dict[str, Any]:
    """A value for each column that needs one. NOT NULL foreign keys refer to `parents`, which are rows by their tables' names."""
    row = {column.name: _value(column) for column in table.c if _needs_value(column)}
    for key in table.foreign_key_constraints:
        parent = parents.get(key.referred_table.name)
        if parent is not None and not any(column.nullable for column in key.columns):
            row |= {element.parent.name: parent[element.column.name] for element in key.elements}
    return row | {name: value for name, value in given.items() if name in table.c}


def of_tenant(table: Table, tenant_id: UUID) -> ColumnElement[bool]:
    """Whether a row of a tenant-bound table is the tenant's."""
    column = tenant_column(table)
    if column is not None:
        return column == tenant_id
    return and_(
        *(
            exists().where(
                *(each.column == each.parent for each in key.elements), of_tenant(key.referred_table, tenant_id)
            )
            for key in tenant_parents(table)
        )
    )


def _needs_value(column: Column[Any]) -> bool:
    return not column.nullable and column.server_default is None and column.computed is None


def _value(column: Column[Any]) -> Any:
    for type_, value in _VALUES:
        if isinstance(column.type, type_):
            return value(column.type)
    raise TypeError(f"tests/rows.py makes no {column.type!r}, which {column} needs")
