"""The base of all tables: metadata, names of constraints, types and shared columns."""

from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Final
from uuid import UUID

from sqlalchemy import ARRAY, Computed, Date, DateTime, Enum, ForeignKey, MetaData, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

# Constraints have fixed names, so that a migration can drop them by name.
NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}

# `sort_order` puts the id first and the other shared columns last, after the columns of the feature.
# UUIDv7, created by the application: no sequence is needed, and new rows go to one end of the index.
Id = Annotated[UUID, mapped_column(primary_key=True, sort_order=-1)]
# By the database's clock, at the start of the transaction: the same instant for everything that one transaction writes. A
# transaction that waited for a lock writes a time before that of the transaction it waited for.
CreatedAt = Annotated[datetime, mapped_column(server_default=func.now(), sort_order=1)]
UpdatedAt = Annotated[datetime, mapped_column(server_default=func.now(), onupdate=func.now(), sort_order=2)]
# By the database's clock, when the row is inserted. For history: events on a row that its transactions lock sort as they occurred.
OccurredAt = Annotated[datetime, mapped_column(server_default=func.clock_timestamp())]


class Model(DeclarativeBase):
    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar[dict[Any, TypeEngine[Any]]] = {
        datetime: DateTime(timezone=True),
        str: Text(),
        dict[str, Any]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text()),
        list[UUID]: ARRAY(Uuid()),
        list[date]: ARRAY(Date()),
    }


_LONGEST_CHOICE: Final = 63
"""In characters. New values up to this length do not change the type of the column."""


def one_of(*values: str, name: str) -> Enum:
    """The type of a text column that holds one of the values. A CHECK with this name enforces it."""
    return Enum(*values, native_enum=False, create_constraint=True, name=name, length=_LONGEST_CHOICE)


def some_of(*values: str) -> "ARRAY[str]":
    """The type of an array of some of the values. SQLAlchemy creates no CHECK for it: add `column <@ ARRAY[…]`."""
    return ARRAY(Enum(*values, native_enum=False, create_constraint=False, length=_LONGEST_CHOICE))


class Shared:
    """The columns of rows that are created, changed and softly deleted."""

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]
    deleted_at: Mapped[datetime | None] = mapped_column(sort_order=3)


class OwnedByAccount:
    """Rows of the account that created them, deleted with it. Row-level security applies to them."""

    created_by: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    owner_id: Mapped[UUID] = mapped_column(Computed("created_by", persisted=True))


class Versioned:
    """The version of a row. A caller that sends it with a change changes this version only, and no later one."""

    etag: Mapped[UUID] = mapped_column(
        server_default=func.gen_random_uuid(), onupdate=func.gen_random_uuid(), sort_order=4
    )
