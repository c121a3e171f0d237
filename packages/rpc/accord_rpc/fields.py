"""Fields of messages, as columns see them: which column can hold a field, and what the field's rules allow."""

from collections.abc import Sequence
from typing import Final, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from accord.policy.v1 import policy_pb2
from accord_db.engine.columns import ColumnKind
from accord_rpc.json_values import is_json
from buf.validate import validate_pb2

_KINDS: Final = {
    FieldDescriptor.TYPE_STRING: ColumnKind.TEXT,
    FieldDescriptor.TYPE_ENUM: ColumnKind.CHOICE,
    FieldDescriptor.TYPE_BOOL: ColumnKind.BOOLEAN,
    FieldDescriptor.TYPE_INT32: ColumnKind.INTEGER,
    FieldDescriptor.TYPE_SINT32: ColumnKind.INTEGER,
    FieldDescriptor.TYPE_SFIXED32: ColumnKind.INTEGER,
    FieldDescriptor.TYPE_INT64: ColumnKind.BIGINT,
    FieldDescriptor.TYPE_SINT64: ColumnKind.BIGINT,
    FieldDescriptor.TYPE_SFIXED64: ColumnKind.BIGINT,
    FieldDescriptor.TYPE_DOUBLE: ColumnKind.FLOAT,
    FieldDescriptor.TYPE_BYTES: ColumnKind.BYTES,
}
# PostgreSQL has no unsigned integers, and a double does not survive a float.
_INSTEAD: Final = {
    FieldDescriptor.TYPE_FLOAT: ("float", "double"),
    FieldDescriptor.TYPE_UINT32: ("uint32", "int64"),
    FieldDescriptor.TYPE_UINT64: ("uint64", "int64"),
    FieldDescriptor.TYPE_FIXED32: ("fixed32", "int64"),
    FieldDescriptor.TYPE_FIXED64: ("fixed64", "int64"),
}


def fields_of(message: type[Message]) -> Sequence[FieldDescriptor]:
    """The fields that columns hold. The handler sets `computed` fields."""
    fields = cast(Sequence[FieldDescriptor], message.DESCRIPTOR.fields)  # annotated as a union of two equal classes
    return [field for field in fields if not field.GetOptions().Extensions[policy_pb2.computed]]


def column_kind(field: FieldDescriptor) -> ColumnKind | None:
    """The kind of column that holds the field, or each element of a repeated one. None if no column can."""
    if field.message_type is None:
        return _text_kind(field) or _KINDS.get(field.type)
    if field.is_repeated:
        return None
    if is_timestamp(field):
        return ColumnKind.TIME
    return ColumnKind.JSON if is_json(field) else None


def _text_kind(field: FieldDescriptor) -> ColumnKind | None:
    """Of a string that is stored as something else than text."""
    if is_date(field):
        return ColumnKind.DATE if field.type == FieldDescriptor.TYPE_STRING else None
    return ColumnKind.UUID if is_uuid(field) else None


def unmappable(field: FieldDescriptor) -> str:
    """A sentence about a field that no column can hold: its type, and what to use instead."""
    if field.type in _INSTEAD:
        kind, instead = _INSTEAD[field.type]
        return f"no column can hold a {kind}: use {instead}"
    if is_map(field):
        return f"no column can hold a map: use google.protobuf.Struct, {_OR_COMPUTED}"
    name = field.message_type.full_name if field.message_type else "a group"
    if field.is_repeated:
        return f"no column can hold a repeated {name}: use google.protobuf.ListValue or a child table, {_OR_COMPUTED}"
    return f"no column can hold a {name}: use google.protobuf.Struct or fields of its own, {_OR_COMPUTED}"


_OR_COMPUTED: Final = "or mark the field `computed` and set it in the handler"


def is_optional(field: FieldDescriptor) -> bool:
    """Whether NULL means that the field is unset: it is declared `optional`, or a member of a `oneof`."""
    return field.containing_oneof is not None


def is_timestamp(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == Timestamp.DESCRIPTOR.full_name


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def is_date(field: FieldDescriptor) -> bool:
    return field.GetOptions().Extensions[policy_pb2.date]


def only_in_full_view(message: Descriptor) -> list[str]:
    return [field.name for field in message.fields if field.GetOptions().Extensions[policy_pb2.full_view]]


def is_uuid(field: FieldDescriptor) -> bool:
    return rules_of(field).string.uuid


def rules_of(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The rules of the value, or of each element of a repeated field."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    return rules.repeated.items if field.is_repeated else rules


def max_len(field: FieldDescriptor) -> int | None:
    """In characters, as columns count them. The exact length (`len`) counts as a maximum too."""
    text = rules_of(field).string
    if text.HasField("len"):
        return text.len
    return text.max_len if text.HasField("max_len") else None


def must_not_be_empty(field: FieldDescriptor) -> bool:
    """Whether the rules refuse the empty text or list, at least where they are not ignored."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    return bool(rules.repeated.min_items if field.is_repeated else rules.string.min_len or rules.string.len)


def choices(field: FieldDescriptor) -> dict[str, int]:
    """The values that the column of an enum field may hold, with their numbers: `active` for `STATUS_ACTIVE` of Status, and
    the name of a permission."""
    values = field.enum_type.values if field.enum_type else []
    prefix = next((value.name.removesuffix("UNSPECIFIED") for value in values if value.number == 0), "")
    names = {value.number: value.name.removeprefix(prefix).lower() for value in values if value.number}
    for value in values:
        if permission := value.GetOptions().Extensions[policy_pb2.permission_name]:
            names[value.number] = permission
    return {name: number for number, name in names.items()}


def field_named(message: Descriptor, name: str) -> FieldDescriptor:
    """Raises TypeError if the message has no such field."""
    if name not in message.fields_by_name:
        raise TypeError(f"{message.full_name} has no field {name}")
    return message.fields_by_name[name]
