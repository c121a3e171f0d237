"""A table's columns, described without SQLAlchemy's types: for the drift gate, which compares them with messages."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Enum,
    Float,
    Integer,
    LargeBinary,
    String,
    Uuid,
    inspect,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

from accord_db.engine.model import Model


class ColumnKind(StrEnum):
    UUID = "uuid"
    TEXT = "text"
    CHOICE = "text with a CHECK"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    BIGINT = "bigint"
    FLOAT = "double precision"
    TIME = "timestamptz"
    BYTES = "bytea"
    JSON = "jsonb"
    ARRAY = "an array"
    OTHER = "of a type that no field can have"


# In this order: SQLAlchemy's Enum is a String, and its BigInteger an Integer.
_KINDS: tuple[tuple[type[TypeEngine[Any]], ColumnKind], ...] = (
    (Uuid, ColumnKind.UUID),
    (Enum, ColumnKind.CHOICE),
    (String, ColumnKind.TEXT),
    (Boolean, ColumnKind.BOOLEAN),
    (BigInteger, ColumnKind.BIGINT),
    (Integer, ColumnKind.INTEGER),
    (Float, ColumnKind.FLOAT),
    (DateTime, ColumnKind.TIME),
    (LargeBinary, ColumnKind.BYTES),
    (JSON, ColumnKind.JSON),
    (ARRAY, ColumnKind.ARRAY),
)


@dataclass(frozen=True, slots=True)
class Column:
    """`length` in characters, None if unbounded. `choices` are the values that a CHECK allows. `item` describes the elements
    of an array."""

    kind: ColumnKind
    nullable: bool
    length: int | None
    choices: frozenset[str]
    item: "Column | None" = None


def columns_of(model: type[Model]) -> dict[str, Column]:
    return {name: _column(column.type, bool(column.nullable)) for name, column in inspect(model).columns.items()}


def _column(type_: TypeEngine[Any], nullable: bool) -> Column:
    if isinstance(type_, TypeDecorator):
        return _column(type_.impl_instance, nullable)
    return Column(
        kind=next((kind for known, kind in _KINDS if isinstance(type_, known)), ColumnKind.OTHER),
        nullable=nullable,
        length=getattr(type_, "length", None),
        choices=frozenset(getattr(type_, "enums", ())),
        item=_column(type_.item_type, nullable=False) if isinstance(type_, ARRAY) else None,
    )
