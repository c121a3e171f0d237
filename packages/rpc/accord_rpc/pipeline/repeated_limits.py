"""Limits the elements of repeated fields, before the validator reads each of them.

The validator reports every element of a list that is too long: two million empty strings, which fit into 4 MiB, block this
process for a minute.
"""

from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from accord_rpc.errors import FieldViolation
from buf.validate import validate_pb2

# For a repeated field without a rule: in a message from elsewhere, such as the paths of a FieldMask.
MOST_ITEMS: Final = 1000


class _Part(NamedTuple):
    """A field that is repeated, or has repeated fields below it."""

    name: str
    most: int | None  # None if it is singular
    leads_on: bool
    is_map: bool


def has_elements(message: type[Message]) -> bool:
    """Whether the message has repeated fields at any depth."""
    return bool(_parts(message.DESCRIPTOR))


def overfull(message: Message, above: str = "") -> Iterator[FieldViolation]:
    """A violation for each repeated field, at any depth, that has more elements than its rules allow."""
    for part in _parts(message.DESCRIPTOR):
        path, value = above + part.name, getattr(message, part.name)
        if part.most is None:
            if message.HasField(part.name):
                yield from overfull(value, f"{path}.")
        elif len(value) > part.most:
            yield FieldViolation(path, f"must contain no more than {part.most} item(s)")
        elif part.leads_on:
            for index, inner in enumerate(value.values() if part.is_map else value):
                yield from overfull(inner, f"{path}[{'key' if part.is_map else index}].")


@cache
def _parts(message: Descriptor) -> tuple[_Part, ...]:
    fields = [(field, _leads_on(field)) for field in message.fields]
    return tuple(
        _Part(field.name, max_elements(field), leads_on, _is_map(field))
        for field, leads_on in fields
        if field.is_repeated or leads_on
    )


def _leads_on(field: FieldDescriptor, seen: frozenset[str] = frozenset()) -> bool:
    """Whether the messages in this field have repeated fields, or messages with such, and so on."""
    inner = field.message_type
    if inner is not None and _is_map(field):
        inner = inner.fields_by_name["value"].message_type
    if inner is None or inner.full_name in seen:
        return False
    return any(each.is_repeated or _leads_on(each, seen | {inner.full_name}) for each in inner.fields)


def max_elements(field: FieldDescriptor) -> int | None:
    if not field.is_repeated:
        return None
    rules = field.GetOptions().Extensions[validate_pb2.field]
    return (rules.map.max_pairs if _is_map(field) else rules.repeated.max_items) or MOST_ITEMS


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
