"""The drift gate: messages and tables must match, field by field and column by column."""

from collections.abc import Iterator, Mapping
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from accord_db.engine.columns import Column, ColumnKind, columns_of
from accord_db.engine.model import Model
from accord_rpc.fields import choices, column_kind, fields_of, is_optional, max_len, unmappable
from accord_rpc.policy import Method

_WRITING = ("Create", "Update", "BatchCreate", "BatchUpdate")
# The values of the first are among those of the second.
_WIDER = frozenset({(ColumnKind.CHOICE, ColumnKind.TEXT), (ColumnKind.INTEGER, ColumnKind.BIGINT)})


def drift(message: type[Message], model: type[Model]) -> Iterator[str]:
    """A sentence for each difference between a resource and its table."""
    columns = columns_of(model)
    for field in fields_of(message):
        if (column := columns.get(field.name)) is None:
            yield f"{field.full_name}: table {model.__tablename__} has no column with that name"
            continue
        problems = list(_type_problems(field, column))
        if not problems and is_optional(field) != column.nullable:
            problems.append("an optional field needs a column that can be NULL, and only an optional one")
        yield from (f"{_names(field, model)}: {problem}" for problem in problems)


def request_drift(method: Method, resources: Mapping[type[Message], type[Model]]) -> Iterator[str]:
    """A sentence for each field of a Create or Update request, or of a message in it, that its column cannot hold. The column
    has the field's name, in the table of a resource that the method returns."""
    if not method.name.startswith(_WRITING):
        return
    tables = {message.DESCRIPTOR.full_name: model for message, model in resources.items()}
    returned = [field.message_type.full_name for field in method.response.DESCRIPTOR.fields if field.message_type]
    creates = "Create" in method.name
    for model in dict.fromkeys(tables[name] for name in returned if name in tables):
        columns = columns_of(model)
        for field in _request_fields(cast(Descriptor, method.request.DESCRIPTOR), tables):
            if (column := columns.get(field.name)) is not None:
                problems = _request_problems(field, column, creates=creates)
                yield from (f"{_names(field, model)}: {problem}" for problem in problems)


def _request_fields(
    message: Descriptor, tables: Mapping[str, type[Model]], above: frozenset[str] = frozenset()
) -> Iterator[FieldDescriptor]:
    """Those of the contract's own messages in it too; resources have been compared already."""
    above |= {message.full_name}
    for field in message.fields:
        yield field
        inner = field.message_type
        if inner and inner.full_name not in above | tables.keys() and inner.file.package.startswith("accord."):
            yield from _request_fields(inner, tables, above)


def _names(field: FieldDescriptor, model: type[Model]) -> str:
    return f"{field.full_name} and {model.__tablename__}.{field.name}"


def _request_problems(field: FieldDescriptor, column: Column, *, creates: bool) -> Iterator[str]:
    yield from _type_problems(field, column, narrower=True)
    if creates and is_optional(field) and not (column.nullable or column.has_default):
        yield "the request can leave it unset, but the column cannot be NULL and has no default"


def _type_problems(field: FieldDescriptor, column: Column, *, narrower: bool = False) -> Iterator[str]:
    """`narrower`: the column may hold more than the field, as it may in a request."""
    kind = column_kind(field)
    if kind is None:
        yield unmappable(field)
        return
    if column.null_is_json and column.nullable:
        yield "the column would store JSON null for an unset field: declare it JSONB(none_as_null=True)"
    if field.is_repeated:
        if column.item is None or column.kind is not ColumnKind.ARRAY:
            yield f"a repeated field needs an array of {kind}, and the column is {column.kind}"
            return
        column = column.item
    if narrower and (kind, column.kind) in _WIDER:
        return
    if kind is not column.kind:
        yield f"the field needs {kind}, and the column is {column.kind}"
    elif kind is ColumnKind.TEXT and not _fits(max_len(field), column.length, narrower):
        yield f"max_len is {max_len(field)}, and the column's length {column.length}"
    elif kind is ColumnKind.CHOICE and not _allows(column.choices, frozenset(choices(field)), narrower):
        yield f"the enum has {sorted(choices(field))}, and the column allows {sorted(column.choices)}"


def _fits(limit: int | None, length: int | None, narrower: bool) -> bool:
    if narrower:
        return length is None or (limit is not None and limit <= length)
    return limit == length


def _allows(allowed: frozenset[str], values: frozenset[str], narrower: bool) -> bool:
    return values <= allowed if narrower else values == allowed
