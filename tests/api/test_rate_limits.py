"""Limits of policies: those of each process, of a Redis, and of the database, which no restart forgets."""

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
    """Two gateways."""
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


# --- counted in the database ------------------------------------------------------------------------------------------
VICTIM = "victim@example.com"


@asynccontextmanager
async def gateway(database: Database, listener: Listener, person: Person, *proxies: str) -> AsyncIterator[ProbeClient]:
    """One of several on the same database."""
    networks = [ip_network(proxy) for proxy in proxies]
    server, probe = build_probe_server(database, listener, rate_limiter("async+memory://"), networks)
    port = server.listen()
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ProbeClient(probe, channel, person)
    await server.stop(None)


@pytest.fixture
async def proxied(database: Database, listener: Listener) -> AsyncIterator[ProbeClient]:
    """Behind a proxy on this machine, so that a test says whose calls come through it."""
    async with gateway(database, listener, await signed_in_person(database), "127.0.0.0/8") as client:
        yield client


def by_way_of(address: str) -> tuple[tuple[str, str], ...]:
    return (("x-forwarded-for", address),)


async def guess(client: ProbeClient, act: str = "refuse", account: str = VICTIM, peer: str = "192.0.2.1") -> list[str]:
    messages, _ = generated()
    request = messages.GuessRequest(act=act, account=account, text="in")
    return await client.send("Guess", request, headers=by_way_of(peer))


async def refused_guess(client: ProbeClient, act: str = "refuse", **who: str) -> Refusal:
    return await refusal(guess(client, act, **who))


def counts(dsn: str) -> list[int]:
    with psycopg.connect(dsn) as connection:
        return [count for (count,) in connection.execute("SELECT count FROM rate_limits ORDER BY count")]


async def test_durable_limit_by_caller_refuses_with_the_time_to_wait_and_leaves_others_alone(
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


async def test_of_fifty_calls_at_once_on_two_gateways_exactly_ten_pass(
    connect: Connect, database: Database, listener: Listener
) -> None:
    person = await signed_in_person(database)
    async with (
        gateway(await connect(), listener, person) as first,
        gateway(await connect(), listener, person) as second,
    ):
        calls = ((first, second)[each % 2].call("DurableByPeer", text="in") for each in range(50))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert answers.count(["in"]) == 10
        assert first.probe.entered + second.probe.entered == 10


async def test_both_kinds_of_limit_hold_for_one_method(probe: ProbeClient, database: Database) -> None:
    for _ in range(2):
        await probe.call("LimitedTwice")
    assert (await refusal(probe.call("LimitedTwice"))).quota == [f"account:{probe.person.account_id}"]
    other = (await signed_in_person(database)).headers
    await probe.call("LimitedTwice", headers=other)
    assert (await refusal(probe.call("LimitedTwice", headers=other))).quota == ["peer:127.0.0.1"]


async def test_durable_limit_that_cannot_be_counted_refuses(probe: ProbeClient, database: Database) -> None:
    await database.close()
    refused = await refusal(probe.call("DurableByPeer"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert probe.probe.entered == 0


async def test_call_is_counted_once_however_often_its_handler_runs(proxied: ProbeClient, dsn: str) -> None:
    assert (await refused_guess(proxied, "conflict always")).reason == "CONFLICT"
    assert proxied.probe.conflicts > 2
    assert counts(dsn) == [1, 1]


async def test_message_that_breaks_the_contract_does_not_count(probe: ProbeClient, dsn: str) -> None:
    assert (await refusal(probe.call("Durable", text="y" * 65))).reason == "INVALID_MESSAGE"
    assert counts(dsn) == []


# --- guesses ----------------------------------------------------------------------------------------------------------
async def test_guesses_of_one_address_at_one_account_are_limited(proxied: ProbeClient) -> None:
    for _ in range(3):
        assert (await refused_guess(proxied)).reason == "TASK_NOT_FOUND"
    refused = await refused_guess(proxied)
    assert (refused.reason, refused.quota) == ("RATE_LIMITED", ["account and peer:192.0.2.1"])
    assert (await refused_guess(proxied, account="somebody.else@example.com")).reason == "TASK_NOT_FOUND"
    assert await guess(proxied, "", peer="192.0.2.2") == ["in"]
    assert proxied.probe.entered == 5


async def test_guesser_who_changes_addresses_is_limited_by_the_account(proxied: ProbeClient) -> None:
    answers = [await refused_guess(proxied, peer=f"192.0.2.{turn}") for turn in range(10)]
    assert [answer.reason for answer in answers] == ["TASK_NOT_FOUND"] * 5 + ["RATE_LIMITED"] * 5
    assert answers[-1].quota == ["account"]
    assert answers[-1].retry_after is not None
    assert 60 < answers[-1].retry_after <= 3600
    assert proxied.probe.entered == 5


async def test_account_is_the_same_in_upper_and_lower_case(proxied: ProbeClient) -> None:
    for account in ("Victim@example.com", "VICTIM@EXAMPLE.COM", "victim@Example.com"):
        await refused_guess(proxied, account=account)
    assert (await refused_guess(proxied)).reason == "RATE_LIMITED"


async def test_addresses_of_one_ipv6_customer_are_one(proxied: ProbeClient) -> None:
    for address in ("2001:db8:0:1::1", "2001:db8:0:1:2:3:4:5", "2001:db8:0:1:ffff:ffff:ffff:ffff"):
        assert (await refused_guess(proxied, peer=address)).reason == "TASK_NOT_FOUND"
    refused = await refused_guess(proxied, peer="2001:db8:0:1:a:b:c:d")
    assert refused.quota == ["account and peer:2001:db8:0:1::/64"]
    assert (await refused_guess(proxied, peer="2001:db8:0:2::1")).reason == "TASK_NOT_FOUND"


async def test_call_that_succeeds_is_taken_back(proxied: ProbeClient, dsn: str) -> None:
    await refused_guess(proxied)
    for _ in range(10):
        assert await guess(proxied, "") == ["in"]
    assert counts(dsn) == [1, 1]


async def test_call_under_way_counts(proxied: ProbeClient) -> None:
    waiting = [asyncio.create_task(guess(proxied, "wait")) for _ in range(3)]
    while proxied.probe.entered < 3:
        await asyncio.sleep(0.005)
    assert (await refused_guess(proxied)).reason == "RATE_LIMITED"
    proxied.probe.go_on.set()
    assert await asyncio.gather(*waiting) == [["in"]] * 3
    assert (await refused_guess(proxied)).reason == "TASK_NOT_FOUND"


async def test_guess_that_is_given_up_before_its_answer_counts(proxied: ProbeClient, dsn: str) -> None:
    given_up = asyncio.create_task(guess(proxied, "sleep"))
    while not proxied.probe.entered:
        await asyncio.sleep(0.005)
    given_up.cancel()
    await proxied.probe.cancelled.wait()
    assert (await refused_guess(proxied, "sleep")).reason == "DEADLINE_EXCEEDED"
    assert counts(dsn) == [2, 2]


async def test_fault_of_ours_counts_since_a_wrong_guess_could_bring_it_about(proxied: ProbeClient, dsn: str) -> None:
    for act in ("raise", "refuse undeclared"):
        assert (await refused_guess(proxied, act)).reason == "INTERNAL"
    assert counts(dsn) == [2, 2]


async def test_call_that_the_database_was_not_there_for_is_taken_back(proxied: ProbeClient, dsn: str) -> None:
    assert (await refused_guess(proxied, "have no database")).reason == "UNAVAILABLE"
    assert counts(dsn) == [0, 0]


async def test_refused_guesses_do_not_use_up_the_other_limits_of_the_victim(proxied: ProbeClient) -> None:
    """Or else one address could lock out everybody, with calls that try nothing."""
    await asyncio.gather(*(refused_guess(proxied) for _ in range(50)))
    assert proxied.probe.entered == 3
    assert await guess(proxied, "", peer="192.0.2.2") == ["in"]


async def test_guesses_that_are_refused_at_the_same_moment_are_taken_back_from_the_other_limits(
    proxied: ProbeClient, dsn: str
) -> None:
    for _ in range(2):
        await refused_guess(proxied)
    with psycopg.connect(dsn) as connection:  # they all see room for one more, and wait for each other
        connection.execute("SELECT FROM rate_limits FOR UPDATE")
        guesses = [asyncio.create_task(refused_guess(proxied)) for _ in range(3)]
        while connection.execute(f"SELECT FROM {WAITING}".encode()).rowcount != 3:
            await asyncio.sleep(0.005)
    answers = await asyncio.gather(*guesses)
    assert sorted(answer.reason for answer in answers) == ["RATE_LIMITED", "RATE_LIMITED", "TASK_NOT_FOUND"]
    assert counts(dsn) == [3, 3]


async def test_wait_is_told_for_the_limit_that_lasts_longest(proxied: ProbeClient) -> None:
    for account in ("one@example.com", "two@example.com", "three@example.com"):  # whose keys are in any order
        for peer in ("192.0.2.1",) * 3 + ("192.0.2.2",) * 2:
            await refused_guess(proxied, account=account, peer=peer)
        refused = await refused_guess(proxied, account=account)
        assert refused.quota == ["account"]
        assert refused.retry_after is not None
        assert refused.retry_after > 60


async def test_rows_of_counts_name_nobody(proxied: ProbeClient, dsn: str) -> None:
    await refused_guess(proxied)
    await proxied.call("Durable", headers=proxied.person.headers)
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT key, encode(key, 'escape'), count, reset_at FROM rate_limits").fetchall()
    assert {len(key) for key, *_ in rows} == {32}
    assert len(rows) == 3
    for secret in (VICTIM, "example", "192.0.2.1", "127.0.0.1", str(proxied.person.account_id), "Guess"):
        assert secret not in repr(rows)


# --- accounts that a handler finds ------------------------------------------------------------------------------------
async def token_guess(client: ProbeClient, account: UUID, act: str = "refuse") -> list[str]:
    return await client.call("GuessByToken", act, str(account), headers=())


async def test_account_that_the_handler_finds_is_limited(probe: ProbeClient) -> None:
    account = uuid4()
    for _ in range(3):
        assert (await refusal(token_guess(probe, account))).reason == "TASK_NOT_FOUND"
    refused = await refusal(token_guess(probe, account))
    assert (refused.reason, refused.quota) == ("RATE_LIMITED", ["account"])
    assert (await refusal(token_guess(probe, uuid4()))).reason == "TASK_NOT_FOUND"


async def test_account_that_the_handler_finds_is_counted_once_and_taken_back(probe: ProbeClient, dsn: str) -> None:
    account = uuid4()
    assert await token_guess(probe, account, "conflict twice") == [str(account)]
    assert probe.probe.conflicts == 3
    assert counts(dsn) == [0, 1]
    assert (await refusal(token_guess(probe, account, "conflict always"))).reason == "CONFLICT"
    assert counts(dsn) == [1, 2]


async def test_success_of_a_handler_that_forgot_the_limit_is_a_fault_of_ours(
    probe: ProbeClient, log: list[Any]
) -> None:
    assert (await refusal(token_guess(probe, uuid4(), "forget the limit"))).reason == "INTERNAL"
    assert "did not call limit_account()" in str(log[-1]["exc_info"])


async def test_limit_that_a_roll_back_would_undo_is_a_fault_of_ours(probe: ProbeClient, log: list[Any]) -> None:
    assert (await refusal(token_guess(probe, uuid4(), "in a transaction"))).reason == "INTERNAL"
    assert "its roll-back would undo the count" in str(log[-1]["exc_info"])


@pytest.mark.parametrize("method", ["Unary", "Durable"])
async def test_limit_account_in_a_method_without_such_a_limit_is_a_fault_of_ours(
    probe: ProbeClient, method: str
) -> None:
    assert (await refusal(probe.call(method, "limit account"))).reason == "INTERNAL"


# --- the methods of the contract --------------------------------------------------------------------------------------
LIMITED = [method for method in every_method() if any(limit.durable for limit in policy_of(method).rate_limits)]


class Tried(NamedTuple):
    """Who calls, in the name of which organization, with which headers."""

    account_id: UUID
    organization_id: UUID
    headers: Headers


async def somebody_who_may(client: Client, world: World, method: MethodDescriptor) -> Tried:
    access, organization_id = policy_of(method).access, world.organization()
    if access == ACCESS_SERVICE:
        service = await new_service(client.database)
        return Tried(service.id, organization_id, bearer(await token_of(client.channel, service)))
    me = await world.member(organization_id, "owner")
    if access == ACCESS_ADMIN:
        world.change_account(me, "role = 'administrator'")
    return Tried(me.account_id, organization_id, () if access == ACCESS_PUBLIC else me.headers)


async def called(client: Client, method: MethodDescriptor, request: Message, headers: Headers) -> Refusal | None:
    try:
        await requests.send(client.channel, method, request, headers)
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    return None


def quota(key: RateLimitKey.ValueType, me: Tried) -> str:
    return {
        RATE_LIMIT_KEY_CALLER: f"account:{me.account_id}",
        RATE_LIMIT_KEY_PEER: "peer:127.0.0.1",
        RATE_LIMIT_KEY_ACCOUNT: "account",
        RATE_LIMIT_KEY_ACCOUNT_AND_PEER: "account and peer:127.0.0.1",
        RATE_LIMIT_KEY_ORGANIZATION: f"organization:{me.organization_id}",
    }[key]


@pytest.mark.parametrize("method", LIMITED, ids=[method.name for method in LIMITED])
async def test_every_durable_limit_of_the_contract_is_enforced(
    client: Client, world: World, dsn: str, method: MethodDescriptor
) -> None:
    """Whatever the handler answers: the first call makes a row for each limit, and each of them alone can refuse."""
    me, request = await somebody_who_may(client, world, method), requests.least(method)
    waiting = not any(map(names_account, method.input_type.fields))  # for what the handler finds
    declared = policy_of(method).rate_limits
    limits = [each for each in declared if each.durable and not (waiting and each.key in BY_ACCOUNT)]
    execute(dsn, sql.SQL("DELETE FROM rate_limits"))
    first = await called(client, method, request, me.headers)
    assert first is None or first.reason not in ("INVALID_MESSAGE", "RATE_LIMITED")
    with psycopg.connect(dsn, autocommit=True) as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM rate_limits")]
        told = []
        for key in keys:
            connection.execute("UPDATE rate_limits SET count = CASE key WHEN %s THEN 1000000 ELSE 0 END", [key])
            refused = await called(client, method, request, me.headers)
            assert refused is not None
            assert refused.reason == "RATE_LIMITED"
            told += refused.quota
    assert sorted(told) == sorted(quota(limit.key, me) for limit in limits)


@pytest.fixture
async def victim(me: Person, dsn: str) -> Person:
    """Somebody who is signed in, and has a password."""
    password_hash = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("right password, long")
    execute(dsn, sql.SQL("UPDATE accounts SET password_hash = {}").format(password_hash))
    return me


async def refused_sign_in(client: Client, email: str, peer: str = "192.0.2.1") -> Refusal:
    request = SignInRequest(email=email, password="wrong password, long")
    return await refusal(client.accounts.SignIn(request, metadata=by_way_of(peer)))


BEHIND_A_PROXY = Settings(port=0, metrics_port=0, trusted_proxies=(ip_network("127.0.0.1/32"),))


@pytest.mark.parametrize("gateway_settings", [BEHIND_A_PROXY])
async def test_guesser_of_a_password_who_changes_addresses_is_stopped_after_a_hundred(
    client: Client, victim: Person
) -> None:
    answers = [await refused_sign_in(client, victim.email, f"192.0.2.{turn}") for turn in range(101)]
    assert {answer.reason for answer in answers[:100]} == {"SIGN_IN_REFUSED"}
    assert (answers[100].reason, answers[100].quota) == ("RATE_LIMITED", ["account"])
    await client.accounts.GetSession(GetSessionRequest(), metadata=victim.headers)


async def test_guesser_of_a_password_who_makes_up_addresses_is_stopped_after_ten(
    client: Client, victim: Person
) -> None:
    answers = [await refused_sign_in(client, victim.email, f"192.0.2.{turn}") for turn in range(11)]
    assert [answer.reason for answer in answers] == ["SIGN_IN_REFUSED"] * 10 + ["RATE_LIMITED"]
    assert answers[10].quota == ["account and peer:127.0.0.1"]


async def test_victim_of_guessing_keeps_the_session_they_hold(client: Client, victim: Person) -> None:
    answers = [await refused_sign_in(client, victim.email) for _ in range(12)]
    assert [answer.reason for answer in answers] == ["SIGN_IN_REFUSED"] * 10 + ["RATE_LIMITED"] * 2
    for _ in range(30):
        await client.accounts.GetSession(GetSessionRequest(), metadata=victim.headers)


@pytest.mark.parametrize("gateway_settings", [BEHIND_A_PROXY])
async def test_guesser_of_a_second_factor_who_changes_addresses_and_tokens_is_stopped_after_ten(
    client: Client, me: Person
) -> None:
    answers = []
    for turn in range(11):
        async with client.database.transaction() as tx:
            token = await issue(tx, SECOND_STEP, account_id=me.account_id, email=me.email)
        request = CompleteSignInRequest(second_step_token=token, code="123456")
        answers.append(await refusal(client.accounts.CompleteSignIn(request, metadata=by_way_of(f"192.0.2.{turn}"))))
    assert [answer.reason for answer in answers] == ["CODE_WRONG"] * 10 + ["RATE_LIMITED"]
    assert answers[10].quota == ["account"]


async def test_known_and_unknown_accounts_are_limited_alike(client: Client, victim: Person, dsn: str) -> None:
    answers: dict[str, list[Refusal]] = {}
    for email in (victim.email, "nobody@example.com"):
        answers[email] = [await refused_sign_in(client, email) for _ in range(11)]
        execute(dsn, sql.SQL("DELETE FROM rate_limits"))
    known, unknown = answers.values()
    assert known[:10] == unknown[:10]
    assert (known[10].message, known[10].metadata, known[10].quota) == (
        unknown[10].message,
        unknown[10].metadata,
        unknown[10].quota,
    )
    assert known[10].reason == "RATE_LIMITED"
