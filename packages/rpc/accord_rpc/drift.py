"""The drift gate: a message that is filled from a table must match it, field by field and column by column."""

from collections.abc import Iterator
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.message import Message

from accord_db.engine.columns import Column, ColumnKind, columns_of
from accord_db.engine.model import Model
from accord_rpc.messages import choices, fields_of, is_timestamp
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
    """A sentence for each way in which the message and the table disagree."""
    columns, optional = columns_of(model), _optional_fields(message)
    for field in fields_of(message):
        where = f"{field.full_name} and {model.__tablename__}.{field.name}"
        if (column := columns.get(field.name)) is None:
            yield f"{field.full_name}: table {model.__tablename__} has no column of that name"
        else:
            yield from (f"{where}: {fault}" for fault in _faults(field, column, field.name in optional))


def _faults(field: FieldDescriptor, column: Column, is_optional: bool) -> Iterator[str]:
    kind = _kind(field)
    if kind != column.kind:
        yield f"the field needs a column that is {kind}, which is {column.kind}"
        return
    if is_optional != column.nullable:
        yield "an optional field needs a column that can be NULL, and only an optional one"
    if kind is ColumnKind.TEXT and _max_len(field) != column.length:
        yield f"max_len is {_max_len(field)}, the column's length {column.length}"
    if kind is ColumnKind.CHOICE and frozenset(choices(field)) != column.choices:
        yield f"the enum has {sorted(choices(field))}, the column allows {sorted(column.choices)}"


def _kind(field: FieldDescriptor) -> ColumnKind:
    if field.is_repeated:
        return ColumnKind.OTHER
    if is_timestamp(field):
        return ColumnKind.TIME
    if _rules(field).string.uuid:
        return ColumnKind.UUID
    return _KINDS.get(field.type, ColumnKind.OTHER)


def _rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    return field.GetOptions().Extensions[validate_pb2.field]


def _max_len(field: FieldDescriptor) -> int | None:
    rules = _rules(field).string
    return rules.max_len if rules.HasField("max_len") else None


def _optional_fields(message: type[Message]) -> frozenset[str]:
    """Those with the keyword `optional`, which a message-typed field may carry too, and only its declaration tells."""
    declared = DescriptorProto()
    message.DESCRIPTOR.CopyToProto(declared)
    return frozenset(field.name for field in declared.field if field.proto3_optional)
