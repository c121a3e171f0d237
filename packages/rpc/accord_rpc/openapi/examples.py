"""Examples of request bodies that the rules accept, for people who try a call."""

from collections.abc import Collection, Iterator
from typing import Any, Final

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from protovalidate import Validator

from accord_rpc.fields import is_date, is_map, rules_of
from accord_rpc.openapi.values import fitting_number, fitting_text
from accord_rpc.policy import REQUEST_ID, is_sensitive

_TEXTS: Final = (
    *("Example", "example", "123456", "0193a5b7-6f10-7c3e-9d5b-2f8a41c06e77"),
    *("ada@example.com", "https://app.example.com/signed-in"),
)
_SECRETS: Final = ("a sentence that only I know", *_TEXTS)
_IN_JSON: Final = {
    "google.protobuf.Timestamp": "2030-01-01T00:00:00Z",
    "google.protobuf.Duration": "3600s",
    "google.protobuf.Struct": {},
    "google.protobuf.ListValue": [],
}
# Values that belong to one call, or to one version.
_LEFT_OUT: Final = (REQUEST_ID, "etag")
_NOT_SENT: Final = (field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IDENTIFIER)


class Examples:
    def __init__(self, validator: Validator) -> None:
        self._validator = validator

    def body(self, message: Descriptor, required: Collection[str], without: Collection[str] = ()) -> dict[str, Any]:
        """The required fields, and single values that are not required. One of each oneof."""
        return {
            field.json_name: self._value(field)
            for field in message.fields
            if field.name not in without and (field.name in required or _is_usual(field))
        }

    def text(self, field: FieldDescriptor) -> str:
        """The first text that the field's rules accept; empty if there is none."""
        texts = (*(_SECRETS if is_sensitive(field) else _TEXTS), fitting_text(rules_of(field).string))
        return next((text for text in texts if self._accepts(field, text)), "")

    def _accepts(self, field: FieldDescriptor, text: str) -> bool:
        assert field.containing_type is not None
        value = {field.name: [text] if field.is_repeated else text}
        return field.name not in set(self._violated(GetMessageClass(field.containing_type)(**value)))

    def _violated(self, message: Message) -> Iterator[str]:
        for violation in self._validator.collect_violations(message):
            if violation.proto.field:
                yield violation.proto.field.elements[0].field_name

    def _value(self, field: FieldDescriptor) -> Any:
        if is_map(field):
            return {}
        return [self._single(field)] if field.is_repeated else self._single(field)

    def _single(self, field: FieldDescriptor) -> Any:
        if field.message_type is not None:
            known = _IN_JSON.get(field.message_type.full_name)
            return self.body(field.message_type, ()) if known is None else known
        if field.enum_type is not None:
            return field.enum_type.values[-1].name
        if field.type == FieldDescriptor.TYPE_BOOL:
            return True
        if field.type == FieldDescriptor.TYPE_BYTES:
            return "YQ=="
        if is_date(field):
            return "2030-01-31"
        return self.text(field) if field.type == FieldDescriptor.TYPE_STRING else _number(field)


def _number(field: FieldDescriptor) -> Any:
    number = fitting_number(field, rules_of(field), 100)
    is_text = field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
    return str(number) if is_text else number


def _is_usual(field: FieldDescriptor) -> bool:
    """Whether callers often set it, although it is not required."""
    is_single_value = field.message_type is None and not field.is_repeated
    is_first_choice = field.containing_oneof is None or field.containing_oneof.fields[0].name == field.name
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    is_sent = not any(behavior in behaviors for behavior in _NOT_SENT)
    return is_single_value and is_first_choice and is_sent and field.name not in _LEFT_OUT
