"""The client connects without TLS only to addresses of this machine."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import accord_client
import accord_client.aio
from accord.tasks.v1.tasks_pb2 import GetTaskRequest, GetTaskResponse
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_client import PlainTextRefused, SessionToken
from tests.client.scripted import ScriptedServer, unavailable_until

OPEN: list[Callable[..., Any]] = [accord_client.open_channel, accord_client.aio.open_channel]


@pytest.mark.parametrize("open_channel", OPEN, ids=["threads", "asyncio"])
@pytest.mark.parametrize(
    "address",
    [
        "example.com:443",
        "10.0.0.7:50051",
        "0.0.0.0:50051",
        "[::]:50051",
        "[2001:db8::1]:50051",
        "dns:///example.com:443",
        "dns://10.0.0.53/localhost:50051",
        "ipv4:127.0.0.1:50051,10.0.0.7:50051",
        "localhost.example.com:50051",
        "127.0.0.1.example.com:50051",
        "localhost@example.com:50051",
        "127.0.0.1:50051@example.com:443",
        "127.0.0.1:50051\nexample.com:443",
        "passthrough:///10.0.0.7:50051",
        "xds:///localhost:50051",
        "localhost",
        "",
    ],
)
@pytest.mark.parametrize("credentials", [SessionToken("token"), None])
async def test_plain_text_to_another_machine_is_refused(
    open_channel: Callable[..., Any], address: str, credentials: SessionToken | None
) -> None:
    with pytest.raises(PlainTextRefused):
        open_channel(address, credentials=credentials, tls=None)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1", "dns:///localhost:1", "ipv4:127.0.0.1:1", "ipv6:[::1]:1"],
)
def test_plain_text_to_this_machine_is_accepted(address: str) -> None:
    accord_client.open_channel(address, tls=None).close()


def test_channel_uses_tls_by_default(server: ScriptedServer) -> None:
    server.scripts["GetTask"] = unavailable_until(1, GetTaskResponse())
    with (
        accord_client.open_channel(server.address, credentials=SessionToken("token")) as channel,
        pytest.raises(accord_client.CallFailed),
    ):
        TaskServiceStub(channel).GetTask(GetTaskRequest(), timeout=1)
    assert server.calls == []


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A proxy that the environment variables configure for all addresses."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        for name in ("no_grpc_proxy", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("grpc_proxy", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield listening


def test_plain_text_does_not_use_a_proxy(server: ScriptedServer, proxy: socket.socket) -> None:
    server.scripts["GetTask"] = unavailable_until(1, GetTaskResponse())
    options = [("grpc.enable_http_proxy", 1)]
    with accord_client.open_channel(
        server.address, credentials=SessionToken("token"), tls=None, options=options
    ) as channel:
        TaskServiceStub(channel).GetTask(GetTaskRequest())
    with pytest.raises(BlockingIOError):
        proxy.accept()
