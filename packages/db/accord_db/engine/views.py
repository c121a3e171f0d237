"""Statements that do not read large columns."""

from collections.abc import Collection
from typing import Any, cast

from sqlalchemy import Select, inspect
from sqlalchemy.orm import InstrumentedAttribute, Mapper

Statement = Select[*tuple[Any, ...]]


def without(statement: Statement, columns: Collection[InstrumentedAttribute[Any]]) -> Statement:
    """The same statement, whose rows lack the columns. It selects one entity."""
    left_out = {column.key for column in columns}
    entity = statement.column_descriptions[0]["entity"]
    mapper = cast(Mapper[Any], inspect(entity))
    kept = [getattr(entity, attribute.key) for attribute in mapper.column_attrs if attribute.key not in left_out]
    return statement.with_only_columns(*kept, maintain_column_froms=True)
