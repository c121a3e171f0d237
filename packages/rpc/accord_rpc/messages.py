"""Messages and rows, mapped by name in both directions: a field holds the value of the column that is called the same.

| field                              | column             | Python                         |
|------------------------------------|--------------------|--------------------------------|
| scalar                             | its counterpart    | the same value                 |
| string with the rule `uuid`        | uuid               | UUID; None if empty            |
| enum                               | text with a CHECK  | `active` for `STATUS_ACTIVE`   |
| google.protobuf.Timestamp          | timestamptz        | datetime, to the microsecond   |
| Struct, Value, ListValue           | jsonb              | dict, list, str, float, …      |
| repeated scalar, string or enum    | array              | list                           |
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar, cast
from uuid import UUID

import uuid_utils
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from accord.policy.v1 import policy_pb2
from accord_rpc.errors import FieldViolation, invalid
from buf.validate import validate_pb2

M = TypeVar("M", bound=Message)
# A TypedDict whose keys are names of fields.
S = TypeVar("S")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_EXACT: Final = 2**53  # of the integers a double holds exactly
_JSON_MESSAGES: Final = frozenset(each.DESCRIPTOR.full_name for each in (Struct, Value, ListValue))


def to_timestamp(time: datetime) -> Timestamp:
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def to_datetime(timestamp: Timestamp) -> datetime:
    """Rounded down to the microsecond, PostgreSQL's resolution."""
    return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1_000)


class MessageMapper(Generic[M]):
    """Makes messages of one type from rows that have a column for every field. NULL leaves a field unset."""

    def __init__(self, message: type[M]) -> None:
        self._message = message
        fields = fields_of(message)
        singular = [field for field in fields if not field.is_repeated]
        self._times = [field.name for field in singular if is_timestamp(field)]
        self._texts = [field.name for field in singular if field.type == FieldDescriptor.TYPE_STRING]
        self._choices = [(field.name, choices(field)) for field in singular if field.enum_type is not None]
        self._jsons = [(field.name, _json_writer(field)) for field in singular if is_json(field)]
        self._lists = [(field.name, _element_writer(field)) for field in fields if field.is_repeated]
        known = {*self._times, *self._texts, *(name for name, _ in (*self._choices, *self._jsons, *self._lists))}
        self._plain = [field.name for field in fields if field.name not in known]

    def __call__(self, row: object) -> M:
        message = self._message()
        self.fill(message, row)
        return message

    def fill(self, message: M, row: object) -> None:
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
                setattr(message, name, numbers[value])
        for name in self._times:
            if (value := getattr(row, name)) is not None:
                since, timestamp = value - _EPOCH, getattr(message, name)
                timestamp.seconds = since.days * 86_400 + since.seconds
                timestamp.nanos = since.microseconds * 1_000
        for name, write in self._jsons:
            if (value := getattr(row, name)) is not None:
                write(getattr(message, name), value)
        for name, convert in self._lists:
            if value := getattr(row, name):
                getattr(message, name).extend(map(convert, value))


class ColumnMapper(Generic[S]):
    """Reads fields of a message as the values of the columns that they fill.

    `shape` is a TypedDict of the fields to read. Every key is present, None for an optional field that is unset; with
    `only_set` the keys of set fields alone (a field without presence is set if it is not empty or zero), as filters need
    them. Raises TypeError if the message has no such field or no column can hold it."""

    def __init__(self, message: type[Message], shape: type[S], *, only_set: bool = False) -> None:
        fields = cast(Mapping[str, FieldDescriptor], message.DESCRIPTOR.fields_by_name)  # a union of two equal classes
        if unknown := shape.__annotations__.keys() - fields.keys():
            raise TypeError(f"{message.DESCRIPTOR.full_name} has no field {', '.join(sorted(unknown))}")
        self._only_set = only_set
        self._readers = [(name, reader_of(fields[name]), _is_set(fields[name])) for name in shape.__annotations__]

    def __call__(self, message: Message) -> S:
        values = {name: read(message) for name, read, is_set in self._readers if not self._only_set or is_set(message)}
        return cast(S, values)


def etag_of(message: Any) -> UUID | None:
    """The version that a request requires; None if any will do."""
    return UUID(message.etag) if message.etag else None


def fields_of(message: type[Message]) -> Sequence[FieldDescriptor]:
    """The fields that columns hold. The handler sets `computed` fields."""
    fields = cast(Sequence[FieldDescriptor], message.DESCRIPTOR.fields)  # annotated as a union of two equal classes
    return [field for field in fields if not field.GetOptions().Extensions[policy_pb2.computed]]


def choices(field: FieldDescriptor) -> dict[str, int]:
    """The values that the column of an enum field may hold, with their numbers: `active` for `STATUS_ACTIVE` of Status, and
    the name of a permission."""
    values = field.enum_type.values if field.enum_type else []
    prefix = next(
        (value.name.removesuffix("UNSPECIFIED") for value in values if value.number == 0),
        "",
    )
    names = {value.number: value.name.removeprefix(prefix).lower() for value in values if value.number}
    for value in values:
        if permission := value.GetOptions().Extensions[policy_pb2.permission_name]:
            names[value.number] = permission
    return {name: number for number, name in names.items()}


def is_timestamp(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == Timestamp.DESCRIPTOR.full_name


def is_json(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name in _JSON_MESSAGES


def is_uuid(field: FieldDescriptor) -> bool:
    rules = field.GetOptions().Extensions[validate_pb2.field]
    return bool(rules.repeated.items.string.uuid if field.is_repeated else rules.string.uuid)


def is_mappable(field: FieldDescriptor) -> bool:
    """Whether a column can hold the field."""
    if field.message_type is None:
        return field.type != FieldDescriptor.TYPE_GROUP
    return not field.is_repeated and (is_timestamp(field) or is_json(field))


def reader_of(field: FieldDescriptor) -> Callable[[Message], object]:
    """A function from the message to the value of the field's column; None for an optional field that is unset."""
    if not is_mappable(field):
        raise TypeError(f"{field.full_name}: no column can hold a field of this type")
    name, convert = field.name, _converter(field)
    if field.is_repeated:
        return lambda message: [convert(value) for value in getattr(message, name)]
    if field.has_presence:
        return lambda message: convert(getattr(message, name)) if message.HasField(name) else None
    return lambda message: convert(getattr(message, name))


def _is_set(field: FieldDescriptor) -> Callable[[Message], bool]:
    name = field.name
    if field.has_presence:
        return lambda message: message.HasField(name)
    return lambda message: bool(getattr(message, name))


def _converter(field: FieldDescriptor) -> Callable[[Any], object]:
    if field.enum_type is not None:
        return {number: name for name, number in choices(field).items()}.get
    if is_timestamp(field):
        return to_datetime
    if is_json(field):
        return _json_reader(field)
    if is_uuid(field):
        return lambda text: UUID(text) if text else None
    return _unchanged


def _unchanged(value: object) -> object:
    return value


def _uuid_text(value: Any) -> str:
    return str(uuid_utils.UUID(int=value.int))


def _element_writer(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        return choices(field).__getitem__
    return _uuid_text if is_uuid(field) else _unchanged


# --- JSON ---------------------------------------------------------------------------------------------------------------


def _json_writer(field: FieldDescriptor) -> Callable[[Any, Any], None]:
    if field.message_type is not None and field.message_type.full_name == Value.DESCRIPTOR.full_name:
        return _write_value
    return lambda message, value: message.update(value) if isinstance(value, Mapping) else message.extend(value)


def _write_value(message: Value, value: Any) -> None:
    holder = ListValue()
    holder.append(value)
    message.CopyFrom(holder.values[0])


def _json_reader(field: FieldDescriptor) -> Callable[[Any], object]:
    readers: dict[str, Callable[[Any, str], object]] = {
        Struct.DESCRIPTOR.full_name: _read_struct,
        ListValue.DESCRIPTOR.full_name: lambda value, path: _read_list(value.values, path),
        Value.DESCRIPTOR.full_name: _read_value,
    }
    read = readers[field.message_type.full_name] if field.message_type else _read_value
    return lambda value: read(value, field.name)


def _read_struct(struct: Struct, path: str) -> dict[str, object]:
    """Raises INVALID_MESSAGE for what jsonb cannot hold: NaN, infinities, NUL in text."""
    for key in struct.fields:
        _require_no_nul(key, path)
    return {key: _read_value(value, path) for key, value in struct.fields.items()}


def _read_list(values: Iterable[Value], path: str) -> list[object]:
    return [_read_value(value, path) for value in values]


def _read_value(value: Value, path: str) -> object:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _read_struct(value.struct_value, path)
        case "list_value":
            return _read_list(value.list_value.values, path)
        case "string_value":
            return _require_no_nul(value.string_value, path)
        case "number_value":
            return _read_number(value.number_value, path)
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _read_number(number: float, path: str) -> float:
    if not math.isfinite(number):
        raise invalid(FieldViolation(path, "must hold finite numbers"))
    return int(number) if number.is_integer() and abs(number) <= _LARGEST_EXACT else number


def _require_no_nul(text: str, path: str) -> str:
    if "\0" in text:
        raise invalid(FieldViolation(path, "must hold no NUL character"))
    return text
