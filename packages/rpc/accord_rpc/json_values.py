"""JSON in messages, to and from the values that a jsonb column holds.

A whole number that a double holds exactly is an int, every other number a float. JSON null is None. At the top of a Value it
is SQL NULL, so that a column has one null and not two.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from accord_rpc.errors import FieldViolation, invalid

_LARGEST_EXACT: Final = 2**53
_Text: TypeAlias = Callable[[str, str], str]
"""Checks a text, and returns it."""


def is_json(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name in _READERS


def json_reader(field: FieldDescriptor) -> Callable[[Any, str], object]:
    """A function from the field's message and path to its value. Raises INVALID_MESSAGE for what jsonb cannot hold: NaN,
    infinities, and NUL in text."""
    return _READERS[_type_name(field)]


def json_writer(field: FieldDescriptor) -> Callable[[Any, Any], None]:
    """A function that sets the field's message to a value."""
    return _WRITERS[_type_name(field)]


def fill_json(message: Any, value: object) -> None:
    """Sets a Struct, ListValue or Value to a JSON value."""
    _WRITERS[message.DESCRIPTOR.full_name](message, value)


def plain_json(message: Any) -> object:
    """The value of a Struct, ListValue or Value, for anything but PostgreSQL: with NUL in text. Raises INVALID_MESSAGE for
    numbers that are not finite, which JSON does not have."""
    return _PLAIN[message.DESCRIPTOR.full_name](message)


def _type_name(field: FieldDescriptor) -> str:
    assert field.message_type is not None
    return field.message_type.full_name


def _read_struct(struct: Struct, path: str, text: _Text) -> dict[str, object]:
    return {text(key, path): _read_value(value, path, text) for key, value in struct.fields.items()}


def _read_list(values: Iterable[Value], path: str, text: _Text) -> list[object]:
    return [_read_value(value, path, text) for value in values]


def _read_value(value: Value, path: str, text: _Text) -> object:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _read_struct(value.struct_value, path, text)
        case "list_value":
            return _read_list(value.list_value.values, path, text)
        case "string_value":
            return text(value.string_value, path)
        case "number_value":
            return _read_number(value.number_value, path)
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _read_number(number: float, path: str) -> float:
    if not math.isfinite(number):
        raise invalid(FieldViolation(path, "must contain only finite numbers"))
    return int(number) if number.is_integer() and abs(number) <= _LARGEST_EXACT else number


def without_nul(text: str, path: str) -> str:
    """PostgreSQL stores no NUL in text."""
    if "\0" in text:
        raise invalid(FieldViolation(path, "must not contain the NUL character"))
    return text


def _with_nul(text: str, path: str) -> str:
    return text


_READERS: Final[Mapping[str, Callable[[Any, str], object]]] = {
    Struct.DESCRIPTOR.full_name: lambda value, path: _read_struct(value, path, without_nul),
    ListValue.DESCRIPTOR.full_name: lambda value, path: _read_list(value.values, path, without_nul),
    Value.DESCRIPTOR.full_name: lambda value, path: _read_value(value, path, without_nul),
}
_PLAIN: Final[Mapping[str, Callable[[Any], object]]] = {
    Struct.DESCRIPTOR.full_name: lambda value: _read_struct(value, "", _with_nul),
    ListValue.DESCRIPTOR.full_name: lambda value: _read_list(value.values, "", _with_nul),
    Value.DESCRIPTOR.full_name: lambda value: _read_value(value, "", _with_nul),
}


def _write_struct(message: Any, value: Any) -> None:
    message.SetInParent()  # an empty object is not NULL
    message.update(value)


def _write_list(message: Any, value: Any) -> None:
    message.SetInParent()
    message.extend(value)


def _write_value(message: Any, value: Any) -> None:
    holder = ListValue()
    holder.append(value)
    message.CopyFrom(holder.values[0])


_WRITERS: Final[Mapping[str, Callable[[Any, Any], None]]] = {
    Struct.DESCRIPTOR.full_name: _write_struct,
    ListValue.DESCRIPTOR.full_name: _write_list,
    Value.DESCRIPTOR.full_name: _write_value,
}
