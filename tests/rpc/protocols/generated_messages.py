"""Hypothesis strategies for messages of any type."""

from functools import cache
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import Int64Value
from hypothesis import strategies as st

from accord.tasks.v1.tasks_pb2 import Task
from accord_rpc.fields import is_map

DEPTH: Final = 2
_LAST_SECOND: Final = 253_402_300_799
_LONGEST: Final = 315_576_000_000
_TEXT: Final = st.text(max_size=12)
_FINITE: Final = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)  # no negative zero
_JSON: Final = st.recursive(
    st.none() | st.booleans() | _FINITE | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_PACKED: Final = (
    st.builds(Task, title=_TEXT)
    | st.just(Empty())
    | st.builds(Timestamp, seconds=st.integers(0, 2**31))
    | st.builds(Int64Value, value=st.integers(-9, 9))
)


def messages(kind: type[Message], depth: int = DEPTH) -> st.SearchStrategy[Any]:
    return _messages(cast(Descriptor, kind.DESCRIPTOR), depth)


@cache
def _messages(kind: Descriptor, depth: int) -> st.SearchStrategy[Any]:
    if kind.full_name in _WELL_KNOWN:
        return _WELL_KNOWN[kind.full_name]
    fields = {field.name: _values(field, depth) for field in kind.fields if depth or field.message_type is None}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: _build(GetMessageClass(kind), values))


def _build(kind: type[Message], values: dict[str, Any]) -> Message:
    """Of two fields of a oneof, the last one stays."""
    message: Any = kind()
    for name, value in values.items():
        if isinstance(value, list):
            getattr(message, name).extend(value)
        elif isinstance(value, dict):
            _fill_map(getattr(message, name), value)
        elif isinstance(value, Message):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)
    return cast(Message, message)


def _fill_map(entries: Any, values: dict[Any, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Message):
            entries[key].CopyFrom(value)
        else:
            entries[key] = value


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if is_map(field):
        assert field.message_type is not None
        entry = field.message_type.fields_by_name
        return st.dictionaries(_one(entry["key"], 0), _one(entry["value"], depth - 1), max_size=3)
    one = _one(field, depth - 1)
    return st.lists(one, max_size=3) if field.is_repeated else one


def _one(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return _messages(field.message_type, depth)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return _BYTES if field.type == FieldDescriptor.TYPE_BYTES else _SCALARS[field.cpp_type]


_NOT_FINITE: Final = st.sampled_from([float("nan"), float("inf"), -float("inf")])
_BYTES: Final = st.binary(max_size=8)
_SCALARS: Final = {
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: _NOT_FINITE | st.floats(-(2.0**100), 2.0**100, width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: _NOT_FINITE | _FINITE,
    FieldDescriptor.CPPTYPE_STRING: _TEXT,
}


def _field_masks() -> st.SearchStrategy[Any]:
    from google.protobuf.field_mask_pb2 import FieldMask

    return st.builds(
        FieldMask, paths=st.lists(st.from_regex(r"[a-z]{1,3}(_[a-z]{1,3}(\.[a-z]+)?)?", fullmatch=True), max_size=3)
    )


def _durations() -> st.SearchStrategy[Any]:
    from google.protobuf.duration_pb2 import Duration

    def build(sign: int, seconds: int, nanos: int) -> Duration:
        return Duration(seconds=sign * seconds, nanos=sign * nanos)

    return st.builds(build, st.sampled_from([1, -1]), st.integers(0, _LONGEST - 1), _NANOS)


def _json(name: str) -> st.SearchStrategy[Any]:
    from google.protobuf import struct_pb2

    from accord_rpc.json_values import fill_json

    def build(value: object) -> Any:
        message = getattr(struct_pb2, name)()
        fill_json(message, value)
        return message

    kinds = {
        "Struct": st.dictionaries(_TEXT, _JSON, max_size=3),
        "ListValue": st.lists(_JSON, max_size=3),
        "Value": _JSON,
    }
    return st.builds(build, kinds[name])


def _packed() -> st.SearchStrategy[Any]:
    from google.protobuf.any_pb2 import Any as AnyMessage

    def pack(message: Message) -> AnyMessage:
        packed = AnyMessage()
        packed.Pack(message)
        return packed

    return st.builds(pack, _PACKED)


_NANOS: Final = st.sampled_from([0, 500_000_000, 123_000, 999_999_999, 1, 70_000_000])
_WELL_KNOWN: Final[dict[str, st.SearchStrategy[Any]]] = {
    "google.protobuf.Timestamp": st.builds(
        Timestamp, seconds=st.integers(-62_135_596_800, _LAST_SECOND) | st.integers(0, 2**32), nanos=_NANOS
    ),
    "google.protobuf.Duration": _durations(),
    "google.protobuf.FieldMask": _field_masks(),
    "google.protobuf.Struct": _json("Struct"),
    "google.protobuf.ListValue": _json("ListValue"),
    "google.protobuf.Value": _json("Value"),
    "google.protobuf.Any": _packed(),
}
