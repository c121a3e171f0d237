"""Messages to JSON: names in lower camel case, defaults included, 64-bit integers as text, enums by name."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from accord_rpc.fields import is_map
from accord_rpc.protocols.json_codec.anything import ANY, any_writer
from accord_rpc.protocols.json_codec.scalars import Convert, scalar_writer, write_key
from accord_rpc.protocols.json_codec.well_known import MessageWriter, well_known_writer

_WRITERS: Final[dict[Descriptor, MessageWriter]] = {}


class _Field(NamedTuple):
    name: str
    key: str
    has_presence: bool
    convert: Convert | None


def json_writer(message: type[Message]) -> Callable[[bytes], bytes]:
    """A function from a binary message to its JSON form."""
    parse, write = message.FromString, message_writer(cast(Descriptor, message.DESCRIPTOR))
    return lambda binary: to_json(write(parse(binary)))


def to_json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


def message_writer(message: Descriptor) -> MessageWriter:
    """Compiled at the first use of a type."""
    if message not in _WRITERS:
        if message.full_name == ANY:
            _WRITERS[message] = any_writer(message_writer)
        elif well_known := well_known_writer(message):
            _WRITERS[message] = well_known
        else:
            fields: list[_Field] = []
            _WRITERS[message] = _object_writer(fields)  # before its fields, because a type can contain itself
            fields += [
                _Field(field.name, field.json_name, field.has_presence, _writer(field)) for field in message.fields
            ]
    return _WRITERS[message]


def _object_writer(fields: list[_Field]) -> MessageWriter:
    def write(message: Any) -> dict[str, object]:
        written: dict[str, object] = {}
        for name, key, has_presence, convert in fields:
            if has_presence and not message.HasField(name):
                continue
            value = getattr(message, name)
            written[key] = value if convert is None else convert(value)
        return written

    return write


def _writer(field: FieldDescriptor) -> Convert | None:
    if is_map(field):
        return _map_writer(field)
    one = _element_writer(field)
    if not field.is_repeated:
        return one
    return list if one is None else (lambda elements: [one(each) for each in elements])


def _element_writer(field: FieldDescriptor) -> Convert | None:
    return scalar_writer(field) if field.message_type is None else message_writer(field.message_type)


def _map_writer(field: FieldDescriptor) -> Convert:
    assert field.message_type is not None
    one = _element_writer(field.message_type.fields_by_name["value"])
    if one is None:
        return lambda entries: {write_key(key): value for key, value in entries.items()}
    return lambda entries: {write_key(key): one(value) for key, value in entries.items()}
