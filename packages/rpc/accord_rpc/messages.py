"""Messages and rows, mapped by name in both directions: a field holds the value of the column with the same name.

| field                               | column                       | Python                                                      |
|-------------------------------------|------------------------------|-------------------------------------------------------------|
| bool, int32, int64, double          | boolean, integer, bigint, double precision | the same value                                |
| string, bytes                       | text, bytea                  | the same value; text without NUL                            |
| string with the rule `uuid`         | uuid                         | UUID; unset if empty                                        |
| string with the option `date`       | date                         | date; unset if empty                                        |
| enum                                | text with a CHECK            | `active` for `STATUS_ACTIVE`; unset for `STATUS_UNSPECIFIED` |
| google.protobuf.Timestamp           | timestamptz                  | datetime, to the microsecond                                |
| google.protobuf.Struct, ListValue, Value | jsonb                   | dict, list, any of them; see json_values.py                 |
| repeated scalar, string or enum     | an array of that column      | list                                                        |

NULL is an unset field, which is declared `optional` or in a `oneof`. Without it, an unset Struct is `{}`, a ListValue `[]`. A row whose choice this release does not know, because a newer one wrote it, gives the enum's UNSPECIFIED.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, Final, Generic, NoReturn, TypeVar, cast, get_args, get_type_hints
from uuid import UUID

import uuid_utils
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from accord_rpc.errors import FieldViolation, invalid
from accord_rpc.fields import (
    choices,
    column_kind,
    field_named,
    fields_of,
    is_date,
    is_optional,
    is_timestamp,
    is_uuid,
    must_not_be_empty,
    only_in_full_view,
    unmappable,
)
from accord_rpc.json_values import is_json, json_reader, json_writer, without_nul

M = TypeVar("M", bound=Message)
# A TypedDict whose keys are names of fields.
S = TypeVar("S")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_timestamp(time: datetime) -> Timestamp:
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def to_datetime(timestamp: Timestamp) -> datetime:
    """Rounded down to the microsecond, PostgreSQL's resolution. Raises OverflowError outside the years 1 to 9999."""
    return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1_000)


class MessageMapper(Generic[M]):
    """Makes messages of one type from rows that have a column for every field, or all but those of the view FULL. Raises TypeError,
    when it is made, for a field that no column can hold."""

    def __init__(self, message: type[M], *, without: Collection[str] = ()) -> None:
        self._message = message
        self._only_full = [] if without else only_in_full_view(cast(Descriptor, message.DESCRIPTOR))
        self._basic = MessageMapper(message, without=self._only_full) if self._only_full else None
        fields = [field for field in fields_of(message) if field.name not in without]
        for field in fields:
            _require_mappable(field)
        singular = [field for field in fields if not field.is_repeated]
        self._times = [field.name for field in singular if is_timestamp(field)]
        self._dates = [field.name for field in singular if is_date(field)]
        self._texts = [
            field.name for field in singular if field.type == FieldDescriptor.TYPE_STRING and not is_date(field)
        ]
        self._choices = [(field.name, choices(field)) for field in singular if field.enum_type is not None]
        self._jsons = [(field.name, json_writer(field)) for field in singular if is_json(field)]
        self._lists = [(field.name, _element_writer(field)) for field in fields if field.is_repeated]
        known = {
            *self._times,
            *self._dates,
            *self._texts,
            *(name for name, _ in (*self._choices, *self._jsons, *self._lists)),
        }
        self._plain = [field.name for field in fields if field.name not in known]

    def __call__(self, row: object) -> M:
        message = self._message()
        self.fill(message, row)
        return message

    def fill(self, message: M, row: object) -> None:
        if self._basic is not None and not hasattr(row, self._only_full[0]):
            self._basic.fill(message, row)
            return
        # Written for speed: assigning a datetime, building a Timestamp, or formatting a UUID in Python costs three times as
        # much.
        for name in self._plain:
            if (value := getattr(row, name)) is not None:
                setattr(message, name, value)
        for name in self._texts:
            if (value := getattr(row, name)) is not None:
                setattr(message, name, value if type(value) is str else _uuid_text(value))
        for name, numbers in self._choices:
            if (value := getattr(row, name)) is not None:
                setattr(message, name, numbers.get(value, 0))
        for name in self._times:
            if (value := getattr(row, name)) is not None:
                since, timestamp = value - _EPOCH, getattr(message, name)
                timestamp.seconds = since.days * 86_400 + since.seconds
                timestamp.nanos = since.microseconds * 1_000
        for name in self._dates:
            if (value := getattr(row, name)) is not None:
                setattr(message, name, value.isoformat())
        for name, write in self._jsons:
            if (value := getattr(row, name)) is not None:
                write(getattr(message, name), value)
        for name, convert in self._lists:
            if value := getattr(row, name):
                getattr(message, name).extend(map(convert, value))


class ColumnMapper(Generic[S]):
    """Reads fields of a message as the values of their columns.

    `shape` is a TypedDict of the fields to read. A key that is NotRequired is left out if its field is unset (a field without
    presence: empty or zero): the column keeps its default, a filter does not apply. A key whose type admits None is None for
    an unset field; for any other key the field must be set. Raises TypeError, when it is made, if the message has no such
    field or no column can hold it."""

    def __init__(self, message: type[Message], shape: type[S]) -> None:
        descriptor = cast(Descriptor, message.DESCRIPTOR)  # annotated as a union of two equal classes
        required = cast(Any, shape).__required_keys__
        self._fields = [
            (name, FieldReader(field_named(descriptor, name), nullable=nullable), name in required)
            for name, nullable in nullable_keys(shape).items()
        ]

    def __call__(self, message: Message, *, path: str = "") -> S:
        """`path` leads to the message and ends with a dot: `requests[1].`. Raises INVALID_MESSAGE, with the field's path, for a
        value that the column cannot hold."""
        fields = self._fields
        return cast(
            S,
            {name: field.read(message, path) for name, field, required in fields if required or field.is_set(message)},
        )


class FieldReader:
    """Reads one field of a message as the value of its column."""

    def __init__(self, field: FieldDescriptor, *, nullable: bool) -> None:
        _require_mappable(field)
        self._name = field.name
        self._convert = _converter(field)
        self._nullable = nullable
        self._is_repeated = field.is_repeated
        self._has_presence = field.has_presence
        # An unset Struct without `optional` is empty. An unset time is not the epoch.
        self._is_null_if_unset = is_optional(field) or is_timestamp(field)
        self._needs_content = must_not_be_empty(field)

    def is_set(self, message: Message) -> bool:
        return message.HasField(self._name) if self._has_presence else bool(getattr(message, self._name))

    def read(self, message: Message, path: str = "") -> object:
        """None for a nullable field that is unset. `path` leads to the message and ends with a dot. Raises INVALID_MESSAGE for
        a value that the column cannot hold, and for an unset field that is not nullable."""
        path += self._name
        value = self._value(message, path)
        if value is None or (self._needs_content and not value):
            return None if self._nullable else _must_be_set(path)
        return value

    def _value(self, message: Message, path: str) -> object:
        if self._is_null_if_unset and not message.HasField(self._name):
            return None
        value = getattr(message, self._name)
        return self._elements(value, path) if self._is_repeated else self._convert(value, path)

    def _elements(self, values: Iterable[object], path: str) -> list[object]:
        paths = (f"{path}[{index}]" for index in count())
        converted = ((self._convert(value, place), place) for value, place in zip(values, paths, strict=False))
        return [_must_be_set(place) if value is None else value for value, place in converted]


def nullable_keys(shape: type[Any]) -> dict[str, bool]:
    """The keys of a TypedDict, and whether None is among the values of each."""
    return {name: type(None) in get_args(hint) for name, hint in get_type_hints(shape).items()}


def etag_of(message: Any) -> UUID | None:
    """The version that a request requires; None if any will do."""
    return UUID(message.etag) if message.etag else None


def _require_mappable(field: FieldDescriptor) -> None:
    if column_kind(field) is None:
        raise TypeError(f"{field.full_name}: {unmappable(field)}")


def _must_be_set(path: str) -> NoReturn:
    raise invalid(FieldViolation(path, "must be set"))


def _converter(field: FieldDescriptor) -> Callable[[Any, str], object]:
    """A function from a value of the field and its path to the column's value; None if it is unset."""
    if field.enum_type is not None:
        return partial(_choice, {number: name for name, number in choices(field).items()})
    if is_timestamp(field):
        return _time
    if is_json(field):
        return json_reader(field)
    if is_date(field):
        return _date
    if is_uuid(field):
        return _uuid
    return without_nul if field.type == FieldDescriptor.TYPE_STRING else _unchanged


def _choice(names: Mapping[int, str], number: int, path: str) -> str | None:
    if number and number not in names:
        raise invalid(FieldViolation(path, "must be one of the defined values"))
    return names.get(number)


def _time(timestamp: Timestamp, path: str) -> datetime:
    try:
        return to_datetime(timestamp)
    except OverflowError:
        raise invalid(FieldViolation(path, "must be in the years 1 to 9999")) from None


# date.fromisoformat also reads 20261130 and 2026-W49-1.
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _date(text: str, path: str) -> date | None:
    if not text:
        return None
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise invalid(FieldViolation(path, "must be a date, such as 2026-11-30"))


def _uuid(text: str, path: str) -> UUID | None:
    return UUID(text) if text else None


def _unchanged(value: object, path: str) -> object:
    return value


def _uuid_text(value: Any) -> str:
    return str(uuid_utils.UUID(int=value.int))


def _element_writer(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        numbers = choices(field)
        return lambda value: numbers.get(value, 0)
    if is_date(field):
        return date.isoformat
    return _uuid_text if is_uuid(field) else _same


def _same(value: object) -> object:
    return value
