"""Fills messages from rows, by name: a field gets the value of the column that is called the same."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar, cast

import uuid_utils
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from accord.policy.v1 import policy_pb2

M = TypeVar("M", bound=Message)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_timestamp(time: datetime) -> Timestamp:
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def to_datetime(timestamp: Timestamp) -> datetime:
    """To the microsecond below, which is what PostgreSQL keeps."""
    return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1_000)


class MessageMapper(Generic[M]):
    """Makes messages of one kind from rows that have a column for every field; NULL leaves a field unset."""

    def __init__(self, message: type[M]) -> None:
        self._message = message
        fields = fields_of(message)
        self._times = [field.name for field in fields if is_timestamp(field)]
        self._texts = [field.name for field in fields if field.type == FieldDescriptor.TYPE_STRING]
        self._choices = [(field.name, choices(field)) for field in fields if field.enum_type is not None]
        known = {*self._times, *self._texts, *(name for name, _ in self._choices)}
        self._plain = [field.name for field in fields if field.name not in known]

    def __call__(self, row: object) -> M:
        message = self._message()
        self.fill(message, row)
        return message

    def fill(self, message: M, row: object) -> None:
        # Written for speed: to assign a datetime or build a Timestamp, and to let Python write a UUID, costs three times
        # as much.
        for name in self._plain:
            if (value := getattr(row, name)) is not None:
                setattr(message, name, value)
        for name in self._texts:
            if (value := getattr(row, name)) is not None:
                setattr(message, name, value if type(value) is str else str(uuid_utils.UUID(int=value.int)))
        for name, numbers in self._choices:
            if (value := getattr(row, name)) is not None:
                setattr(message, name, numbers[value])
        for name in self._times:
            if (value := getattr(row, name)) is not None:
                since, timestamp = value - _EPOCH, getattr(message, name)
                timestamp.seconds = since.days * 86_400 + since.seconds
                timestamp.nanos = since.microseconds * 1_000


def fields_of(message: type[Message]) -> Sequence[FieldDescriptor]:
    """Those that columns hold; `computed` ones are the handler's."""
    fields = cast(Sequence[FieldDescriptor], message.DESCRIPTOR.fields)  # annotated as one of two classes that are one
    return [field for field in fields if not field.GetOptions().Extensions[policy_pb2.computed]]


def choices(field: FieldDescriptor) -> dict[str, int]:
    """What the column of an enum field may hold, with the numbers of the values: `active` for `STATUS_ACTIVE` of Status."""
    values = field.enum_type.values if field.enum_type else []
    prefix = next(
        (value.name.removesuffix("UNSPECIFIED") for value in values if value.number == 0),
        "",
    )
    return {value.name.removeprefix(prefix).lower(): value.number for value in values if value.number}


def is_timestamp(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == Timestamp.DESCRIPTOR.full_name
