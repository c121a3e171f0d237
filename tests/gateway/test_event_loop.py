"""The event loop: name lookups do not delay the end of a process, and one unreachable address does not hide the others."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from accord.accounts.v1.accounts_pb2 import SignUpRequest
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord.providers.v1.providers_pb2 import BeginProviderSignInRequest
from accord.providers.v1.providers_pb2_grpc import ProviderServiceStub
from accord_gateway import event_loop
from tests.gateway.conftest import Start, eventually

# Blocks like a resolver whose servers do not respond, after it creates the file `lookup`.
BLOCKING = """
import pathlib, socket, time
resolve = socket.getaddrinfo
def getaddrinfo(host, *arguments, **options):
    if host in ("never.example", b"never.example"):
        pathlib.Path("lookup").touch()
        time.sleep(120)
    return resolve(host, *arguments, **options)
socket.getaddrinfo = getaddrinfo
"""
PROGRAM = """
import asyncio, pathlib
from accord_gateway import event_loop
async def main():
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(loop.{call})
    while not pathlib.Path("lookup").exists():
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
event_loop.run(main())
"""


@pytest.fixture
def blocking(tmp_path: Path) -> dict[str, object]:
    """Settings with which a gateway cannot resolve `never.example`."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKING)
    return {"PYTHONPATH": tmp_path}


def looked_up(folder: Path) -> bool | None:
    return (folder / "lookup").exists() or None


@pytest.mark.parametrize(
    "call", ['create_connection(asyncio.Protocol, "never.example", 25)', 'getaddrinfo("never.example", 25)']
)
def test_a_name_lookup_does_not_delay_the_end_of_the_process(tmp_path: Path, call: str) -> None:
    program = BLOCKING + PROGRAM.format(call=call)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)


def test_an_unresolvable_mail_server_does_not_delay_the_shutdown(
    start: Start, database_url: str, tmp_path: Path, blocking: dict[str, object]
) -> None:
    gateway = start(DATABASE_URL=database_url, SMTP_URL="smtp://never.example", **blocking)
    with grpc.insecure_channel(gateway.address) as channel:
        request = SignUpRequest(email="ada@example.com", password="a sentence that only I know", display_name="Ada")
        AccountServiceStub(channel).SignUp(request, timeout=30)
    eventually(lambda: looked_up(tmp_path), gateway)
    assert gateway.stop() == 0  # within 60 s


def test_an_unresolvable_provider_does_not_delay_the_shutdown(
    start: Start, database_url: str, tmp_path: Path, blocking: dict[str, object]
) -> None:
    redirect_uri = "https://app.example.com/signed-in"
    gateway = start(
        DATABASE_URL=database_url,
        PROVIDERS='{"corp": {"issuer": "https://never.example", "client_id": "accord", "client_secret": "secret"}}',
        PROVIDER_REDIRECT_URIS=redirect_uri,
        **blocking,
    )
    with grpc.insecure_channel(gateway.address) as channel, pytest.raises(grpc.RpcError) as raised:
        request = BeginProviderSignInRequest(provider="corp", redirect_uri=redirect_uri)
        ProviderServiceStub(channel).BeginProviderSignIn(request, timeout=30)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert looked_up(tmp_path)
    assert gateway.stop() == 0  # within 60 s


@contextmanager
def dropping_packets(port: int) -> Iterator[str]:
    """An address that establishes no connections: its queue is full, and nothing accepts them."""
    with socket.create_server(("127.0.0.9", port), backlog=0) as full, ExitStack() as stack:
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield "127.0.0.9"


async def test_after_an_address_that_drops_packets_the_next_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "ADDRESS_SECONDS", 0.3)
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with dropping_packets(port) as unreachable:
            addresses = {"two.example": (unreachable, "127.0.0.1")}

            def resolve(host: str, *_: object) -> list[Any]:
                return [
                    (socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))
                    for address in addresses.get(host, [host])
                ]

            monkeypatch.setattr("socket.getaddrinfo", resolve)
            reader, writer = await asyncio.wait_for(asyncio.open_connection("two.example", port), 30)
            assert writer.get_extra_info("peername") == ("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()


async def test_the_error_of_the_last_address_is_raised() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("localhost", port)
