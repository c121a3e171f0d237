"""The values of single fields: numbers, texts, bytes, enums."""

import re
import struct
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from math import isfinite, isinf
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

Convert: TypeAlias = Callable[[Any], Any]

_BOUNDS: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_SIXTY_FOUR_BITS: Final = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
_FLOATS: Final = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,19})")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LARGEST_EXACT: Final = 2**53
_NOT_FINITE: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_NULL: Final = "google.protobuf.NullValue"


def is_null_value(field: FieldDescriptor) -> bool:
    """Whether it is of the enum whose only value is JSON null."""
    return field.enum_type is not None and field.enum_type.full_name == _NULL


def scalar_reader(field: FieldDescriptor) -> Convert:
    """A function from a JSON value to the field's, or to an element of it. Raises ValueError, which says what the value must
    be."""
    if field.enum_type is not None:
        return _enum_reader(field.enum_type)
    if field.cpp_type in _BOUNDS:
        return _integer_reader(*_BOUNDS[field.cpp_type])
    if field.cpp_type in _FLOATS:
        return _read_float if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else _read_double
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _read_bytes
    return _read_text if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else _read_bool


def scalar_writer(field: FieldDescriptor) -> Convert | None:
    """A function from the field's value, or from an element of it, to a value that orjson writes. None: the value itself."""
    if field.enum_type is not None:
        return _enum_writer(field.enum_type)
    if field.cpp_type in _SIXTY_FOUR_BITS:
        return str
    if field.cpp_type in _FLOATS:
        return _write_float if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else _write_double
    return _write_bytes if field.type == FieldDescriptor.TYPE_BYTES else None


def key_reader(field: FieldDescriptor) -> Convert:
    """For the keys of a map, which are texts in JSON."""
    return _read_bool_key if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else scalar_reader(field)


def write_key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _read_text(value: object) -> str:
    if type(value) is str:
        return value
    raise ValueError("must be text")


def _read_bool(value: object) -> bool:
    if value is True or value is False:
        return value
    raise ValueError("must be true or false")


def _read_bool_key(value: object) -> bool:
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("must be true or false")


def _read_bytes(value: object) -> bytes:
    if type(value) is str:
        text = value.replace("-", "+").replace("_", "/").rstrip("=")
        try:
            return b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (Base64Error, ValueError):  # ValueError for text outside of ASCII
            pass
    raise ValueError("must be base64")


def _integer_reader(low: int, high: int) -> Convert:
    must = f"must be an integer from {low} to {high}"

    def read(value: object) -> int:
        number = value if type(value) is int else _integer(value)
        if number is not None and low <= number <= high:
            return number
        raise ValueError(must)

    return read


def _integer(value: object) -> int | None:
    if type(value) is str:
        return int(value) if _INTEGER.fullmatch(value) else None
    # orjson makes a float of an integer beyond 64 bits.
    if type(value) is float and value.is_integer() and abs(value) <= _LARGEST_EXACT:
        return int(value)
    return None


def _read_double(value: object) -> float:
    if type(value) is float or type(value) is int:
        return value
    if type(value) is str:
        if value in _NOT_FINITE:
            return _NOT_FINITE[value]
        if _NUMBER.fullmatch(value) and isfinite(number := float(value)):
            return number
    raise ValueError("must be a number")


def _read_float(value: object) -> float:
    number = _read_double(value)
    if isfinite(number) and isinf(_as_float(number)):
        raise ValueError("must be a number of at most 3.4028235e+38")
    return number


def _enum_reader(enum: EnumDescriptor) -> Convert:
    names = {value.name: value.number for value in enum.values}

    def read(value: object) -> int:
        if type(value) is str and value in names:
            return names[value]
        if type(value) is int and -(2**31) <= value < 2**31:  # a number that a newer contract may define
            return value
        raise ValueError("must be one of the defined values")

    return read


def _enum_writer(enum: EnumDescriptor) -> Convert:
    if enum.full_name == _NULL:
        return lambda number: None
    names: dict[int, str] = {}
    for value in enum.values:
        names.setdefault(value.number, value.name)  # the first of several names
    return lambda number: names.get(number, number)


def _write_bytes(value: bytes) -> str:
    return b64encode(value).decode()


def _write_double(value: float) -> float | str:
    return value if isfinite(value) else _not_finite(value)


def _write_float(value: float) -> float | str:
    """With the fewest digits that distinguish it from other floats."""
    if not isfinite(value):
        return _not_finite(value)
    return next(short for digits in (6, 7, 8, 9) if _as_float(short := float(f"{value:.{digits}g}")) == value)


def _as_float(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:  # beyond the largest
        return float("inf")


def _not_finite(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
