"""JSON to messages, strictly: every unknown field, repeated key and wrong value is reported, with the path of its field."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from accord_rpc.fields import is_map
from accord_rpc.pipeline.repeated_limits import max_elements
from accord_rpc.protocols.json_codec.anything import ANY, any_reader
from accord_rpc.protocols.json_codec.document import RepeatedKeys, Violations, parse
from accord_rpc.protocols.json_codec.scalars import is_null_value, key_reader, scalar_reader
from accord_rpc.protocols.json_codec.well_known import VALUE, MessageReader, well_known_reader

M = TypeVar("M", bound=Message)
_Set: TypeAlias = Callable[[Any, Any, str, Violations], None]
"""Sets a field of a message to a JSON value. Takes the prefix of its path."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_READERS: Final[dict[Descriptor, MessageReader]] = {}


class _Key(NamedTuple):
    """One of the two spellings of a field."""

    set: _Set
    name: str
    twin: str | None
    """The other spelling, if this is the name in the contract."""
    rivals: Sequence[str]
    """The spellings of the fields after it in the same `oneof`."""


def json_reader(message: type[M]) -> Callable[[bytes], M]:
    """A function from a JSON object to a message. Raises INVALID_MESSAGE with all violations."""
    read_into = message_reader(cast(Descriptor, message.DESCRIPTOR))  # annotated as a union of two equal classes

    def read(body: bytes) -> M:
        filled, violations = message(), Violations()
        read_into(parse(body, violations), filled, "", violations)
        violations.check()
        return filled

    return read


def message_reader(message: Descriptor) -> MessageReader:
    """Compiled at the first use of a type."""
    if message not in _READERS:
        if message.full_name == ANY:
            _READERS[message] = any_reader(message_reader)
        elif well_known := well_known_reader(message):
            _READERS[message] = well_known
        else:
            keys: dict[str, _Key] = {}
            _READERS[message] = _object_reader(keys)  # before its fields, because a type can contain itself
            keys |= {spelling: key for field in message.fields for spelling, key in _keys(field)}
    return _READERS[message]


def _object_reader(keys: dict[str, _Key]) -> MessageReader:
    def read(value: object, message: Any, prefix: str, violations: Violations) -> None:
        if type(value) is not dict:
            if not isinstance(value, RepeatedKeys):
                return violations.add(prefix[:-1], "must be an object")
            for spelling in value.repeated:
                violations.add(prefix + _known(spelling, keys), "must be given once")
        for spelling, each in value.items():
            key = keys.get(spelling)
            if key is None:
                violations.add(prefix + _known(spelling, keys), "is not a field of this message")
                continue
            if key.twin in value:
                violations.add(prefix + key.name, "must be given once")
            if key.rivals and each is not None and any(value.get(rival) is not None for rival in key.rivals):
                violations.add(prefix + key.name, "must not be given together with another field of its oneof")
            key.set(message, each, prefix, violations)
        return None

    return read


def _known(spelling: str, keys: dict[str, _Key]) -> str:
    """The name of a field that the request names. `key` for a text that could not be one."""
    if spelling in keys:
        return keys[spelling].name
    return spelling if _NAME.fullmatch(spelling) else "key"


def _keys(field: FieldDescriptor) -> Sequence[tuple[str, _Key]]:
    setter, rivals = _setter(field), _rivals(field)
    camel = (field.json_name, _Key(setter, field.name, None, rivals))
    if field.json_name == field.name:
        return [camel]
    return [camel, (field.name, _Key(setter, field.name, field.json_name, rivals))]


def _rivals(field: FieldDescriptor) -> Sequence[str]:
    fields = field.containing_oneof.fields if field.containing_oneof else []
    return [name for other in fields if other.index > field.index for name in {other.name, other.json_name}]


def _setter(field: FieldDescriptor) -> _Set:
    if is_map(field):
        return _map_setter(field)
    if field.message_type is not None:
        return _messages_setter(field) if field.is_repeated else _message_setter(field)
    if field.is_repeated:
        return _scalars_setter(field)
    return _text_setter(field.name) if field.type == FieldDescriptor.TYPE_STRING else _scalar_setter(field)


def _text_setter(name: str) -> _Set:
    def set_text(message: Any, value: object, prefix: str, violations: Violations) -> None:
        if type(value) is str:
            setattr(message, name, value)
        elif value is not None:
            violations.add(prefix + name, "must be text")

    return set_text


def _scalar_setter(field: FieldDescriptor) -> _Set:
    name, convert, null = field.name, scalar_reader(field), 0 if is_null_value(field) else None

    def set_scalar(message: Any, value: object, prefix: str, violations: Violations) -> None:
        if value is None:
            value = null
        if value is not None:
            try:
                setattr(message, name, convert(value))
            except ValueError as error:
                violations.add(prefix + name, str(error))

    return set_scalar


def _scalars_setter(field: FieldDescriptor) -> _Set:
    name, convert, fits = field.name, scalar_reader(field), _list_check(field)

    def set_scalars(message: Any, value: object, prefix: str, violations: Violations) -> None:
        if not fits(value, prefix, violations):
            return
        elements = getattr(message, name)
        for index, each in enumerate(cast(list[object], value)):
            try:
                elements.append(convert(each))
            except ValueError as error:
                violations.add(f"{prefix}{name}[{index}]", str(error))

    return set_scalars


def _message_setter(field: FieldDescriptor) -> _Set:
    assert field.message_type is not None
    name, read, takes_null = field.name, message_reader(field.message_type), field.message_type.full_name == VALUE

    def set_message(message: Any, value: object, prefix: str, violations: Violations) -> None:
        if value is not None or takes_null:
            inner = getattr(message, name)
            inner.SetInParent()
            read(value, inner, f"{prefix}{name}.", violations)

    return set_message


def _messages_setter(field: FieldDescriptor) -> _Set:
    assert field.message_type is not None
    name, read, fits = field.name, message_reader(field.message_type), _list_check(field)

    def set_messages(message: Any, value: object, prefix: str, violations: Violations) -> None:
        if fits(value, prefix, violations):
            elements = getattr(message, name)
            for index, each in enumerate(cast(list[object], value)):
                read(each, elements.add(), f"{prefix}{name}[{index}].", violations)

    return set_messages


def _list_check(field: FieldDescriptor) -> Callable[[object, str, Violations], bool]:
    """Whether a value is a list of a length that the rules allow, so that its elements are read."""
    name, most = field.name, max_elements(field)
    assert most is not None

    def fits(value: object, prefix: str, violations: Violations) -> bool:
        if value is None:
            return False
        if type(value) is not list:
            violations.add(prefix + name, "must be a list")
        elif len(value) > most:
            violations.add(prefix + name, f"must contain no more than {most} item(s)")
        else:
            return True
        return False

    return fits


def _map_setter(field: FieldDescriptor) -> _Set:
    assert field.message_type is not None
    name, most, entry = field.name, max_elements(field), field.message_type.fields_by_name
    read_key, set_entry = key_reader(entry["key"]), _entry_setter(entry["value"])
    assert most is not None

    def set_map(message: Any, value: object, prefix: str, violations: Violations) -> None:
        if value is None:
            return
        if type(value) is not dict:
            violations.add(prefix + name, _once_or_object(value))
        elif len(value) > most:
            violations.add(prefix + name, f"must contain no more than {most} item(s)")
        else:
            for key, each in value.items():
                try:
                    set_entry(getattr(message, name), read_key(key), each, f"{prefix}{name}[key].", violations)
                except ValueError as error:
                    violations.add(f"{prefix}{name}[key]", str(error))

    return set_map


def _once_or_object(value: object) -> str:
    return "must give each key once" if isinstance(value, RepeatedKeys) else "must be an object"


def _entry_setter(field: FieldDescriptor) -> Callable[[Any, Any, object, str, Violations], None]:
    if field.message_type is not None:
        read = message_reader(field.message_type)
        return lambda entries, key, value, prefix, violations: read(value, entries[key], prefix, violations)
    convert = scalar_reader(field)

    def set_entry(entries: Any, key: Any, value: object, prefix: str, violations: Violations) -> None:
        entries[key] = convert(value)

    return set_entry
