"""The types of google.protobuf whose JSON form is not an object of their fields. `Any` is in `anything.py`."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from accord_rpc.json_values import fill_json, plain_json
from accord_rpc.protocols.json_codec.document import Violations, repeats_keys
from accord_rpc.protocols.json_codec.scalars import scalar_reader, scalar_writer

MessageReader: TypeAlias = Callable[[object, Any, str, Violations], None]
"""Fills an empty message from a JSON value. `prefix` leads to the message's fields, and ends with a dot if it is not empty."""
MessageWriter: TypeAlias = Callable[[Any], object]
"""From a message to a value that orjson writes."""

VALUE: Final = "google.protobuf.Value"
_TIME: Final = re.compile(
    r"([0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9])(?:\.([0-9]{1,9}))?(Z|[+-][0-2][0-9]:[0-5][0-9])"
)
_MUST_BE_TIME: Final = "must be an RFC 3339 time in the years 1 to 9999, for example 2026-01-31T12:00:00Z"
_DURATION: Final = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s")
_MOST_SECONDS: Final = 315_576_000_000
_YEAR_1: Final = -62_135_596_800
_YEAR_10000: Final = 253_402_300_800
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MASK: Final = re.compile(r"[A-Za-z0-9_.,]*")
_LONGEST_MASK: Final = 64 * 1024
_UPPER: Final = re.compile(r"[A-Z]")
_LOWER: Final = re.compile(r"_([a-z])")
_WRAPPERS: Final = ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")


def well_known_reader(message: Descriptor) -> MessageReader | None:
    """None for a type that is an object of its fields."""
    if message.full_name in _WRAPPER_NAMES:
        return _wrapper_reader(message)
    return _READERS.get(message.full_name)


def well_known_writer(message: Descriptor) -> MessageWriter | None:
    if message.full_name in _WRAPPER_NAMES:
        return _wrapper_writer(message)
    return _WRITERS.get(message.full_name)


def _wrapper_reader(message: Descriptor) -> MessageReader:
    convert = scalar_reader(message.fields_by_name["value"])

    def read(value: object, message: Any, prefix: str, violations: Violations) -> None:
        try:
            message.value = convert(value)
        except ValueError as error:
            violations.add(prefix[:-1], str(error))

    return read


def _wrapper_writer(message: Descriptor) -> MessageWriter:
    convert = scalar_writer(message.fields_by_name["value"])
    return (lambda wrapper: wrapper.value) if convert is None else (lambda wrapper: convert(wrapper.value))


def _read_time(value: object, time: Timestamp, prefix: str, violations: Violations) -> None:
    if type(value) is str and (found := _TIME.fullmatch(value)):
        second, fraction, zone = found.groups()
        try:
            since = datetime.fromisoformat(second + zone) - _EPOCH
        except ValueError:  # no such day or hour
            return violations.add(prefix[:-1], _MUST_BE_TIME)
        seconds = since.days * 86_400 + since.seconds
        if _YEAR_1 <= seconds < _YEAR_10000:  # not every zone of the first and the last day
            time.seconds, time.nanos = seconds, _nanos(fraction)
            return None
    return violations.add(prefix[:-1], _MUST_BE_TIME)


def _write_time(time: Timestamp) -> object:
    """orjson writes a datetime with no digits of the second or with six, and faster than Python does."""
    seconds, nanos = time.seconds, time.nanos
    has_six_digits = nanos % 1_000 == 0 and (nanos == 0 or nanos % 1_000_000 != 0)
    if has_six_digits and _YEAR_1 <= seconds < _YEAR_10000:
        return _EPOCH + timedelta(0, seconds, nanos // 1_000)
    return time.ToJsonString()


def _read_duration(value: object, duration: Duration, prefix: str, violations: Violations) -> None:
    if type(value) is str and (found := _DURATION.fullmatch(value)):
        sign, seconds, nanos = -1 if found[1] else 1, int(found[2]), _nanos(found[3])
        if seconds < _MOST_SECONDS or (seconds == _MOST_SECONDS and not nanos):
            duration.seconds, duration.nanos = sign * seconds, sign * nanos
            return
    violations.add(prefix[:-1], "must be a duration in seconds, for example 1.5s")


def _nanos(fraction: str | None) -> int:
    return int(fraction.ljust(9, "0")) if fraction else 0


def _read_mask(value: object, mask: FieldMask, prefix: str, violations: Violations) -> None:
    """Takes the names of the contract too."""
    if type(value) is not str or len(value) > _LONGEST_MASK or not _MASK.fullmatch(value):
        violations.add(prefix[:-1], "must be names of fields, separated by commas")
    elif value:
        mask.paths.extend(_UPPER.sub(lambda letter: "_" + letter[0].lower(), value).split(","))


def _write_mask(mask: FieldMask) -> str:
    return _LOWER.sub(lambda letter: letter[1].upper(), ",".join(mask.paths))


def _json_reader(kind: type[object], must: str) -> MessageReader:
    def read(value: object, message: Any, prefix: str, violations: Violations) -> None:
        if violations.has_repeated_keys and repeats_keys(value):
            violations.add(prefix[:-1], "must give each key once")
        elif isinstance(value, kind):
            fill_json(message, value)
        else:
            violations.add(prefix[:-1], must)

    return read


_READERS: Final[Mapping[str, MessageReader]] = {
    "google.protobuf.Timestamp": _read_time,
    "google.protobuf.Duration": _read_duration,
    "google.protobuf.FieldMask": _read_mask,
    "google.protobuf.Struct": _json_reader(dict, "must be an object"),
    "google.protobuf.ListValue": _json_reader(list, "must be a list"),
    VALUE: _json_reader(object, "must be JSON"),
}
_WRITERS: Final[Mapping[str, MessageWriter]] = {
    "google.protobuf.Timestamp": _write_time,
    "google.protobuf.Duration": Duration.ToJsonString,
    "google.protobuf.FieldMask": _write_mask,
    "google.protobuf.Struct": plain_json,
    "google.protobuf.ListValue": plain_json,
    VALUE: plain_json,
}
_WRAPPER_NAMES: Final = frozenset(f"google.protobuf.{name}Value" for name in _WRAPPERS)
