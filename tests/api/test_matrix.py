"""Calls every method of the contract as every kind of caller, and compares each result with the policy of the method.

Also through Connect, gRPC-Web and REST.

New methods are included. `make matrix` prints the table.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

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
from tests.api.faces import GRPC, Face
from tests.api.matrix import (
    ACCEPTED,
    DENIED,
    INVALID,
    MISSING,
    NOT_FRESH,
    PASSWORD_CHANGE,
    CallerTraits,
    Cell,
    MatrixCaller,
    every_method,
    expected_result,
    policy_of,
    table,
)
from tests.api.matrix_callers import Ways, all_callers
from tests.api.representatives import Faces, representatives, traits_of_policy
from tests.api.services import Service, token_of
from tests.api.world import World

pytestmark = pytest.mark.every_feature

CONCURRENCY: Final = 32
NAME: Final = "billing"
IDENTITY: Final = "spiffe://acme.example/billing"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(Authority(), tmp_path)


@pytest.fixture
def gateway_settings(files: Files, settings_of_every_face: Settings) -> Settings:
    """With a CA for client certificates, so that a client can send one."""
    certificates = {"service_identities": {IDENTITY: NAME}, **files.write()}
    return settings_of_every_face.model_copy(update=certificates)


@pytest.fixture
async def ways(gateway: tuple[Gateway, str], files: Files, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ways]:
    async with (
        files.ends(gateway[1]) as plain,
        files.ends(gateway[1], IDENTITY) as known,
        files.ends(gateway[1], f"{IDENTITY}/x") as unknown,
    ):

        async def expired_token(service: Service) -> str:
            with monkeypatch.context() as patched:
                patched.setattr(tokens, "LIFETIME", timedelta(seconds=-1))
                return await token_of(plain.channel, service)

        yield Ways(plain, known, unknown, NAME, expired_token)


async def test_every_method_accepts_exactly_the_callers_of_its_policy_through_every_face(
    ways: Ways,
    world: World,
    faces: Faces,
    log: list[Any],
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    columns, limit = await all_callers(world, ways), asyncio.Semaphore(CONCURRENCY)

    async def cell(face: Face, method: MethodDescriptor, name: str) -> Cell:
        policy = policy_of(method)
        caller = columns[name](policy.permission)
        async with limit:
            actual = await actual_result(ways, face, method, caller)
        return Cell(method, name, expected_result(policy, caller.traits), actual, face)

    methods = list(every_method())
    chosen = representatives(methods, traits_of_policy)
    tried = [(face, method) for method in methods for face in faces.of(method, chosen)]
    cells = await asyncio.gather(*(cell(face, method, name) for face, method in tried for name in columns))
    if request.config.getoption("--matrix"):
        over_grpc = [cell for cell in cells if cell.face is GRPC]
        with capsys.disabled():
            print("\n\n" + table(over_grpc, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    assert [str(cell) for cell in cells if cell.actual != cell.expected] == []
    assert {cell.face for cell in cells} == set(faces.every)
    for face in faces.every:
        assert_complete([cell for cell in cells if cell.face is face], methods if face is GRPC else chosen)


def assert_complete(cells: Sequence[Cell], methods: Iterable[MethodDescriptor]) -> None:
    """Each method accepted a caller and, unless it is public, denied one. Each reason occurred."""
    assert {cell.method for cell in cells if cell.actual == ACCEPTED} >= set(methods)
    protected = {method for method in methods if policy_of(method).access != ACCESS_PUBLIC}
    assert protected
    assert {cell.method for cell in cells if cell.actual == DENIED} >= protected
    assert {cell.actual for cell in cells} == {ACCEPTED, MISSING, INVALID, DENIED, NOT_FRESH, PASSWORD_CHANGE}


async def actual_result(ways: Ways, face: Face, method: MethodDescriptor, caller: MatrixCaller) -> str:
    """Access is decided before the message is read. An accepted call fails with INVALID_MESSAGE, and has no effect."""
    outcome = await face.send(caller.ends or ways.plain, method, face.unparsable(method), caller.headers)
    return ACCEPTED if outcome.reason == "INVALID_MESSAGE" else outcome.reason


def merged(*policies: MethodPolicy) -> MethodPolicy:
    result = MethodPolicy()
    for policy in policies:
        result.MergeFrom(policy)
    return result


KEYS = MethodPolicy(access=ACCESS_SIGNED_IN, permission=READ, credentials=[CREDENTIAL_API_KEY])
PERSONAL_KEY = CallerTraits(credential=CREDENTIAL_API_KEY, organization=False)


# --- the expected results ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("policy", "caller", "result"),
    [
        (MethodPolicy(access=ACCESS_PUBLIC), CallerTraits(valid=False), ACCEPTED),
        (MethodPolicy(access=ACCESS_SIGNED_IN), CallerTraits(credential=None), MISSING),
        (MethodPolicy(access=ACCESS_SIGNED_IN), CallerTraits(valid=False), INVALID),
        (MethodPolicy(access=ACCESS_SIGNED_IN), CallerTraits(), ACCEPTED),
        (MethodPolicy(access=ACCESS_SIGNED_IN), CallerTraits(service_for_itself=True), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN), CallerTraits(credential=CREDENTIAL_API_KEY), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, credentials=[CREDENTIAL_API_KEY]), CallerTraits(), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, permission=READ), CallerTraits(permissions=frozenset({READ})), ACCEPTED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, permission=READ), CallerTraits(permissions=frozenset({WRITE})), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, permission=READ), CallerTraits(organization=False), DENIED),
        (
            MethodPolicy(access=ACCESS_SIGNED_IN, permission=READ, personal=True),
            CallerTraits(organization=False),
            ACCEPTED,
        ),
        (MethodPolicy(access=ACCESS_SIGNED_IN, permission=READ, personal=True), CallerTraits(), DENIED),
        (KEYS, PERSONAL_KEY, DENIED),
        (KEYS, replace(PERSONAL_KEY, permissions=frozenset({READ})), DENIED),
        (merged(KEYS, MethodPolicy(personal=True)), PERSONAL_KEY, DENIED),
        (merged(KEYS, MethodPolicy(personal=True)), replace(PERSONAL_KEY, permissions=frozenset({READ})), ACCEPTED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, fresh=True), CallerTraits(), ACCEPTED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, fresh=True), CallerTraits(fresh=False), NOT_FRESH),
        (MethodPolicy(access=ACCESS_SIGNED_IN, fresh=True), CallerTraits(impersonated=True), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, in_person=True), CallerTraits(impersonated=True), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, in_person=True), CallerTraits(service_for_user=True), DENIED),
        (MethodPolicy(access=ACCESS_SIGNED_IN, in_person=True), CallerTraits(fresh=False), ACCEPTED),
        (MethodPolicy(access=ACCESS_SIGNED_IN), CallerTraits(fresh=False, impersonated=True), ACCEPTED),
        (MethodPolicy(access=ACCESS_SIGNED_IN), CallerTraits(password_change_required=True), PASSWORD_CHANGE),
        (MethodPolicy(access=ACCESS_ADMIN), CallerTraits(password_change_required=True), PASSWORD_CHANGE),
        (
            MethodPolicy(access=ACCESS_SIGNED_IN, before_password_change=True),
            CallerTraits(password_change_required=True),
            ACCEPTED,
        ),
        (MethodPolicy(access=ACCESS_ADMIN), CallerTraits(), DENIED),
        (MethodPolicy(access=ACCESS_ADMIN), CallerTraits(administrator=True), ACCEPTED),
        (MethodPolicy(access=ACCESS_SERVICE, credentials=[CREDENTIAL_SESSION]), CallerTraits(), DENIED),
        (MethodPolicy(access=ACCESS_SERVICE), CallerTraits(service_for_itself=True), ACCEPTED),
    ],
)
def test_expected_result_follows_from_the_policy(policy: MethodPolicy, caller: CallerTraits, result: str) -> None:
    assert expected_result(policy, caller) == result


def test_table_marks_unexpected_results() -> None:
    method = next(every_method())
    cells = [Cell(method, "owner", ACCEPTED, ACCEPTED), Cell(method, "no credential", MISSING, ACCEPTED)]
    shown = table(cells, colour=True)
    assert "\033[32;1m●\033[0m \033[41;97m!\033[0m" in shown
    assert "\033" not in table(cells, colour=False)
