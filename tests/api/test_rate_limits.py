"""Rate limits of policies: counted in the process, in Redis, or in the database, where the counts survive restarts."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple, cast
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from argon2 import PasswordHasher
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from psycopg import sql

from accord.accounts.v1.accounts_pb2 import CompleteSignInRequest, GetSessionRequest, SignInRequest
from accord.policy.v1.policy_pb2 import (
    ACCESS_ADMIN,
    ACCESS_PUBLIC,
    ACCESS_SERVICE,
    RATE_LIMIT_KEY_ACCOUNT,
    RATE_LIMIT_KEY_ACCOUNT_AND_PEER,
    RATE_LIMIT_KEY_CALLER,
    RATE_LIMIT_KEY_ORGANIZATION,
    RATE_LIMIT_KEY_PEER,
    RateLimitKey,
)
from accord_api.account_tokens import SECOND_STEP, issue
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_gateway.settings import Settings
from accord_rpc.pipeline.rate_limits import rate_limiter
from accord_rpc.policy import BY_ACCOUNT, names_account
from tests.api import requests
from tests.api.conftest import Client, Refusal, read_refusal, refusal
from tests.api.matrix import every_method, policy_of
from tests.api.probe import ProbeClient, build_probe_server, generated
from tests.api.services import new_service, token_of
from tests.api.world import World
from tests.conftest import WAITING, Connect, execute
from tests.factories import Headers, Person, api_key_of, bearer, organization_of, signed_in_person


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


@asynccontextmanager
async def sharing(
    redis: str, database: Database, listener: Listener, person: Person
) -> AsyncIterator[tuple[ProbeClient, ProbeClient]]:
    """Clients of two gateways that count in the same Redis."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(2):
            limiter = cast(Any, rate_limiter(redis))
            stack.push_async_callback(limiter.storage.bridge.storage.aclose)
            server, probe = build_probe_server(database, listener, limiter)
            port = server.listen()
            await server.start()
            stack.push_async_callback(server.stop, None)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
            clients.append(ProbeClient(probe, channel, person))
        first, second = clients
        yield first, second


async def test_gateways_that_share_a_redis_count_together(database: Database, listener: Listener, redis: str) -> None:
    async with sharing(redis, database, listener, await signed_in_person(database)) as (first, second):
        for client in (first, second, first):
            await client.call("Limited")
        refused = await refusal(second.call("Limited"))
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")


async def test_gateways_that_share_a_redis_count_the_calls_of_an_api_key_together(
    database: Database, listener: Listener, redis: str
) -> None:
    person = await signed_in_person(database)
    organization_id = await organization_of(database, person)
    key = await api_key_of(database, person, organization_id, calls_per_minute=3)
    other = await api_key_of(database, person, organization_id, calls_per_minute=3)
    async with sharing(redis, database, listener, person) as (first, second):
        await first.call("KeysOnly", headers=key.headers)
        await second.call("Watch", headers=key.headers)
        await first.call("ServerStream", headers=key.headers)
        refused = await refusal(second.call("KeysOnly", headers=key.headers))
        assert (refused.reason, refused.quota) == ("RATE_LIMITED", [f"api_key:{key.id}"])
        await second.call("KeysOnly", headers=other.headers)


# --- durable limits, counted in the database --------------------------------------------------------------------------
VICTIM = "victim@example.com"


@asynccontextmanager
async def gateway(database: Database, listener: Listener, person: Person, *proxies: str) -> AsyncIterator[ProbeClient]:
    """A client of a new gateway on the database."""
    networks = [ip_network(proxy) for proxy in proxies]
    server, probe = build_probe_server(database, listener, rate_limiter("async+memory://"), networks)
    port = server.listen()
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ProbeClient(probe, channel, person)
    await server.stop(None)


@pytest.fixture
async def proxied(database: Database, listener: Listener) -> AsyncIterator[ProbeClient]:
    """A client of a gateway that trusts proxies on this machine, so that a test can choose the address of the caller."""
    async with gateway(database, listener, await signed_in_person(database), "127.0.0.0/8") as client:
        yield client


def forwarded_for(address: str) -> tuple[tuple[str, str], ...]:
    return (("x-forwarded-for", address),)


async def guess(client: ProbeClient, act: str = "refuse", account: str = VICTIM, peer: str = "192.0.2.1") -> list[str]:
    messages, _ = generated()
    request = messages.GuessRequest(act=act, account=account, text="in")
    return await client.send("Guess", request, headers=forwarded_for(peer))


async def refused_guess(client: ProbeClient, act: str = "refuse", **target: str) -> Refusal:
    return await refusal(guess(client, act, **target))


def counts(dsn: str) -> list[int]:
    with psycopg.connect(dsn) as connection:
        return [count for (count,) in connection.execute("SELECT count FROM rate_limits ORDER BY count")]


async def test_durable_limit_by_caller_returns_the_retry_delay_and_does_not_limit_other_callers(
    probe: ProbeClient, database: Database
) -> None:
    for _ in range(3):
        await probe.call("Durable")
    refused = await refusal(probe.call("Durable"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert refused.retry_after is not None
    assert 0 < refused.retry_after <= 60
    assert refused.quota == [f"account:{probe.person.account_id}"]
    assert await probe.call("Durable", text="x", headers=(await signed_in_person(database)).headers) == ["x"]
    assert await probe.call("Unary", text="x") == ["x"]


async def test_durable_limit_holds_across_gateways_and_a_restart(
    connect: Connect, database: Database, listener: Listener
) -> None:
    person = await signed_in_person(database)
    async with (
        gateway(await connect(), listener, person) as first,
        gateway(await connect(), listener, person) as second,
    ):
        for client in (first, second, first):
            await client.call("Durable")
        assert (await refusal(second.call("Durable"))).reason == "RATE_LIMITED"
    async with gateway(await connect(), listener, person) as restarted:
        assert (await refusal(restarted.call("Durable"))).reason == "RATE_LIMITED"


async def test_exactly_ten_of_fifty_concurrent_calls_on_two_gateways_succeed(
    connect: Connect, database: Database, listener: Listener
) -> None:
    person = await signed_in_person(database)
    async with (
        gateway(await connect(), listener, person) as first,
        gateway(await connect(), listener, person) as second,
    ):
        calls = ((first, second)[each % 2].call("DurableByPeer", text="in") for each in range(50))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results.count(["in"]) == 10
        assert first.probe.entered + second.probe.entered == 10


async def test_method_can_have_limits_of_both_kinds(probe: ProbeClient, database: Database) -> None:
    for _ in range(2):
        await probe.call("LimitedTwice")
    assert (await refusal(probe.call("LimitedTwice"))).quota == [f"account:{probe.person.account_id}"]
    other = (await signed_in_person(database)).headers
    await probe.call("LimitedTwice", headers=other)
    assert (await refusal(probe.call("LimitedTwice", headers=other))).quota == ["peer:127.0.0.1"]


async def test_call_fails_if_its_durable_limit_cannot_be_counted(probe: ProbeClient, database: Database) -> None:
    await database.close()
    refused = await refusal(probe.call("DurableByPeer"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert probe.probe.entered == 0


async def test_call_is_counted_once_if_its_handler_is_retried(proxied: ProbeClient, dsn: str) -> None:
    assert (await refused_guess(proxied, "conflict always")).reason == "CONFLICT"
    assert proxied.probe.conflicts > 2
    assert counts(dsn) == [1, 1]


async def test_call_with_an_invalid_message_is_not_counted(probe: ProbeClient, dsn: str) -> None:
    assert (await refusal(probe.call("Durable", text="y" * 65))).reason == "INVALID_MESSAGE"
    assert counts(dsn) == []


# --- guesses ----------------------------------------------------------------------------------------------------------
async def test_guesses_of_one_address_at_one_account_are_limited(proxied: ProbeClient) -> None:
    for _ in range(3):
        assert (await refused_guess(proxied)).reason == "TASK_NOT_FOUND"
    refused = await refused_guess(proxied)
    assert (refused.reason, refused.quota) == ("RATE_LIMITED", ["account and peer:192.0.2.1"])
    assert (await refused_guess(proxied, account="other@example.com")).reason == "TASK_NOT_FOUND"
    assert await guess(proxied, "", peer="192.0.2.2") == ["in"]
    assert proxied.probe.entered == 5


async def test_guesses_from_changing_addresses_are_limited_by_the_account(proxied: ProbeClient) -> None:
    refusals = [await refused_guess(proxied, peer=f"192.0.2.{number}") for number in range(10)]
    assert [refused.reason for refused in refusals] == ["TASK_NOT_FOUND"] * 5 + ["RATE_LIMITED"] * 5
    assert refusals[-1].quota == ["account"]
    assert refusals[-1].retry_after is not None
    assert 60 < refusals[-1].retry_after <= 3600
    assert proxied.probe.entered == 5


async def test_limit_by_account_ignores_case(proxied: ProbeClient) -> None:
    for account in ("Victim@example.com", "VICTIM@EXAMPLE.COM", "victim@Example.com"):
        await refused_guess(proxied, account=account)
    assert (await refused_guess(proxied)).reason == "RATE_LIMITED"


async def test_ipv6_addresses_with_the_same_64_bit_prefix_share_a_limit(proxied: ProbeClient) -> None:
    for address in ("2001:db8:0:1::1", "2001:db8:0:1:2:3:4:5", "2001:db8:0:1:ffff:ffff:ffff:ffff"):
        assert (await refused_guess(proxied, peer=address)).reason == "TASK_NOT_FOUND"
    refused = await refused_guess(proxied, peer="2001:db8:0:1:a:b:c:d")
    assert refused.quota == ["account and peer:2001:db8:0:1::/64"]
    assert (await refused_guess(proxied, peer="2001:db8:0:2::1")).reason == "TASK_NOT_FOUND"


async def test_successful_call_is_not_counted(proxied: ProbeClient, dsn: str) -> None:
    await refused_guess(proxied)
    for _ in range(10):
        assert await guess(proxied, "") == ["in"]
    assert counts(dsn) == [1, 1]


async def test_call_in_progress_is_counted(proxied: ProbeClient) -> None:
    waiting = [asyncio.create_task(guess(proxied, "wait")) for _ in range(3)]
    while proxied.probe.entered < 3:
        await asyncio.sleep(0.005)
    assert (await refused_guess(proxied)).reason == "RATE_LIMITED"
    proxied.probe.go_on.set()
    assert await asyncio.gather(*waiting) == [["in"]] * 3
    assert (await refused_guess(proxied)).reason == "TASK_NOT_FOUND"


async def test_guess_that_is_cancelled_before_its_response_is_counted(proxied: ProbeClient, dsn: str) -> None:
    given_up = asyncio.create_task(guess(proxied, "sleep"))
    while not proxied.probe.entered:
        await asyncio.sleep(0.005)
    given_up.cancel()
    await proxied.probe.cancelled.wait()
    assert (await refused_guess(proxied, "sleep")).reason == "DEADLINE_EXCEEDED"
    assert counts(dsn) == [2, 2]


async def test_call_with_an_internal_error_is_counted_because_a_wrong_guess_could_cause_it(
    proxied: ProbeClient, dsn: str
) -> None:
    for act in ("raise", "refuse undeclared"):
        assert (await refused_guess(proxied, act)).reason == "INTERNAL"
    assert counts(dsn) == [2, 2]


async def test_call_that_fails_because_the_database_is_unavailable_is_not_counted(
    proxied: ProbeClient, dsn: str
) -> None:
    assert (await refused_guess(proxied, "have no database")).reason == "UNAVAILABLE"
    assert counts(dsn) == [0, 0]


async def test_refused_guesses_do_not_use_up_the_other_limits_of_the_account(proxied: ProbeClient) -> None:
    """Otherwise one address could lock all users out with calls that are refused anyway."""
    await asyncio.gather(*(refused_guess(proxied) for _ in range(50)))
    assert proxied.probe.entered == 3
    assert await guess(proxied, "", peer="192.0.2.2") == ["in"]


async def test_concurrently_refused_guesses_are_subtracted_from_the_other_limits(
    proxied: ProbeClient, dsn: str
) -> None:
    for _ in range(2):
        await refused_guess(proxied)
    with psycopg.connect(dsn) as connection:  # each of them passes the check, then waits for the lock
        connection.execute("SELECT FROM rate_limits FOR UPDATE")
        guesses = [asyncio.create_task(refused_guess(proxied)) for _ in range(3)]
        while connection.execute(f"SELECT FROM {WAITING}".encode()).rowcount != 3:
            await asyncio.sleep(0.005)
    refusals = await asyncio.gather(*guesses)
    assert sorted(refused.reason for refused in refusals) == ["RATE_LIMITED", "RATE_LIMITED", "TASK_NOT_FOUND"]
    assert counts(dsn) == [3, 3]


async def test_retry_delay_is_that_of_the_longest_exceeded_limit(proxied: ProbeClient) -> None:
    # Three accounts, because the hashes of their keys sort differently.
    for account in ("one@example.com", "two@example.com", "three@example.com"):
        for peer in ("192.0.2.1",) * 3 + ("192.0.2.2",) * 2:
            await refused_guess(proxied, account=account, peer=peer)
        refused = await refused_guess(proxied, account=account)
        assert refused.quota == ["account"]
        assert refused.retry_after is not None
        assert refused.retry_after > 60


async def test_rows_of_counts_contain_no_personal_data(proxied: ProbeClient, dsn: str) -> None:
    await refused_guess(proxied)
    await proxied.call("Durable", headers=proxied.person.headers)
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT key, encode(key, 'escape'), count, reset_at FROM rate_limits").fetchall()
    assert {len(key) for key, *_ in rows} == {32}
    assert len(rows) == 3
    for secret in (VICTIM, "example", "192.0.2.1", "127.0.0.1", str(proxied.person.account_id), "Guess"):
        assert secret not in repr(rows)


# --- accounts that a handler looks up ---------------------------------------------------------------------------------
async def token_guess(client: ProbeClient, account: UUID, act: str = "refuse") -> list[str]:
    return await client.call("GuessByToken", act, str(account), headers=())


async def test_account_that_the_handler_looks_up_is_limited(probe: ProbeClient) -> None:
    account = uuid4()
    for _ in range(3):
        assert (await refusal(token_guess(probe, account))).reason == "TASK_NOT_FOUND"
    refused = await refusal(token_guess(probe, account))
    assert (refused.reason, refused.quota) == ("RATE_LIMITED", ["account"])
    assert (await refusal(token_guess(probe, uuid4()))).reason == "TASK_NOT_FOUND"


async def test_account_that_the_handler_looks_up_is_counted_once_and_not_if_the_call_succeeds(
    probe: ProbeClient, dsn: str
) -> None:
    account = uuid4()
    assert await token_guess(probe, account, "conflict twice") == [str(account)]
    assert probe.probe.conflicts == 3
    assert counts(dsn) == [0, 1]
    assert (await refusal(token_guess(probe, account, "conflict always"))).reason == "CONFLICT"
    assert counts(dsn) == [1, 2]


async def test_success_of_a_handler_that_does_not_call_limit_account_is_an_internal_error(
    probe: ProbeClient, log: list[Any]
) -> None:
    assert (await refusal(token_guess(probe, uuid4(), "forget the limit"))).reason == "INTERNAL"
    assert "did not call limit_account()" in str(log[-1]["exc_info"])


async def test_limit_account_inside_a_transaction_is_an_internal_error(probe: ProbeClient, log: list[Any]) -> None:
    assert (await refusal(token_guess(probe, uuid4(), "in a transaction"))).reason == "INTERNAL"
    assert "its roll-back would undo the count" in str(log[-1]["exc_info"])


@pytest.mark.parametrize("method", ["Unary", "Durable"])
async def test_limit_account_in_a_method_without_a_limit_by_account_is_an_internal_error(
    probe: ProbeClient, method: str
) -> None:
    assert (await refusal(probe.call(method, "limit account"))).reason == "INTERNAL"


# --- the methods of the contract --------------------------------------------------------------------------------------
LIMITED = [method for method in every_method() if any(limit.durable for limit in policy_of(method).rate_limits)]


class PermittedCaller(NamedTuple):
    """A caller that may call a method."""

    account_id: UUID
    organization_id: UUID
    headers: Headers


async def permitted_caller(client: Client, world: World, method: MethodDescriptor) -> PermittedCaller:
    access, organization_id = policy_of(method).access, world.organization()
    if access == ACCESS_SERVICE:
        service = await new_service(client.database)
        return PermittedCaller(service.id, organization_id, bearer(await token_of(client.channel, service)))
    caller = await world.member(organization_id, "owner")
    if access == ACCESS_ADMIN:
        world.change_account(caller, "role = 'administrator'")
    return PermittedCaller(caller.account_id, organization_id, () if access == ACCESS_PUBLIC else caller.headers)


async def refusal_of_call(
    client: Client, method: MethodDescriptor, request: Message, headers: Headers
) -> Refusal | None:
    try:
        await requests.send(client.channel, method, request, headers)
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    return None


def quota(key: RateLimitKey.ValueType, caller: PermittedCaller) -> str:
    return {
        RATE_LIMIT_KEY_CALLER: f"account:{caller.account_id}",
        RATE_LIMIT_KEY_PEER: "peer:127.0.0.1",
        RATE_LIMIT_KEY_ACCOUNT: "account",
        RATE_LIMIT_KEY_ACCOUNT_AND_PEER: "account and peer:127.0.0.1",
        RATE_LIMIT_KEY_ORGANIZATION: f"organization:{caller.organization_id}",
    }[key]


@pytest.mark.parametrize("method", LIMITED, ids=[method.name for method in LIMITED])
async def test_every_durable_limit_of_the_contract_is_enforced(
    client: Client, world: World, dsn: str, method: MethodDescriptor
) -> None:
    """The first call inserts a row for each limit, whatever its result is. Then each limit is exceeded alone."""
    caller, request = await permitted_caller(client, world, method), requests.minimal_request(method)
    looked_up = not any(map(names_account, method.input_type.fields))  # the handler looks the account up
    declared = policy_of(method).rate_limits
    limits = [each for each in declared if each.durable and not (looked_up and each.key in BY_ACCOUNT)]
    execute(dsn, sql.SQL("DELETE FROM rate_limits"))
    first = await refusal_of_call(client, method, request, caller.headers)
    assert first is None or first.reason not in ("INVALID_MESSAGE", "RATE_LIMITED")
    with psycopg.connect(dsn, autocommit=True) as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM rate_limits")]
        exceeded = []
        for key in keys:
            connection.execute("UPDATE rate_limits SET count = CASE key WHEN %s THEN 1000000 ELSE 0 END", [key])
            refused = await refusal_of_call(client, method, request, caller.headers)
            assert refused is not None
            assert refused.reason == "RATE_LIMITED"
            exceeded += refused.quota
    assert sorted(exceeded) == sorted(quota(limit.key, caller) for limit in limits)


@pytest.fixture
async def victim(me: Person, dsn: str) -> Person:
    """A user with a session and a password."""
    password_hash = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("right password, long")
    execute(dsn, sql.SQL("UPDATE accounts SET password_hash = {}").format(password_hash))
    return me


async def refused_sign_in(client: Client, email: str, peer: str = "192.0.2.1") -> Refusal:
    request = SignInRequest(email=email, password="wrong password, long")
    return await refusal(client.accounts.SignIn(request, metadata=forwarded_for(peer)))


BEHIND_A_PROXY = Settings(port=0, metrics_port=0, trusted_proxies=(ip_network("127.0.0.1/32"),))


@pytest.mark.parametrize("gateway_settings", [BEHIND_A_PROXY])
async def test_guesses_of_a_password_from_changing_addresses_are_limited_to_a_hundred(
    client: Client, victim: Person
) -> None:
    refusals = [await refused_sign_in(client, victim.email, f"192.0.2.{number}") for number in range(101)]
    assert {refused.reason for refused in refusals[:100]} == {"SIGN_IN_REFUSED"}
    assert (refusals[100].reason, refusals[100].quota) == ("RATE_LIMITED", ["account"])
    await client.accounts.GetSession(GetSessionRequest(), metadata=victim.headers)


async def test_guesses_of_a_password_with_forged_addresses_are_limited_to_ten(client: Client, victim: Person) -> None:
    refusals = [await refused_sign_in(client, victim.email, f"192.0.2.{number}") for number in range(11)]
    assert [refused.reason for refused in refusals] == ["SIGN_IN_REFUSED"] * 10 + ["RATE_LIMITED"]
    assert refusals[10].quota == ["account and peer:127.0.0.1"]


async def test_user_whose_password_is_guessed_keeps_their_session(client: Client, victim: Person) -> None:
    refusals = [await refused_sign_in(client, victim.email) for _ in range(12)]
    assert [refused.reason for refused in refusals] == ["SIGN_IN_REFUSED"] * 10 + ["RATE_LIMITED"] * 2
    for _ in range(30):
        await client.accounts.GetSession(GetSessionRequest(), metadata=victim.headers)


@pytest.mark.parametrize("gateway_settings", [BEHIND_A_PROXY])
async def test_guesses_of_a_second_factor_from_changing_addresses_and_with_new_tokens_are_limited_to_ten(
    client: Client, me: Person
) -> None:
    refusals = []
    for number in range(11):
        async with client.database.transaction() as tx:
            token = await issue(tx, SECOND_STEP, account_id=me.account_id, email=me.email)
        request = CompleteSignInRequest(second_step_token=token, code="123456")
        refusals.append(
            await refusal(client.accounts.CompleteSignIn(request, metadata=forwarded_for(f"192.0.2.{number}")))
        )
    assert [refused.reason for refused in refusals] == ["CODE_WRONG"] * 10 + ["RATE_LIMITED"]
    assert refusals[10].quota == ["account"]


async def test_known_and_unknown_accounts_have_the_same_limits(client: Client, victim: Person, dsn: str) -> None:
    refusals: dict[str, list[Refusal]] = {}
    for email in (victim.email, "unknown@example.com"):
        refusals[email] = [await refused_sign_in(client, email) for _ in range(11)]
        execute(dsn, sql.SQL("DELETE FROM rate_limits"))
    known, unknown = refusals.values()
    assert known[:10] == unknown[:10]
    assert (known[10].message, known[10].metadata, known[10].quota) == (
        unknown[10].message,
        unknown[10].metadata,
        unknown[10].quota,
    )
    assert known[10].reason == "RATE_LIMITED"
