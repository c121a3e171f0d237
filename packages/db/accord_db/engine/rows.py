"""Conversion of result rows to the records of a statement."""

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
    """A function of the values of one row. It returns a record for one entity, the value for one column, and else a row with
    one attribute for each."""
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
    """A selected entity, of several columns, or a selected column."""

    def __init__(self, name: str, position: int | slice, make: MakeRow, *, is_entity: bool) -> None:
        self.name = name
        self.make = make
        self.position = position
        self.is_entity = is_entity

    def pick(self, row: Sequence[Any]) -> Any:
        value = row[self.position]
        if not self.is_entity:
            return value
        # NULL in every column: an outer join without a match.
        return None if all(each is None for each in value) else self.make(value)


def _fields(executable: Executable, columns: Sequence[ResultColumnsEntry]) -> Iterator[_Field]:
    first = 0
    for name, selected in _selected(executable, columns):
        if (mapper := _mapper(selected)) is not None:
            position = slice(first, first + len(mapper.column_attrs))
            yield _Field(name, position, _record_of(name, mapper, columns[position]), is_entity=True)
            first = position.stop
        else:
            yield _Field(name, first, _first_value, is_entity=False)
            first += 1


def _selected(executable: Any, columns: Sequence[ResultColumnsEntry]) -> list[tuple[str, object]]:
    """Names and expressions in order. For a statement without descriptions (UNION), its columns."""
    for described in ("column_descriptions", "returning_column_descriptions"):
        if descriptions := getattr(executable, described, None):
            return [(description["name"], description["expr"]) for description in descriptions]
    return [(column.keyname, None) for column in columns]


def _mapper(selected: object) -> Mapper[Any] | None:
    """The mapper of an entity or of its alias; None for a column."""
    inspected = inspect(selected, raiseerr=False) if selected is not None else None
    is_entity = getattr(inspected, "is_mapper", False) or getattr(inspected, "is_aliased_class", False)
    return cast(Mapper[Any], inspected.mapper) if inspected is not None and is_entity else None


def _record_of(name: str, mapper: Mapper[Any], columns: Sequence[ResultColumnsEntry]) -> MakeRow:
    attributes = {attribute.columns[0].name: attribute for attribute in mapper.column_attrs}
    selected = [attributes[_column_name(column, attributes)] for column in columns]
    hidden = {attribute.key for attribute in selected if attribute.columns[0].info.get("sensitive")}
    return _record(name, [attribute.key for attribute in selected], hidden)


def _column_name(column: ResultColumnsEntry, among: Mapping[str, object]) -> str:
    """The column's name in the table; in the result it may have a label."""
    names = [str(getattr(each, "name", "")) for each in column.objects]
    return next(name for name in names if name in among)


def _row_of(fields: Sequence[_Field]) -> MakeRow:
    make = _record("Row", [field.name for field in fields])
    if not any(field.is_entity for field in fields):
        return make
    picks = [field.pick for field in fields]
    return lambda row: make([pick(row) for pick in picks])


def _record(name: str, attributes: Sequence[str], hidden: Collection[str] = ()) -> MakeRow:
    record: Any = namedtuple(name, attributes, rename=True)  # type: ignore[misc]  # the fields are not literals
    if hidden:
        record.__repr__ = _repr_without(hidden)  # type: ignore[method-assign]  # the class was created above
    # tuple.__new__ takes the driver's tuple without a Python frame for each row.
    return partial(tuple.__new__, record)


def _repr_without(hidden: Collection[str]) -> Callable[[Any], str]:
    """Keeps secrets out of logs that print a row."""

    def repr_row(row: Any) -> str:
        shown = [f"{name}={value!r}" for name, value in zip(row._fields, row, strict=True) if name not in hidden]
        return f"{type(row).__name__}({', '.join(shown)}, …)"

    return repr_row


def _first_value(row: Sequence[Any]) -> Any:
    return row[0]


def _processor(type_: TypeEngine[Any], dialect: Dialect) -> Process | None:
    return type_._cached_result_processor(dialect, None) if is_processed(type_) else None  # noqa: SLF001 — as its cursors do


def _processed(make: MakeRow, processors: Sequence[Process | None]) -> MakeRow:
    def process_row(row: Sequence[Any]) -> Any:
        pairs = zip(processors, row, strict=True)
        return make(tuple(process(value) if process else value for process, value in pairs))

    return process_row
