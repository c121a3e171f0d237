"""The drift gate: messages and tables must match, field by field and column by column."""

from collections.abc import Iterator, Mapping
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.message import Message

from accord_db.engine.columns import Column, ColumnKind, columns_of
from accord_db.engine.model import Model
from accord_rpc.messages import choices, fields_of, is_json, is_mappable, is_timestamp, is_uuid
from accord_rpc.policy import Method
from buf.validate import validate_pb2

_KINDS: Final = {
    FieldDescriptor.TYPE_STRING: ColumnKind.TEXT,
    FieldDescriptor.TYPE_ENUM: ColumnKind.CHOICE,
    FieldDescriptor.TYPE_BOOL: ColumnKind.BOOLEAN,
    FieldDescriptor.TYPE_INT32: ColumnKind.INTEGER,
    FieldDescriptor.TYPE_INT64: ColumnKind.BIGINT,
    FieldDescriptor.TYPE_DOUBLE: ColumnKind.FLOAT,
    FieldDescriptor.TYPE_BYTES: ColumnKind.BYTES,
}


def drift(message: type[Message], model: type[Model]) -> Iterator[str]:
    """A sentence for each difference between a resource and its table."""
    columns, optional = columns_of(model), _optional_fields(message)
    for field in fields_of(message):
        if (column := columns.get(field.name)) is None:
            yield f"{field.full_name}: table {model.__tablename__} has no column of that name"
            continue
        problems = list(_type_problems(field, column))
        if not problems and (field.name in optional) != column.nullable:
            problems.append("an optional field needs a column that can be NULL, and only an optional one")
        yield from (f"{_names(field, model)}: {problem}" for problem in problems)


def request_drift(method: Method, resources: Mapping[type[Message], type[Model]]) -> Iterator[str]:
    """A sentence for each field of a Create or Update request that its column cannot hold. The column is the one called the
    same in the table of the resource that the method returns."""
    if not method.name.startswith(("Create", "Update")):
        return
    tables = {message.DESCRIPTOR.full_name: model for message, model in resources.items()}
    returned = [field.message_type for field in method.response.DESCRIPTOR.fields if field.message_type]
    for model in {tables[message.full_name] for message in returned if message.full_name in tables}:
        columns = columns_of(model)
        for field in fields_of(method.request):
            if (column := columns.get(field.name)) is not None:
                problems = _type_problems(field, column, bounded=True)
                yield from (f"{_names(field, model)}: {problem}" for problem in problems)


def _names(field: FieldDescriptor, model: type[Model]) -> str:
    return f"{field.full_name} and {model.__tablename__}.{field.name}"


def _type_problems(field: FieldDescriptor, column: Column, *, bounded: bool = False) -> Iterator[str]:
    """`bounded`: the column may hold more than the field, as it may in a request."""
    if not is_mappable(field):
        yield "no column can hold a field of this type: mark it `computed`, and let the handler set it"
        return
    if field.is_repeated:
        if column.item is None:
            yield f"a repeated field needs an array, which {column.kind} is not"
            return
        column = column.item
    kind = _kind(field)
    if bounded and (kind, column.kind) == (ColumnKind.CHOICE, ColumnKind.TEXT):
        return  # text holds the names of any enum
    if kind != column.kind:
        yield f"the field needs a column that is {kind}, which is {column.kind}"
    elif kind is ColumnKind.TEXT and not _fits(_max_len(field), column.length, bounded):
        yield f"max_len is {_max_len(field)}, the column's length {column.length}"
    elif kind is ColumnKind.CHOICE and frozenset(choices(field)) != column.choices:
        yield f"the enum has {sorted(choices(field))}, the column allows {sorted(column.choices)}"


def _fits(max_len: int | None, length: int | None, bounded: bool) -> bool:
    if bounded:
        return length is None or (max_len is not None and max_len <= length)
    return max_len == length


def _kind(field: FieldDescriptor) -> ColumnKind | None:
    if is_timestamp(field):
        return ColumnKind.TIME
    if is_json(field):
        return ColumnKind.JSON
    if is_uuid(field):
        return ColumnKind.UUID
    return _KINDS.get(field.type)


def _max_len(field: FieldDescriptor) -> int | None:
    """The exact length (`len`) counts as a maximum too."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    text = rules.repeated.items.string if field.is_repeated else rules.string
    if text.HasField("len"):
        return text.len
    return text.max_len if text.HasField("max_len") else None


def _optional_fields(message: type[Message]) -> frozenset[str]:
    """The fields declared with the keyword `optional`. Message-typed fields may have it too; only the declaration shows it."""
    declared = DescriptorProto()
    message.DESCRIPTOR.CopyToProto(declared)
    return frozenset(field.name for field in declared.field if field.proto3_optional)
