"""Field masks: which fields of a resource an update changes."""

from collections.abc import Sequence
from typing import Generic, TypeVar, cast

from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from accord_rpc.errors import FieldViolation, invalid
from accord_rpc.messages import reader_of

# A TypedDict whose keys are names of fields.
S = TypeVar("S")

# They identify the resource and its version. The handler reads them; a mask never changes them.
_IDENTIFYING = frozenset({"id", "etag"})
_FIXED = frozenset({field_behavior_pb2.IDENTIFIER, field_behavior_pb2.OUTPUT_ONLY})


class MaskedChanges(Generic[S]):
    """Reads the changes that an update requests: column to new value, None where an optional field is cleared.

    `shape` is a TypedDict, not total, of exactly the fields that callers can change. Raises TypeError if it is not."""

    def __init__(self, resource: type[Message], shape: type[S]) -> None:
        fields = cast(
            Sequence[FieldDescriptor], resource.DESCRIPTOR.fields
        )  # annotated as a union of two equal classes
        self._readers = {field.name: reader_of(field) for field in fields if _is_changeable(field)}
        if shape.__annotations__.keys() != self._readers.keys():
            expected, name = ", ".join(sorted(self._readers)), resource.DESCRIPTOR.full_name
            raise TypeError(f"{shape.__name__} must have the changeable fields of {name}: {expected}")

    def __call__(self, resource: Message, mask: FieldMask) -> S:
        """An empty mask means the fields that are set (AIP-134). Raises INVALID_MESSAGE for a path that is unknown, nested,
        output-only or the id, for `*` (what it would clear grows with the contract), and for a change of nothing."""
        paths = list(mask.paths) or [field.name for field, _ in resource.ListFields() if field.name in self._readers]
        wrong = [
            FieldViolation("update_mask", f"{path[:64]!r} is not a field that can be changed")
            for path in paths
            if path not in self._readers
        ]
        if wrong or not paths:
            fields = ", ".join(self._readers)
            raise invalid(*wrong or [FieldViolation("update_mask", f"names no field to change: {fields}")])
        return cast(S, {path: self._readers[path](resource) for path in paths})


def _is_changeable(field: FieldDescriptor) -> bool:
    behavior = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field.name not in _IDENTIFYING and _FIXED.isdisjoint(behavior)
