"""Every method of the contract, called by every kind of caller: let in, or refused for the reason that the contract gives.

A new method is in it without a line here. `make matrix` shows it.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from accord.policy.v1.policy_pb2 import (
    ACCESS_ADMIN,
    ACCESS_PUBLIC,
    ACCESS_SERVICE,
    ACCESS_SIGNED_IN,
    CREDENTIAL_API_KEY,
    CREDENTIAL_SESSION,
    MethodPolicy,
)
from accord.policy.v1.policy_pb2 import PERMISSION_TASKS_READ as READ
from accord.policy.v1.policy_pb2 import PERMISSION_TASKS_WRITE as WRITE
from accord_auth.services import tokens
from accord_gateway.server.gateway import Gateway
from accord_gateway.settings import Settings
from tests.api.certificates import Authority, Files
from tests.api.conftest import read_refusal
from tests.api.matrix import (
    DENIED,
    INVALID,
    LET_IN,
    MISSING,
    STALE,
    Caller,
    Cell,
    Presented,
    every_method,
    expected,
    path_of,
    policy_of,
    table,
)
from tests.api.matrix_callers import Lines, all_callers
from tests.api.services import Service, token_of
from tests.api.world import World

pytestmark = pytest.mark.every_feature

# Half a tag: no message of any method. Access is decided before it is read, so whoever is let in is told that it is
# broken, and nothing has happened.
NO_MESSAGE: Final = b"\xff"
AT_A_TIME: Final = 32


NAME: Final = "billing"
IDENTITY: Final = "spiffe://acme.example/billing"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(Authority(), tmp_path)


@pytest.fixture
def gateway_settings(files: Files) -> Settings:
    """That asks everybody for a certificate."""
    return Settings(port=0, metrics_port=0, service_identities={IDENTITY: NAME}, **cast(Any, files.write()))


@pytest.fixture
async def lines(gateway: tuple[Gateway, str], files: Files, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lines]:
    async with (
        files.channel(gateway[1]) as plain,
        files.channel(gateway[1], IDENTITY) as known,
        files.channel(gateway[1], f"{IDENTITY}/x") as unknown,
    ):

        async def expired_token(service: Service) -> str:
            with monkeypatch.context() as patched:
                patched.setattr(tokens, "LIFETIME", timedelta(seconds=-1))
                return await token_of(plain, service)

        yield Lines(plain, known, unknown, NAME, expired_token)


async def test_every_method_lets_in_whom_the_contract_says_and_nobody_else(
    lines: Lines, world: World, log: list[Any], request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    columns, limit = await all_callers(world, lines), asyncio.Semaphore(AT_A_TIME)

    async def cell(method: MethodDescriptor, name: str) -> Cell:
        policy = policy_of(method)
        presented = columns[name](policy.permission)
        async with limit:
            return Cell(method, name, expected(policy, presented.caller), await got(lines, method, presented))

    methods = list(every_method())
    cells = await asyncio.gather(*(cell(method, name) for method in methods for name in columns))
    if request.config.getoption("--matrix"):
        with capsys.disabled():
            print("\n\n" + table(cells, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    assert len(cells) == len(methods) * len(columns)
    assert [str(cell) for cell in cells if cell.got != cell.wanted] == []
    # Each method was seen to let a caller in and, unless it is public, to refuse one; each reason was seen.
    assert {cell.method for cell in cells if cell.got == LET_IN} == set(methods)
    protected = {method for method in methods if policy_of(method).access != ACCESS_PUBLIC}
    assert protected
    assert {cell.method for cell in cells if cell.got == DENIED} == protected
    assert {cell.got for cell in cells} == {LET_IN, MISSING, INVALID, DENIED, STALE}


async def got(lines: Lines, method: MethodDescriptor, presented: Presented) -> str:
    channel = presented.channel or lines.plain
    call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path_of(method))
    try:
        async for _ in call(iter([NO_MESSAGE]), metadata=presented.headers):
            return "an answer"
        return "the end"
    except grpc.aio.AioRpcError as error:
        reason = read_refusal(error).reason
        return LET_IN if reason == "INVALID_MESSAGE" else reason


# --- what the matrix is measured by -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("policy", "caller", "outcome"),
    [
        (MethodPolicy(access=ACCESS_PUBLIC), Caller(good=False), LET_IN),
        (MethodPolicy(access=ACCESS_SIGNED_IN), Caller(credential=None), MISSING),
        (MethodPolicy(access=ACCESS_SIGNED_IN), Caller(good=False), INVALID),
        (MethodPolicy(access=ACCESS_SIGNED_IN), Caller(), LET_IN),
        (MethodPolicy(access=ACCESS_SIGNED_IN), Caller(service_for_itself=True), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN), Caller(credential=CREDENTIAL_API_KEY), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, credentials=[CREDENTIAL_API_KEY]), Caller(), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, permission=READ), Caller(permissions=frozenset({READ})), LET_IN),
        (MethodPolicy(access=ACCESS_SIGNED_IN, permission=READ), Caller(permissions=frozenset({WRITE})), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, permission=READ), Caller(organization=False), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, permission=READ, personal=True), Caller(organization=False), LET_IN),
        (MethodPolicy(access=ACCESS_SIGNED_IN, permission=READ, personal=True), Caller(), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, fresh=True), Caller(), LET_IN),
        (MethodPolicy(access=ACCESS_SIGNED_IN, fresh=True), Caller(recent=False), STALE),
        (MethodPolicy(access=ACCESS_SIGNED_IN, fresh=True), Caller(impersonated=True), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, in_person=True), Caller(impersonated=True), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, in_person=True), Caller(service_for_a_person=True), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, in_person=True), Caller(recent=False), LET_IN),
        (MethodPolicy(access=ACCESS_SIGNED_IN), Caller(recent=False, impersonated=True), LET_IN),
        (MethodPolicy(access=ACCESS_ADMIN), Caller(), DENIED),
        (MethodPolicy(access=ACCESS_ADMIN), Caller(administrator=True), LET_IN),
        (MethodPolicy(access=ACCESS_SERVICE, credentials=[CREDENTIAL_SESSION]), Caller(), DENIED),
        (MethodPolicy(access=ACCESS_SERVICE), Caller(service_for_itself=True), LET_IN),
    ],
)
def test_what_the_contract_says_is_read_as_it_is_meant(policy: MethodPolicy, caller: Caller, outcome: str) -> None:
    assert expected(policy, caller) == outcome


def test_the_table_marks_what_is_wrong() -> None:
    method = next(every_method())
    cells = [Cell(method, "owner", LET_IN, LET_IN), Cell(method, "nobody", MISSING, LET_IN)]
    shown = table(cells, colour=True)
    assert "\033[32;1m●\033[0m \033[41;97m!\033[0m" in shown
    assert "\033" not in table(cells, colour=False)
