"""Messages made of descriptors, with no more than the fields that a test is about."""

from typing import Any, Final

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from accord.policy.v1 import policy_pb2
from buf.validate import validate_pb2
from buf.validate.validate_pb2 import FieldRules

_IMPORTED: Final = (
    *(descriptor_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2, validate_pb2, policy_pb2),
)
STRUCT, LIST_VALUE, VALUE, TIMESTAMP = (
    f".google.protobuf.{name}" for name in ("Struct", "ListValue", "Value", "Timestamp")
)
STATUS: Final = ".accord.made.v1.Status"  # active or paused


def made(**messages: list[Field]) -> dict[str, type[Message]]:
    """Messages of the package accord.made.v1 with these fields, in a pool of their own. A message Made has a map
    `.accord.made.v1.Made.ValueEntry`."""
    pool = descriptor_pool.DescriptorPool()
    for module in _IMPORTED:
        _add_with_imports(pool, module.DESCRIPTOR)
    file = FileDescriptorProto(name="made.proto", package="accord.made.v1", syntax="proto3")
    file.dependency.extend(module.DESCRIPTOR.name for module in _IMPORTED)
    status = file.enum_type.add(name="Status")
    for number, name in enumerate(("STATUS_UNSPECIFIED", "STATUS_ACTIVE", "STATUS_PAUSED")):
        status.value.add(name=name, number=number)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        message.field.extend(_numbered(fields))
        for each in message.field:
            if each.proto3_optional:
                each.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{each.name}")
            elif each.HasField("oneof_index"):
                message.oneof_decl.add(name="choice")
    entry = next((each for each in file.message_type if each.name == "Made"), file.message_type[0]).nested_type.add()
    entry.name, entry.options.map_entry = "ValueEntry", True
    entry.field.extend(_numbered([field(Field.TYPE_STRING, name="key"), field(Field.TYPE_STRING)]))
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"accord.made.v1.{name}")) for name in messages}


def message_with(*fields: Field) -> type[Message]:
    return made(Made=list(fields))["Made"]


def field(
    kind: Field.Type.ValueType,
    type_name: str = "",
    *,
    name: str = "value",
    repeated: bool = False,
    optional: bool = False,
    rules: FieldRules | None = None,
) -> Field:
    label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    declared = Field(name=name, type=kind, label=label, type_name=type_name or None, proto3_optional=optional)
    if rules:
        declared.options.Extensions[validate_pb2.field].CopyFrom(rules)
    return declared


def message_field(type_name: str, **options: Any) -> Field:
    return field(Field.TYPE_MESSAGE, type_name, **options)


def text(max_len: int | None = None, **options: Any) -> Field:
    rules = FieldRules()
    if max_len is not None:
        (rules.repeated.items if options.get("repeated") else rules).string.max_len = max_len
    return field(Field.TYPE_STRING, rules=rules, **options)


def uuid(**options: Any) -> Field:
    rules = FieldRules()
    (rules.repeated.items if options.get("repeated") else rules).string.uuid = True
    return field(Field.TYPE_STRING, rules=rules, **options)


def _numbered(fields: list[Field]) -> list[Field]:
    for number, each in enumerate(fields, 1):
        each.number = number
    return fields


def _add_with_imports(pool: descriptor_pool.DescriptorPool, file: Any) -> None:
    for imported in file.dependencies:
        _add_with_imports(pool, imported)
    declared = FileDescriptorProto()
    file.CopyToProto(declared)
    pool.Add(declared)


UNMAPPABLE: Final[list[tuple[Field, str]]] = [
    (field(Field.TYPE_FLOAT), "float"),
    (field(Field.TYPE_UINT32), "uint32"),
    (field(Field.TYPE_UINT64), "uint64"),
    (field(Field.TYPE_FIXED32), "fixed32"),
    (field(Field.TYPE_FIXED64, repeated=True), "fixed64"),
    (message_field(".accord.made.v1.Made.ValueEntry", repeated=True), "map"),
    (message_field(".google.protobuf.Duration"), "google.protobuf.Duration"),
    (message_field(".google.protobuf.StringValue"), "google.protobuf.StringValue"),
    (message_field(".google.protobuf.Empty"), "google.protobuf.Empty"),
    (message_field(".accord.made.v1.Made"), "accord.made.v1.Made"),
    (message_field(".accord.made.v1.Made", repeated=True), "repeated accord.made.v1.Made"),
    (message_field(STRUCT, repeated=True), "repeated google.protobuf.Struct"),
    (message_field(TIMESTAMP, repeated=True), "repeated google.protobuf.Timestamp"),
]
"""A field of each kind that no column can hold, and the kind's name in messages."""


def computed(declared: Field) -> Field:
    declared.options.Extensions[policy_pb2.computed] = True
    return declared
