"""`google.protobuf.Any`: an object with the type of the message in `@type`, and the message's fields or its `value`."""

from collections.abc import Callable
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from accord_rpc.protocols.json_codec.document import Violations
from accord_rpc.protocols.json_codec.well_known import MessageReader, MessageWriter, well_known_writer

ANY: Final = "google.protobuf.Any"
_TYPE, _VALUE = "@type", "value"


def any_reader(message_reader: Callable[[Descriptor], MessageReader]) -> MessageReader:
    def read(value: object, packed: Any, prefix: str, violations: Violations) -> None:
        if type(value) is not dict:
            return violations.add(prefix[:-1], "must be an object in which each key is given once")
        if not value:
            return None
        if (kind := _named(value.get(_TYPE))) is None:
            return violations.add(prefix + _TYPE, "must be the URL of a message type of the contract")
        inner, fields = kind(), {key: each for key, each in value.items() if key != _TYPE}
        descriptor = cast(Descriptor, kind.DESCRIPTOR)
        if not _has_value(descriptor):
            message_reader(descriptor)(fields, inner, prefix, violations)
        elif fields.keys() == {_VALUE}:
            message_reader(descriptor)(fields[_VALUE], inner, f"{prefix}{_VALUE}.", violations)
        else:
            violations.add(prefix[:-1], f"must have a {_VALUE}, and nothing else, in addition to {_TYPE}")
        packed.type_url, packed.value = value[_TYPE], inner.SerializeToString()
        return None

    return read


def any_writer(message_writer: Callable[[Descriptor], MessageWriter]) -> MessageWriter:
    def write(packed: Any) -> dict[str, object]:
        """Raises TypeError for a type that is not in the contract."""
        if not packed.type_url and not packed.value:
            return {}
        if (kind := _named(packed.type_url)) is None:
            raise TypeError("an Any holds a message whose type is unknown")
        descriptor = cast(Descriptor, kind.DESCRIPTOR)
        written = message_writer(descriptor)(kind.FromString(packed.value))
        if _has_value(descriptor):
            return {_TYPE: packed.type_url, _VALUE: written}
        return {_TYPE: packed.type_url} | cast(dict[str, object], written)

    return write


def _named(url: object) -> type[Message] | None:
    if type(url) is not str or "/" not in url:
        return None
    try:
        return GetMessageClass(Default().FindMessageTypeByName(url.rpartition("/")[2]))
    except KeyError:
        return None


def _has_value(message: Descriptor) -> bool:
    return message.full_name == ANY or well_known_writer(message) is not None
