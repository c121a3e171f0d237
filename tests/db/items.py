"""A table for tests of the engine."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import psycopg
from sqlalchemy import ARRAY, Integer, MetaData, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from accord_db.engine.model import NAMING_CONVENTION, CreatedAt, Id, Model, OccurredAt, Versioned, one_of


class ItemBase(DeclarativeBase):
    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = Model.type_annotation_map


class Item(Versioned, ItemBase):
    __tablename__ = "items"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    name: Mapped[str]
    number: Mapped[int] = mapped_column(server_default=text("7"))
    status: Mapped[str] = mapped_column(one_of("active", "paused", name="status"), server_default="active")
    owner: Mapped[UUID | None]
    note: Mapped[str | None] = mapped_column(server_default="none")
    ended_at: Mapped[datetime | None]
    occurred_at: Mapped[OccurredAt]
    settings: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    extra: Mapped[dict[str, Any] | None]
    tags: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    numbers: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))


def create_table(dsn: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    ItemBase.metadata.create_all(engine)
    engine.dispose()
