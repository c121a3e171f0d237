"""Every method with a `request_id`, through every face: repeated by the same caller it runs once and returns the same, and is another caller's own.

The methods are those of the contract: a new one is tried without a line here.
"""

from collections.abc import Iterator
from typing import Final
from uuid import uuid4

import pytest
from google.protobuf.descriptor import MethodDescriptor

from accord_gateway.settings import Settings
from tests.api.faces import GRPC, Ends, Face
from tests.api.foreign import RESOURCES, Owner, own_request
from tests.api.matrix import every_method
from tests.api.representatives import Faces, representatives
from tests.api.world import World
from tests.conftest import count

METHODS: Final = [method for method in every_method() if "request_id" in method.input_type.fields_by_name]
REPRESENTATIVES: Final = representatives(METHODS)


@pytest.fixture
def gateway_settings(settings_of_every_face: Settings) -> Settings:
    return settings_of_every_face


@pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])
async def test_repeated_request_id_of_a_caller_runs_once(
    ends: Ends, world: World, faces: Faces, dsn: str, method: MethodDescriptor
) -> None:
    for face in faces.of(method, REPRESENTATIVES):
        await check_request_id(face, ends, world, dsn, method)


async def check_request_id(face: Face, ends: Ends, world: World, dsn: str, method: MethodDescriptor) -> None:
    me, other = [await owner(world) for _ in range(2)]
    request = await own_request(world, me, method)
    request.request_id = str(uuid4())
    tables = list(tables_of(method))
    before = [count(dsn, table) for table in tables]
    first = await face.call(ends, method, request, me.person.headers)
    after = [count(dsn, table) for table in tables]
    assert (await face.call(ends, method, request, me.person.headers)).message == first.message, face
    assert [count(dsn, table) for table in tables] == after
    if method.name.startswith(("Create", "BatchCreate")):
        assert after == [number + 1 for number in before]
        theirs = await own_request(world, other, method)
        theirs.request_id = request.request_id
        assert (await face.call(ends, method, theirs, other.person.headers)).message != first.message
        assert [count(dsn, table) for table in tables] == [number + 2 for number in before]


def tables_of(method: MethodDescriptor) -> Iterator[str]:
    """Of the resources that the method returns."""
    for field in method.output_type.fields:
        if field.message_type is not None and field.message_type.name in RESOURCES:
            yield RESOURCES[field.message_type.name].name


async def owner(world: World) -> Owner:
    organization = world.organization()
    return Owner(await world.member(organization, "owner"), organization)


def test_there_are_methods_to_be_tried() -> None:
    assert {"CreateTask", "BatchCreateTasks"} <= {method.name for method in METHODS}
    assert all(map(any, [map(bool, tables_of(method)) for method in METHODS if "Create" in method.name]))


@pytest.mark.parametrize("method", [METHODS[0]], ids=[METHODS[0].name])
async def test_request_id_is_known_to_every_face(
    ends: Ends, world: World, faces: Faces, method: MethodDescriptor
) -> None:
    """A client may repeat a call through another face."""
    me = await owner(world)
    request = await own_request(world, me, method)
    request.request_id = str(uuid4())
    first = await GRPC.call(ends, method, request, me.person.headers)
    for face in faces.every:
        assert (await face.call(ends, method, request, me.person.headers)).message == first.message, face
