"""Fields that a caller may not set stay unchanged, whatever the mask and the body of an update contain.

Methods and fields are read from the contract, so a new update is tested without a change here.
"""

from collections.abc import Iterator
from typing import Any, Final, cast

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tests.api import requests
from tests.api.conftest import Client, refusal
from tests.api.foreign import Owner, own_request
from tests.api.matrix import every_method
from tests.api.requests import changeable, is_identifier, is_output_only, updated
from tests.api.world import World

UPDATES: Final = [method for method in every_method() if updated(method)]
CREATES: Final = [method for method in every_method() if method.name.startswith(("Create", "BatchCreate"))]
NEVER: Final = ("*", "", "nonsense", "created_at.seconds", "owner_id", "account_id", "password_hash")
# Fields that every update changes.
CHANGED_BY_EVERY_UPDATE: Final = {"updated_at", "etag"}


def resource_of(method: MethodDescriptor) -> Descriptor:
    field = updated(method)
    assert field
    assert field.message_type
    return field.message_type


def unsettable(method: MethodDescriptor) -> Iterator[str]:
    fields = resource_of(method).fields
    yield from (field.name for field in fields if is_output_only(field) or is_identifier(field))
    yield from (path for path in NEVER if path not in {field.name for field in changeable(resource_of(method))})


@pytest.fixture
async def me(world: World) -> Owner:
    """The owner of the active organization."""
    organization = world.organization()
    return Owner(await world.member(organization, "owner"), organization)


async def valid_request(world: World, me: Owner, method: MethodDescriptor) -> Any:
    """A request that changes one field of a resource of `me`."""
    request = await own_request(world, me, method)
    assert requests.violations(request) == []
    return request


def call(client: Client, method: MethodDescriptor, request: Message, me: Owner) -> Any:
    return requests.send(client.channel, method, request, me.person.headers)


@pytest.mark.parametrize("method", UPDATES, ids=[method.name for method in UPDATES])
async def test_mask_with_a_path_that_cannot_be_changed_is_invalid(
    client: Client, world: World, me: Owner, method: MethodDescriptor
) -> None:
    request = await valid_request(world, me, method)
    for path in unsettable(method):
        for paths in ([path], [*request.update_mask.paths, path]):
            invalid = type(request)()
            invalid.CopyFrom(request)
            del invalid.update_mask.paths[:]
            invalid.update_mask.paths.extend(paths)
            refused = await refusal(call(client, method, invalid, me))
            assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE"), paths
    await call(client, method, request, me)


@pytest.mark.parametrize("with_mask", [True, False], ids=["with a mask", "without a mask"])
@pytest.mark.parametrize("method", UPDATES, ids=[method.name for method in UPDATES])
async def test_output_only_fields_in_an_update_are_ignored(
    client: Client, world: World, me: Owner, method: MethodDescriptor, with_mask: bool
) -> None:
    """Sends the same change twice, the second time with forged output-only fields."""
    request = await valid_request(world, me, method)
    field = updated(method)
    assert field
    before = getattr(await call(client, method, request, me), field.name)
    body = getattr(request, field.name)
    forged = list(forge(body, before))
    assert forged
    if not with_mask:
        request.ClearField("update_mask")
    assert requests.violations(request) == []
    after = getattr(await call(client, method, request, me), field.name)
    names = [each.name for each in before.DESCRIPTOR.fields]
    assert {name for name in names if getattr(before, name) != getattr(after, name)} <= CHANGED_BY_EVERY_UPDATE


def forge(body: Message, true: Message) -> Iterator[str]:
    """Sets output-only fields to false values. Yields the names of the fields."""
    for field in cast(Descriptor, body.DESCRIPTOR).fields:  # the stub declares another class than the runtime has
        if is_output_only(field):
            value = false_value(field, getattr(true, field.name))
            if field.is_repeated:
                getattr(body, field.name).append(value)
            elif field.message_type is not None:
                getattr(body, field.name).CopyFrom(value)
            else:
                setattr(body, field.name, value)
            yield field.name


def false_value(field: FieldDescriptor, true: Any) -> Any:
    if field.message_type is not None:
        assert field.message_type.full_name == Timestamp.DESCRIPTOR.full_name, field.full_name
        return Timestamp(seconds=1)
    if field.enum_type is not None:
        return next(value.number for value in field.enum_type.values if value.number not in (0, true))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return not true
    if field.type == FieldDescriptor.TYPE_STRING:
        return requests.text(field)
    return true + 1


@pytest.mark.parametrize("method", CREATES, ids=[method.name for method in CREATES])
def test_create_request_has_no_field_that_is_output_only_in_the_resource(method: MethodDescriptor) -> None:
    """No caller can set the owner, the organization, the verification or the times, because no field exists for them."""
    request_fields = set(fields_in(method.input_type))
    resources = [field.message_type for field in method.output_type.fields if field.message_type is not None]
    for resource in resources:
        protected = {field.name for field in resource.fields if is_output_only(field) or is_identifier(field)}
        if resource.full_name in UPDATED:
            assert not request_fields & protected


UPDATED: Final = {resource_of(method).full_name for method in UPDATES}


def fields_in(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        yield field.name
        if field.message_type is not None and field.message_type.file.package.startswith("accord."):
            yield from fields_in(field.message_type)


def test_contract_has_update_and_create_methods() -> None:
    assert {"UpdateTask", "UpdateAccount"} <= {method.name for method in UPDATES}
    created = {
        field.message_type.full_name for method in CREATES for field in method.output_type.fields if field.message_type
    }
    assert {"accord.tasks.v1.Task", "accord.roles.v1.Role"} <= created & UPDATED
