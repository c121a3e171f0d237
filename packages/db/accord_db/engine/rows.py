"""How an answer of PostgreSQL becomes the rows that a statement promises."""

from collections import namedtuple
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from sqlalchemy import ARRAY, JSON, Enum, Executable, inspect
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.compiler import ResultColumnsEntry
from sqlalchemy.types import TypeDecorator, TypeEngine

MakeRow = Callable[[Sequence[Any]], Any]
Process = Callable[[Any], Any]


def row_maker(executable: Executable, columns: Sequence[ResultColumnsEntry], dialect: Dialect) -> MakeRow:
    """From the values of one row: a record of the entity, the bare value of an only column, or a row of both."""
    fields = list(_fields(executable, columns))
    make = fields[0].make if len(fields) == 1 else _row_of(fields)
    processors = [_processor(column.type, dialect) for column in columns]
    return _processed(make, processors) if any(processors) else make


def is_processed(type_: TypeEngine[Any]) -> bool:
    """Whether SQLAlchemy does more with the values of this type than the driver has done, or PostgreSQL will do. An Enum of
    texts is text: a choice that a newer release wrote can be read."""
    type_ = type_.item_type if isinstance(type_, ARRAY) else type_
    return isinstance(type_, JSON | TypeDecorator) or (isinstance(type_, Enum) and type_.enum_class is not None)


class _Field:
    """One of the things that were selected: an entity of several columns, or a column."""

    def __init__(self, name: str, place: int | slice, make: MakeRow, *, is_entity: bool) -> None:
        self.name = name
        self.make = make
        self.place = place
        self.is_entity = is_entity

    def pick(self, row: Sequence[Any]) -> Any:
        value = row[self.place]
        if not self.is_entity:
            return value
        # No entity has NULL in every column: an outer join found none.
        return None if all(part is None for part in value) else self.make(value)


def _fields(executable: Executable, columns: Sequence[ResultColumnsEntry]) -> Iterator[_Field]:
    first = 0
    for name, selected in _selected(executable, columns):
        if (mapper := _mapper(selected)) is not None:
            place = slice(first, first + len(mapper.column_attrs))
            yield _Field(name, place, _record_of(name, mapper, columns[place]), is_entity=True)
            first = place.stop
        else:
            yield _Field(name, first, _only, is_entity=False)
            first += 1


def _selected(executable: Any, columns: Sequence[ResultColumnsEntry]) -> list[tuple[str, object]]:
    """Names and expressions in order; of what has no description of its own (a UNION), the columns."""
    for described in ("column_descriptions", "returning_column_descriptions"):
        if descriptions := getattr(executable, described, None):
            return [(description["name"], description["expr"]) for description in descriptions]
    return [(column.keyname, None) for column in columns]


def _mapper(selected: object) -> Mapper[Any] | None:
    """Of an entity or an alias of one; a column has none."""
    found = inspect(selected, raiseerr=False) if selected is not None else None
    is_entity = getattr(found, "is_mapper", False) or getattr(found, "is_aliased_class", False)
    return cast(Mapper[Any], found.mapper) if found is not None and is_entity else None


def _record_of(name: str, mapper: Mapper[Any], columns: Sequence[ResultColumnsEntry]) -> MakeRow:
    attributes = {attribute.columns[0].name: attribute for attribute in mapper.column_attrs}
    selected = [attributes[_column_name(column, attributes)] for column in columns]
    hidden = {attribute.key for attribute in selected if attribute.columns[0].info.get("sensitive")}
    return _record(name, [attribute.key for attribute in selected], hidden)


def _column_name(column: ResultColumnsEntry, among: Mapping[str, object]) -> str:
    """Its name in the table, whatever label keeps it apart in the result."""
    names = [str(getattr(thing, "name", "")) for thing in column.objects]
    return next(name for name in names if name in among)


def _row_of(fields: Sequence[_Field]) -> MakeRow:
    make = _record("Row", [field.name for field in fields])
    if not any(field.is_entity for field in fields):
        return make
    picks = [field.pick for field in fields]
    return lambda row: make([pick(row) for pick in picks])


def _record(name: str, attributes: Sequence[str], hidden: Collection[str] = ()) -> MakeRow:
    record: Any = namedtuple(name, attributes, rename=True)  # type: ignore[misc]  # its fields are known only now
    if hidden:
        record.__repr__ = _repr_without(hidden)  # type: ignore[method-assign]  # the class is ours alone
    # tuple.__new__ takes the driver's tuple as it is, without a Python frame for each row.
    return partial(tuple.__new__, record)


def _repr_without(hidden: Collection[str]) -> Callable[[Any], str]:
    """For what must not get into a log by way of the row that it is in."""

    def repr_row(row: Any) -> str:
        shown = [f"{name}={value!r}" for name, value in zip(row._fields, row, strict=True) if name not in hidden]
        return f"{type(row).__name__}({', '.join(shown)}, …)"

    return repr_row


def _only(row: Sequence[Any]) -> Any:
    return row[0]


def _processor(type_: TypeEngine[Any], dialect: Dialect) -> Process | None:
    return type_._cached_result_processor(dialect, None) if is_processed(type_) else None  # noqa: SLF001 — as its cursors do


def _processed(make: MakeRow, processors: Sequence[Process | None]) -> MakeRow:
    def process_row(row: Sequence[Any]) -> Any:
        pairs = zip(processors, row, strict=True)
        return make(tuple(process(value) if process else value for process, value in pairs))

    return process_row
