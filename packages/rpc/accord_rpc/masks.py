"""Field masks: which fields of a resource an update changes."""

from collections.abc import Iterable, Sequence
from typing import cast

from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from accord_rpc.errors import FieldViolation, invalid

# Both name the resource or its state; they are read by the handler, and never changed by a mask.
_NAMING = frozenset({"id", "etag"})
_FIXED = frozenset({field_behavior_pb2.IDENTIFIER, field_behavior_pb2.OUTPUT_ONLY})


def changes(resource: Message, mask: FieldMask) -> dict[str, object]:
    """Field to new value, None where an optional field is to be cleared.

    An empty mask means the fields that are set (AIP-134). Refused: a path that is unknown, nested, output-only or the
    id; `*`, since what it would clear grows with the contract; and a change of nothing.
    """
    declared = cast(
        Sequence[FieldDescriptor], resource.DESCRIPTOR.fields
    )  # annotated as one of two classes that are one
    fields = {field.name: field for field in declared if _is_changeable(field)}
    paths = list(mask.paths) or [field.name for field, _ in resource.ListFields() if field.name in fields]
    wrong = [
        FieldViolation("update_mask", f"{path[:64]!r} is not a field that can be changed")
        for path in paths
        if path not in fields
    ]
    if wrong or not paths:
        raise invalid(*wrong or [FieldViolation("update_mask", "names no field to change: " + ", ".join(fields))])
    return {path: _value(resource, fields[path]) for path in paths}


def _is_changeable(field: FieldDescriptor) -> bool:
    behavior = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field.name not in _NAMING and _FIXED.isdisjoint(behavior)


def _value(resource: Message, field: FieldDescriptor) -> object:
    if field.has_presence and not resource.HasField(field.name):
        return None
    value: object = getattr(resource, field.name)
    return list(cast(Iterable[object], value)) if field.is_repeated else value
