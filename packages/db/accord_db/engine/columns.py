"""Descriptions of a table's columns without SQLAlchemy's types, for the drift check, which compares them with messages."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    String,
    Uuid,
    inspect,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator, TypeEngine


class ColumnKind(StrEnum):
    UUID = "uuid"
    TEXT = "text"
    CHOICE = "text with a CHECK"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    BIGINT = "bigint"
    FLOAT = "double precision"
    TIME = "timestamptz"
    DATE = "date"
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
    (Date, ColumnKind.DATE),
    (LargeBinary, ColumnKind.BYTES),
    (JSONB, ColumnKind.JSON),
    (ARRAY, ColumnKind.ARRAY),
)


@dataclass(frozen=True, slots=True)
class Column:
    """`length` in characters, None if unbounded. `choices` are the values that a CHECK allows. `item` describes the elements
    of an array. `has_default`: the database fills the column in. `null_is_json`: NULL is stored as JSON null."""

    kind: ColumnKind
    nullable: bool
    has_default: bool
    length: int | None
    choices: frozenset[str]
    item: "Column | None" = None
    null_is_json: bool = False


def columns_of(model: type[DeclarativeBase]) -> dict[str, Column]:
    return {
        name: _column(column.type, bool(column.nullable), column.server_default is not None)
        for name, column in inspect(model).columns.items()
    }


def _column(type_: TypeEngine[Any], nullable: bool, has_default: bool) -> Column:
    # Interval is a decorator of DateTime for databases without intervals.
    if isinstance(type_, TypeDecorator) and not isinstance(type_, Interval):
        return _column(type_.impl_instance, nullable, has_default)
    return Column(
        kind=_kind(type_),
        nullable=nullable,
        has_default=has_default,
        length=getattr(type_, "length", None),
        choices=frozenset(getattr(type_, "enums", ())),
        item=_column(type_.item_type, False, False) if isinstance(type_, ARRAY) else None,
        null_is_json=isinstance(type_, JSONB) and not type_.none_as_null,
    )


def _kind(type_: TypeEngine[Any]) -> ColumnKind:
    if isinstance(type_, ARRAY) and type_.dimensions not in (None, 1):
        return ColumnKind.OTHER
    return next((kind for known, kind in _KINDS if isinstance(type_, known)), ColumnKind.OTHER)
