"""What a table's columns are, in words that need no SQLAlchemy: for the gate that holds messages against tables."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Boolean, DateTime, Enum, Float, Integer, LargeBinary, String, Uuid, inspect
from sqlalchemy.types import TypeEngine

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
    OTHER = "of a type that no message field can have"


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
)


@dataclass(frozen=True, slots=True)
class Column:
    """`length` in characters, None if unbounded; `choices` are the values that a CHECK allows."""

    kind: ColumnKind
    nullable: bool
    length: int | None
    choices: frozenset[str]


def columns_of(model: type[Model]) -> dict[str, Column]:
    return {
        name: Column(
            kind=next((kind for type_, kind in _KINDS if isinstance(column.type, type_)), ColumnKind.OTHER),
            nullable=bool(column.nullable),
            length=getattr(column.type, "length", None),
            choices=frozenset(getattr(column.type, "enums", ())),
        )
        for name, column in inspect(model).columns.items()
    }
