"""Who may call each method, through the faces of browsers. tests/api/test_matrix.py holds gRPC against the whole table."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from accord_auth.services import tokens
from accord_gateway.server.gateway import Gateway
from accord_gateway.settings import Settings
from tests.api.conftest import Client
from tests.api.faces import FACES, Face, Result
from tests.api.matrix import (
    ACCEPTED,
    DENIED,
    INVALID,
    MISSING,
    NOT_FRESH,
    MatrixCaller,
    every_method,
    expected_result,
    path_of,
    policy_of,
)
from tests.api.matrix_callers import Channels, all_callers
from tests.api.services import Service, token_of
from tests.api.world import World

pytestmark = pytest.mark.every_feature

CONCURRENCY = 16
# The others differ from these in their encoding alone.
FACES_HERE = [face for face in FACES if face.name in ("connect json", "grpc-web", "rest")]


@pytest.fixture
def gateway_settings() -> Settings:
    return Settings(port=0, metrics_port=0, server="accord")


@pytest.fixture
async def channels(client: Client, monkeypatch: pytest.MonkeyPatch) -> Channels:
    """Without certificates, which a connection has, whatever its protocol."""

    async def expired_token(service: Service) -> str:
        with monkeypatch.context() as patched:
            patched.setattr(tokens, "LIFETIME", timedelta(seconds=-1))
            return await token_of(client.channel, service)

    return Channels(client.channel, client.channel, client.channel, "billing", expired_token)


def one_method_of_each_policy() -> Iterator[MethodDescriptor]:
    """By what decides access. The permission is one of them, but not which."""
    seen = set()
    for method in every_method():
        policy = policy_of(method)
        credentials = frozenset(policy.credentials)
        kind = (policy.access, bool(policy.permission), credentials, policy.fresh, policy.in_person, policy.personal)
        if kind not in seen:
            seen.add(kind)
            yield method


@pytest.mark.parametrize("face", FACES_HERE, ids=lambda face: face.name)
async def test_a_method_of_each_policy_accepts_exactly_its_callers(
    face: Face, gateway: tuple[Gateway, str], channels: Channels, world: World
) -> None:
    columns, limit = await all_callers(world, channels), asyncio.Semaphore(CONCURRENCY)
    methods, seen = list(one_method_of_each_policy()), set[str]()
    assert len(methods) > 8

    async def wrong(method: MethodDescriptor, name: str) -> tuple[str, str] | None:
        """The method and the caller with an unexpected result."""
        caller = columns[name](policy_of(method).permission)
        expected = expected_result(policy_of(method), caller.traits)
        if caller.channel is not None:
            return None
        async with limit:
            actual = await result_through(face, gateway[1], method, caller)
        seen.add(actual)
        return None if actual == expected else (method.full_name, f"{name}: {actual}, not {expected}")

    found = await asyncio.gather(*(wrong(method, name) for method in methods for name in columns))
    assert [each for each in found if each] == []
    assert seen == {ACCEPTED, MISSING, INVALID, DENIED, NOT_FRESH}


async def result_through(face: Face, address: str, method: MethodDescriptor, caller: MatrixCaller) -> str:
    sent = await face.send_unparsable(address, path_of(method), dict(caller.headers))
    _, status = face.read(sent, GetMessageClass(method.output_type), streams=False)
    reason = Result([], status, "", None).reason
    return ACCEPTED if reason == "INVALID_MESSAGE" else reason
