"""Field masks: which fields of a resource an update changes."""

from typing import Any, Generic, TypeVar, cast

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from accord_rpc.errors import FieldViolation, invalid
from accord_rpc.messages import FieldReader, nullable_keys

# A TypedDict whose keys are names of fields.
S = TypeVar("S")

MASK = "update_mask"
# They identify the resource and its version. The handler reads them; a mask never changes them.
_IDENTIFYING = frozenset({"id", "etag"})
_FIXED = frozenset({field_behavior_pb2.IDENTIFIER, field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IMMUTABLE})


class MaskedChanges(Generic[S]):
    """Reads the changes of an Update request, which has a resource and an `update_mask`: column to new value, None where a
    field is cleared whose type in `shape` admits it.

    `shape` is a TypedDict, not total, of exactly the fields that callers can change. Raises TypeError if it is not."""

    def __init__(self, request: type[Message], shape: type[S]) -> None:
        self._resource = updated_resource(
            cast(Descriptor, request.DESCRIPTOR)
        )  # annotated as a union of two equal classes
        resource = cast(Descriptor, self._resource.message_type)
        fields, nullable = [field for field in resource.fields if is_changeable(field)], nullable_keys(shape)
        if nullable.keys() != {field.name for field in fields}:
            expected = ", ".join(sorted(field.name for field in fields))
            raise TypeError(f"{shape.__name__} must have the changeable fields of {resource.full_name}: {expected}")
        self._readers = {field.name: FieldReader(field, nullable=nullable[field.name]) for field in fields}

    def __call__(self, request: Any) -> S:
        """An empty mask means the fields that are set (AIP-134). Raises INVALID_MESSAGE for a path that is unknown, nested,
        output-only or the id, for `*` (what it would clear grows with the contract), for a change of nothing, and for a value
        that the column cannot hold."""
        resource: Message = getattr(request, self._resource.name)
        paths = list(request.update_mask.paths) or [
            field.name for field, _ in resource.ListFields() if field.name in self._readers
        ]
        wrong = [
            FieldViolation(MASK, f"{path[:64]!r} is not a field that can be changed")
            for path in paths
            if path not in self._readers
        ]
        if wrong or not paths:
            fields = ", ".join(self._readers)
            raise invalid(*wrong or [FieldViolation(MASK, f"names no field to change: {fields}")])
        return cast(S, {path: self._readers[path].read(resource, f"{self._resource.name}.") for path in paths})


def updated_resource(request: Descriptor) -> FieldDescriptor:
    """The field of an Update request that holds the resource: its only message besides the mask."""
    messages = [field for field in request.fields if field.message_type is not None and not field.is_repeated]
    masks = [field.name for field in messages if _is_mask(field)]
    if masks != [MASK] or len(messages) != 2:
        raise TypeError(f"{request.full_name} must have a FieldMask {MASK} and one other message, the resource")
    return next(field for field in messages if field.name != MASK)


def _is_mask(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == FieldMask.DESCRIPTOR.full_name


def is_changeable(field: FieldDescriptor) -> bool:
    """Whether callers can change it. They may send other fields, which are ignored (AIP-203)."""
    behavior = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field.name not in _IDENTIFYING and _FIXED.isdisjoint(behavior)
