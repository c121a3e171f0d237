"""Every method with a `request_id`: repeated by the same caller it runs once and returns the same, and is another caller's own.

The methods are those of the contract: a new one is tried without a line here.
"""

from collections.abc import Iterator
from typing import Final
from uuid import uuid4

import pytest
from google.protobuf.descriptor import MethodDescriptor

from tests.api import requests
from tests.api.conftest import Client
from tests.api.foreign import RESOURCES, Owner, own_request
from tests.api.matrix import every_method
from tests.api.world import World
from tests.conftest import count

METHODS: Final = [method for method in every_method() if "request_id" in method.input_type.fields_by_name]


@pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])
async def test_repeated_request_id_of_a_caller_runs_once(
    client: Client, world: World, dsn: str, method: MethodDescriptor
) -> None:
    me, other = [await owner(world) for _ in range(2)]
    request = await own_request(world, me, method)
    request.request_id = str(uuid4())
    tables = list(tables_of(method))
    before = [count(dsn, table) for table in tables]
    first = await requests.send(client.channel, method, request, me.person.headers)
    after = [count(dsn, table) for table in tables]
    assert await requests.send(client.channel, method, request, me.person.headers) == first
    assert [count(dsn, table) for table in tables] == after
    if method.name.startswith(("Create", "BatchCreate")):
        assert after == [number + 1 for number in before]
        theirs = await own_request(world, other, method)
        theirs.request_id = request.request_id
        assert await requests.send(client.channel, method, theirs, other.person.headers) != first
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
