"""The client address of a call: the address of its connection, or the one that a listed proxy forwards."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from ipaddress import ip_network
from typing import Any

import grpc
import psycopg
import pytest

from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_rpc.client_address import ClientAddresses, peer_network
from accord_rpc.pipeline.rate_limits import rate_limiter
from tests.api.conftest import refusal
from tests.api.probe import ProbeClient, build_probe_server
from tests.factories import signed_in_person

LISTED = ClientAddresses([ip_network("10.0.0.0/8"), ip_network("192.0.2.1/32"), ip_network("fd00::/8")])
PROXY = "ipv4:10.1.2.3:50412"


@pytest.mark.parametrize(
    ("connection", "address"),
    [
        ("ipv4:198.51.100.7:50412", "198.51.100.7"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50412", "2001:db8:1:2:3:4:5:6"),
        ("ipv6:[::1]:50412", "::1"),
        ("ipv6:[2001:0DB8:0:0::7]:1", "2001:db8::7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::1"),
        ("ipv6:%5B::ffff:198.51.100.7%5D:1", "198.51.100.7"),
        ("unix:", "unix:"),
        ("unix:/run/accord.sock", "unix:/run/accord.sock"),
        ("ipv4:nonsense", "ipv4:nonsense"),
        ("", ""),
    ],
)
def test_address_of_a_connection_excludes_its_port(connection: str, address: str) -> None:
    assert ClientAddresses().address(connection, []) == address
    assert LISTED.address(connection, ["203.0.113.9"]) == address


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_ipv4_is_limited_by_address_and_ipv6_by_its_64_bit_prefix(peer: str, network: str) -> None:
    assert peer_network(peer) == network


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ([], "10.1.2.3"),
        ([""], "10.1.2.3"),
        (["203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9:4711"], "203.0.113.9"),
        ([" 203.0.113.9 "], "203.0.113.9"),
        (["2001:db8::7"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["fe80::7%eth0"], "fe80::7"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        # Entries on the left were sent by the client and are not trusted.
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (["10.9.9.9, 203.0.113.9"], "203.0.113.9"),
        # Other listed proxies are skipped.
        (["203.0.113.9, 10.9.9.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9, 192.0.2.1, fd00::1, 10.9.9.9:80"], "203.0.113.9"),
        (["203.0.113.9, ::ffff:10.9.9.9"], "203.0.113.9"),
        # Several headers are joined in order.
        (["198.51.100.1, 203.0.113.9", "10.9.9.9"], "203.0.113.9"),
        (["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
        # A listed machine calls for itself.
        (["10.9.9.9"], "10.9.9.9"),
        (["10.8.8.8, 10.9.9.9"], "10.8.8.8"),
        # Parsing stops at an invalid entry: the address is that of the proxy that sent it.
        (["unknown"], "10.1.2.3"),
        (["203.0.113.9, unknown"], "10.1.2.3"),
        (["203.0.113.9, _hidden, 10.9.9.9"], "10.9.9.9"),
        (["203.0.113.9,"], "10.1.2.3"),
        (["203.0.113.9;evil"], "10.1.2.3"),
        (["999.0.113.9"], "10.1.2.3"),
        (["203.0.113.9:80:80"], "10.1.2.3"),
        (["[203.0.113.9"], "10.1.2.3"),
        (["[2001:db8::7]evil"], "10.1.2.3"),
        (["203.0.113.9:evil"], "10.1.2.3"),
        (["0x7f.1", "127.1"], "10.1.2.3"),
        (["\0"], "10.1.2.3"),
        (["1" * 8000], "10.1.2.3"),
        ([",".join(["10.9.9.9"] * 1000)], "10.9.9.9"),
    ],
)
def test_forwarded_addresses_are_trusted_from_the_right_up_to_the_first_unlisted_one(
    headers: list[str], address: str
) -> None:
    assert LISTED.address(PROXY, headers) == address


@pytest.mark.parametrize(
    "connection",
    ["ipv4:198.51.100.7:1", "ipv4:192.0.2.2:1", "ipv6:%5Bfe80::1%5D:1", "ipv4:11.0.0.0:1", "unix:", "nonsense"],
)
def test_header_of_an_unlisted_machine_is_ignored(connection: str) -> None:
    alone = LISTED.address(connection, [])
    assert LISTED.address(connection, ["203.0.113.9"]) == alone
    assert LISTED.address(connection, ["203.0.113.9, 10.9.9.9"]) == alone


@pytest.mark.parametrize("connection", ["unix:", "unix:/run/accord.sock"])
def test_header_is_trusted_through_a_unix_socket_if_it_is_listed(connection: str) -> None:
    addresses = ClientAddresses([ip_network("10.0.0.0/8")], unix=True)
    assert addresses.address(connection, ["203.0.113.9, 10.9.9.9"]) == "203.0.113.9"
    assert addresses.address(connection, ["nonsense"]) == connection
    assert addresses.address("ipv4:198.51.100.7:1", ["203.0.113.9"]) == "198.51.100.7"


def test_connection_from_an_ipv4_mapped_address_matches_the_listed_proxy() -> None:
    assert LISTED.address("ipv6:%5B::ffff:10.1.2.3%5D:1", ["203.0.113.9"]) == "203.0.113.9"


# --- calls ------------------------------------------------------------------------------------------------------------
StartGateway = Callable[..., Any]


@pytest.fixture
async def start_gateway(database: Database, listener: Listener) -> AsyncIterator[StartGateway]:
    """Starts gateways that listen on an address and trust the given proxies."""
    async with AsyncExitStack() as stack:

        async def start_gateway(*proxies: str, on: str = "127.0.0.1") -> ProbeClient:
            networks = [ip_network(proxy) for proxy in proxies]
            server, probe = build_probe_server(database, listener, rate_limiter("async+memory://"), networks, host=on)
            port = server.listen()
            await server.start()
            stack.push_async_callback(server.stop, None)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"{on}:{port}"))
            return ProbeClient(probe, channel, await signed_in_person(database))

        yield start_gateway


def forwarded(client: ProbeClient, *values: str) -> tuple[tuple[str, str], ...]:
    return (*client.person.headers, *(("x-forwarded-for", value) for value in values))


async def test_address_forwarded_by_a_listed_proxy_is_logged_and_audited(
    start_gateway: StartGateway, dsn: str, log: list[Any]
) -> None:
    client = await start_gateway("127.0.0.1/32")
    await client.call("Audited", headers=forwarded(client, "198.51.100.1", "203.0.113.9, 127.0.0.1"))
    assert [line["peer"] for line in log if line["event"] == "call"] == ["203.0.113.9"]
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT peer FROM audit_events").fetchall() == [("203.0.113.9",)]


async def test_forged_header_is_neither_logged_nor_used_for_limits(start_gateway: StartGateway, log: list[Any]) -> None:
    client = await start_gateway("10.0.0.0/8")
    for turn in range(3):
        await client.call("LimitedByPeer", headers=forwarded(client, f"203.0.113.{turn}"))
    for turn in range(10):
        await client.call("DurableByPeer", headers=forwarded(client, f"203.0.113.{turn}"))
    for method in ("LimitedByPeer", "DurableByPeer"):
        refused = await refusal(client.call(method, headers=forwarded(client, "203.0.113.99")))
        assert (refused.reason, refused.quota) == ("RATE_LIMITED", ["peer:127.0.0.1"])
    assert {line["peer"] for line in log if line["event"] == "call"} == {"127.0.0.1"}


async def test_callers_of_one_proxy_have_separate_limits(start_gateway: StartGateway) -> None:
    client = await start_gateway("127.0.0.0/8")
    for _ in range(3):
        await client.call("LimitedByPeer", headers=forwarded(client, "203.0.113.1"))
    assert (await refusal(client.call("LimitedByPeer", headers=forwarded(client, "203.0.113.1")))).quota == [
        "peer:203.0.113.1"
    ]
    assert await client.call("LimitedByPeer", text="x", headers=forwarded(client, "203.0.113.2")) == ["x"]


async def test_proxy_that_connects_by_ipv6_is_listed_by_ipv6(start_gateway: StartGateway, log: list[Any]) -> None:
    client = await start_gateway("::1/128", on="[::1]")
    await client.call("Unary", headers=forwarded(client, "2001:db8::7"))
    await client.call("Unary")
    assert [line["peer"] for line in log if line["event"] == "call"] == ["2001:db8::7", "::1"]


async def test_unknown_method_is_logged_with_the_forwarded_address(start_gateway: StartGateway, log: list[Any]) -> None:
    client = await start_gateway("127.0.0.1/32")
    call = client.channel.unary_unary("/no.such/Method", bytes, bytes)
    await refusal(call(b"", metadata=forwarded(client, "203.0.113.9")))
    assert log[-1]["peer"] == "203.0.113.9"
