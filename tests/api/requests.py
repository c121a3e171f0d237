"""Minimal valid requests of any method, generated from the descriptors."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final, cast
from uuid import uuid4

import grpc
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from protovalidate import Validator, Violation

from accord.policy.v1.policy_pb2 import ROLE_MEMBER
from accord_rpc.fields import is_date
from accord_rpc.openapi.values import fitting_number, fitting_text
from buf.validate import validate_pb2
from tests.factories import Headers

MASK: Final = "update_mask"
# Candidates for fields with a pattern. The first that matches is used.
_TEXTS: Final = ("example", "123456", "https://app.example/callback", "corp")
_PASSWORD: Final = "correct horse battery staple"
# Values required by rules of a whole message or of a handler, by the full name of the field.
_VALUES: Final[dict[str, Any]] = {
    "accord.accounts.v1.ChangePasswordRequest.new_password": _PASSWORD,
    "accord.accounts.v1.CompleteSignInRequest.code": "123456",
    "accord.accounts.v1.ResetPasswordRequest.new_password": _PASSWORD,
    "accord.accounts.v1.SignUpRequest.password": _PASSWORD,
    "accord.admin.v1.SetAccountPasswordRequest.new_password": _PASSWORD,
    "accord.invitations.v1.CreateInvitationRequest.role": ROLE_MEMBER,
}


def minimal_request(method: MethodDescriptor) -> Any:
    """A request with the required fields only, and for an update one changed field."""
    request = _minimal_message(method.input_type)
    if resource := updated(method):
        change(request, resource, next(changeable(cast(Descriptor, resource.message_type))))
    return request


def send(channel: grpc.aio.Channel, method: MethodDescriptor, request: Message, headers: Headers) -> Any:
    call: Any = channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return call(request, metadata=headers)


def violations(request: Message) -> list[str]:
    return [str(violation.proto) for violation in _validator().collect_violations(request)]


@cache
def _validator() -> Validator:
    return Validator()


def updated(method: MethodDescriptor) -> FieldDescriptor | None:
    """The field of the resource, if the method is an update with a mask."""
    fields = method.input_type.fields
    if MASK not in method.input_type.fields_by_name:
        return None
    return next(field for field in fields if field.message_type is not None and field.name != MASK)


def change(request: Any, resource: FieldDescriptor, field: FieldDescriptor) -> None:
    """Sets this field of the resource and a mask of only this field."""
    message = getattr(request, resource.name)
    message.SetInParent()
    _fill(message, field)
    del request.update_mask.paths[:]
    request.update_mask.paths.append(field.name)


def changeable(resource: Descriptor) -> Iterator[FieldDescriptor]:
    return (
        field for field in resource.fields if not (is_output_only(field) or is_identifier(field) or is_immutable(field))
    )


def is_output_only(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.OUTPUT_ONLY in _behaviors(field)


def is_immutable(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.IMMUTABLE in _behaviors(field)


def is_identifier(field: FieldDescriptor) -> bool:
    """True for fields that identify the resource or its version."""
    return field_behavior_pb2.IDENTIFIER in _behaviors(field) or field.name in ("id", "etag")


def _behaviors(field: FieldDescriptor) -> list[int]:
    return list(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The rules of the field, or of its items if it is repeated."""
    own = field.GetOptions().Extensions[validate_pb2.field]
    return own.repeated.items if field.is_repeated else own


def is_uuid(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_STRING and rules(field).string.uuid


def _minimal_message(descriptor: Descriptor) -> Any:
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if _is_required(field):
            _fill(message, field)
    return message


def _is_required(field: FieldDescriptor) -> bool:
    own = field.GetOptions().Extensions[validate_pb2.field]
    if field.full_name in _VALUES or own.required:
        return True
    if field.is_repeated:
        return bool(own.repeated.min_items)
    if field.enum_type is not None:
        return 0 in own.enum.not_in
    if field.message_type is not None or field.has_presence or own.ignore:
        return False
    if is_date(field):  # the kernel requires it
        return cast(Descriptor, field.containing_type).name.startswith("Create")
    return _accepts(field, field.default_value) is False


def _fill(message: Any, field: FieldDescriptor) -> None:
    value = _value(field)
    if field.is_repeated:
        getattr(message, field.name).append(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


def _value(field: FieldDescriptor) -> Any:
    if field.full_name in _VALUES:
        return _VALUES[field.full_name]
    if field.message_type is not None:
        return _minimal_message(field.message_type)
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"x"
    if field.type == FieldDescriptor.TYPE_BOOL:
        return True
    return text(field) if field.type == FieldDescriptor.TYPE_STRING else fitting_number(field, rules(field), 1)


def text(field: FieldDescriptor) -> str:
    if rules(field).string.uuid:
        return str(uuid4())
    if rules(field).string.email:
        return f"{uuid4().hex}@example.com"
    if is_date(field):
        return "2027-01-31"
    candidates = (f"a{uuid4().hex[:8]}", *_TEXTS, fitting_text(rules(field).string))
    return next((text for text in candidates if _accepts(field, text)), "?")


def _accepts(field: FieldDescriptor, value: Any) -> bool:
    """True if the value satisfies the rules of the field, checked in a message without other fields."""
    message: Any = GetMessageClass(cast(Descriptor, field.containing_type))()
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)
    violations = _validator().collect_violations(message)
    return all(_field(violation) != field.name for violation in violations)


def _field(violation: Violation) -> str:
    """The name of the field. Empty for a rule of the whole message."""
    field = violation.proto.field
    return field.elements[0].field_name if field else ""
