import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from accord_api.pipeline.peer import peer_address, peer_network
from accord_api.pipeline.rate_limits import rate_limiter
from accord_db.database import Database
from accord_db.listen import Listener
from tests.api.conftest import refusal
from tests.api.probe import build_probe_server
from tests.api.test_pipeline import ProbeClient
from tests.factories import signed_in_person


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    if not (program := shutil.which("redis-server")):
        pytest.skip("no redis-server is installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path])
    while not listening(port):
        assert server.poll() is None
        time.sleep(0.02)
    yield f"async+redis://127.0.0.1:{port}/0"
    server.terminate()
    server.wait()


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_gateways_that_share_a_redis_count_together(database: Database, listener: Listener, redis: str) -> None:
    person = await signed_in_person(database)
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(2):
            limiter = cast(Any, rate_limiter(redis))
            stack.push_async_callback(limiter.storage.bridge.storage.aclose)
            server, probe = build_probe_server(database, listener, limiter)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
            clients.append(ProbeClient(probe, channel, person))
        first, second = clients
        for client in (first, second, first):
            await client.call("Limited")
        refused = await refusal(second.call("Limited"))
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")


@pytest.mark.parametrize(
    ("peer", "address", "network"),
    [
        ("ipv4:192.0.2.7:50412", "192.0.2.7", "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50412", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("ipv6:[::1]:50412", "::1", "::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:1", "::ffff:192.0.2.7", "192.0.2.7"),
        ("unix:", "unix:", "unix:"),
        ("", "", ""),
    ],
)
def test_peers_are_counted_by_address_and_ipv6_by_its_64(peer: str, address: str, network: str) -> None:
    assert (peer_address(peer), peer_network(peer)) == (address, network)
