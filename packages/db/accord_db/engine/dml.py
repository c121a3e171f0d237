"""INSERT and UPDATE statements that name their columns once: each bind parameter has the name of its column."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar, cast
from uuid import UUID

from psycopg.adapt import PyFormat, Transformer
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DefaultClause,
    Text,
    Uuid,
    bindparam,
    column,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate
from sqlalchemy.types import TypeEngine

from accord_db.engine.executor import Executor

M = TypeVar("M", bound=DeclarativeBase)

_SEEN_ETAG: Final = "seen_etag"


def etag_matches(model: Any) -> ColumnElement[bool]:
    """True if the parameter `seen_etag` is NULL or the row's etag: a condition of `update_row` and of soft deletes."""
    return or_(bindparam(_SEEN_ETAG, type_=Uuid).is_(None), model.etag == bindparam(_SEEN_ETAG))


async def insert_row(db: Executor, model: type[M], **values: object) -> M:
    """Inserts one row and returns it, with the defaults of the database."""
    row = await db.fetch_one(_insert(model, tuple(values)), **values)
    assert row is not None
    return cast(M, row)


async def insert_rows(db: Executor, model: type[M], rows: Sequence[Mapping[str, Any]], **shared: object) -> list[M]:
    """Inserts all rows or none, in one statement, and returns them in the order given. Each row has an `id`. A column that a
    row lacks and another has gets its default if it cannot be NULL, and else NULL. `shared` columns are the same in each row.
    """
    if not rows:
        return []
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    arrays = {f"{name}s": _element_values(model, name, [row.get(name) for row in rows]) for name in names}
    inserted = await db.fetch_all(_insert_many(model, names, tuple(shared)), **arrays, **shared)
    by_id = {cast(UUID, cast(Any, row).id): row for row in inserted}
    return [by_id[row["id"]] for row in rows]


async def update_row(
    db: Executor,
    model: type[M],
    where: tuple[ColumnElement[bool], ...],
    changes: Mapping[str, Any],
    **others: object,
) -> M | None:
    """Sets the columns that `changes` names and returns the row; None if no row meets the conditions.

    `where` is a constant of the caller's module: statements are compiled once for each set of columns."""
    changed = await db.fetch_one(_update(model, where, frozenset(changes)), **changes, **others)
    return cast("M | None", changed)


@cache
def _insert(model: type[M], names: tuple[str, ...]) -> ReturningInsert[M]:
    return insert(model).values(parameters(model, *names)).returning(model)


@cache
def _insert_many(model: type[M], names: tuple[str, ...], shared: tuple[str, ...]) -> ReturningInsert[M]:
    """One array per column: so one prepared statement serves any number of rows."""
    types = {name: _element_type(model, name) for name in names}
    arrays = [bindparam(f"{name}s", type_=ARRAY(type_, dimensions=1)) for name, type_ in types.items()]
    new = func.unnest(*arrays).table_valued(*(column(name, type_) for name, type_ in types.items()), name="new")
    rows = new.render_derived()
    selected = [*(_inserted(model, name, rows.c[name]) for name in names), *parameters(model, *shared).values()]
    return insert(model).from_select([*names, *shared], select(*selected)).returning(model)


def _element_type(model: type[DeclarativeBase], name: str) -> TypeEngine[Any]:
    """Text for a column that is an array itself: PostgreSQL has no arrays of arrays of different lengths."""
    type_ = _column(model, name).type
    return Text() if isinstance(type_, ARRAY) else type_


def _element_values(model: type[DeclarativeBase], name: str, values: list[Any]) -> list[Any]:
    if not isinstance(_column(model, name).type, ARRAY):
        return values
    return [None if value is None else _array_literal(value) for value in values]


def _array_literal(value: list[Any]) -> str:
    return bytes(Transformer().get_dumper(value, PyFormat.TEXT).dump(value) or b"").decode()


def _inserted(model: type[DeclarativeBase], name: str, value: ColumnElement[Any]) -> ColumnElement[Any]:
    inserted = _column(model, name)
    if isinstance(inserted.type, ARRAY):
        value = sql_cast(value, inserted.type)
    default = inserted.server_default
    if inserted.nullable or not isinstance(default, DefaultClause):
        return value
    expression = (
        default.arg if isinstance(default.arg, ClauseElement) else sql_cast(literal(default.arg, Text()), inserted.type)
    )
    return func.coalesce(value, expression)


@cache
def _update(model: type[M], where: tuple[ColumnElement[bool], ...], names: frozenset[str]) -> ReturningUpdate[M]:
    return update(model).where(*where).values(parameters(model, *sorted(names))).returning(model)


def parameters(model: type[DeclarativeBase], *names: str) -> dict[str, Any]:
    """A bind parameter for each column, named after it: for `insert(model).values(**parameters(model, "id", "name"), …)`."""
    return {name: bindparam(name, type_=_column(model, name).type) for name in names}


def _column(model: type[DeclarativeBase], name: str) -> Any:
    return model.__table__.c[name]
