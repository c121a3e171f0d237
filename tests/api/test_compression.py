"""GRPC_COMPRESSION, through a gateway. What each protocol compresses is in tests/rpc/protocols."""

import gzip
from typing import Literal

import pytest

from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, ListTasksRequest, ListTasksResponse
from accord_gateway.server.gateway import Gateway
from accord_gateway.settings import Settings
from tests.api.conftest import Client
from tests.api.http2 import Response, connected, framed
from tests.factories import Person

Compression = Literal["off", "gzip"]
LIST_TASKS = "/accord.tasks.v1.TaskService/ListTasks"


@pytest.fixture
def compression() -> Compression:
    return "gzip"


@pytest.fixture
def gateway_settings(compression: Compression) -> Settings:
    return Settings(port=0, metrics_port=0, server="accord", grpc_compression=compression)


async def list_of_many_tasks(client: Client, address: str, me: Person) -> Response:
    for number in range(100):
        await client.tasks.CreateTask(CreateTaskRequest(title=f"{number}" + "x" * 150), metadata=me.headers)
    async with connected(address) as wire:
        request = framed(ListTasksRequest(page_size=100).SerializeToString())
        return await wire.call(LIST_TASKS, request, [*me.headers, ("grpc-accept-encoding", "identity,deflate,gzip")])


async def test_large_response_of_grpc_is_compressed(client: Client, gateway: tuple[Gateway, str], me: Person) -> None:
    response = await list_of_many_tasks(client, gateway[1], me)
    assert response.headers["grpc-encoding"] == "gzip"
    assert response.data[0] == 1
    assert len(ListTasksResponse.FromString(gzip.decompress(response.data[5:])).tasks) == 100


@pytest.mark.parametrize("compression", ["off"])
async def test_response_of_grpc_is_not_compressed_by_default(
    client: Client, gateway: tuple[Gateway, str], me: Person
) -> None:
    assert Settings().grpc_compression == "off"
    response = await list_of_many_tasks(client, gateway[1], me)
    assert "grpc-encoding" not in response.headers
    assert len(ListTasksResponse.FromString(response.data[5:]).tasks) == 100
