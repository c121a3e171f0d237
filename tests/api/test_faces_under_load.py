"""A gateway that is full or drains, and deadlines, through every face."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import pytest
from grpc_health.v1 import health_pb2

from accord.tasks.v1 import tasks_pb2
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_gateway.server.gateway import Gateway
from accord_gateway.settings import Settings
from accord_rpc.pipeline.concurrency import Slot
from accord_rpc.pipeline.rate_limits import rate_limiter
from tests.api import probe as probes
from tests.api.faces import FACES, GRPC, REST, Connect, Ends, Face, Outcome, ends_of
from tests.factories import Headers, Person, signed_in_person

LIST = tasks_pb2.DESCRIPTOR.services_by_name["TaskService"].methods_by_name["ListTasks"]
CHECK = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]
SLOTS = 2

each_face = pytest.mark.parametrize("face", FACES, ids=str)


@pytest.fixture
def gateway_settings() -> Settings:
    return Settings(port=0, metrics_port=0, server="accord", max_concurrent_calls=SLOTS)


async def list_tasks(face: Face, ends: Ends, who: Person) -> Outcome:
    return await face.call(ends, LIST, tasks_pb2.ListTasksRequest(), who.headers)


async def is_healthy(face: Face, ends: Ends) -> bool:
    """By the health service; REST has a page instead."""
    if face is REST:
        return {(await ends.http.fetch("GET", page)).status for page in ("/healthz", "/readyz")} == {200}
    checked = await face.call(ends, CHECK, health_pb2.HealthCheckRequest())
    return bool(checked.message.status == health_pb2.HealthCheckResponse.SERVING)


def http_status(outcome: Outcome) -> int | None:
    return outcome.response.status if outcome.response else None


@each_face
async def test_full_gateway_refuses_calls_at_once_except_health_checks(
    face: Face, ends: Ends, gateway: tuple[Gateway, str], me: Person
) -> None:
    gateway[0].health.set_serving(True)
    taken = [Slot(gateway[0].slots) for _ in range(SLOTS)]
    for slot in taken:
        slot.take()
    full = await list_tasks(face, ends, me)
    assert (full.code, full.reason, full.retry_after) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED", 1)
    if face is REST or isinstance(face, Connect):
        assert full.response is not None
        assert (full.response.status, full.response.header("retry-after")) == (429, "1")
    assert await is_healthy(face, ends)
    for slot in taken:
        slot.free()
    assert (await list_tasks(face, ends, me)).code == "OK"


@each_face
async def test_draining_gateway_refuses_calls_as_retryable_except_health_checks(
    face: Face, ends: Ends, gateway: tuple[Gateway, str], me: Person
) -> None:
    gateway[0].health.set_serving(True)
    gateway[0].routes.draining = True
    drained = await list_tasks(face, ends, me)
    assert (drained.code, drained.reason, drained.retry_after) == ("UNAVAILABLE", "UNAVAILABLE", 1)
    if face is REST or isinstance(face, Connect):
        assert drained.response is not None
        assert (drained.response.status, drained.response.header("retry-after")) == (503, "1")
    assert await is_healthy(face, ends)


# --- deadlines: the probe has a slow handler --------------------------------------------------------------------------
Probed = tuple[Ends, probes.Probe, Headers]


@pytest.fixture
async def probe(database: Database, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Probed]:
    monkeypatch.setattr(probes, "Settings", partial(Settings, server="accord"))
    server, handlers = probes.build_probe_server(database, listener, rate_limiter("async+memory://"))
    port = server.listen()
    await server.start()
    async with ends_of(f"127.0.0.1:{port}") as ends:
        yield ends, handlers, (await signed_in_person(database)).headers
    await server.stop(None)


def deadline(face: Face, milliseconds: int) -> Headers:
    if isinstance(face, Connect):
        return (("connect-timeout-ms", str(milliseconds)),)
    return (("grpc-timeout", f"{milliseconds}m"),)


@each_face
@pytest.mark.parametrize("method", ["Unary", "ServerStream"])
async def test_deadline_of_the_client_ends_the_call_and_its_handler(face: Face, probe: Probed, method: str) -> None:
    ends, handlers, own = probe
    messages, _ = probes.generated()
    descriptor = messages.DESCRIPTOR.services_by_name["ProbeService"].methods_by_name[method]
    request = messages.ProbeRequest(act="sleep", text="a")
    ended = await face.call(ends, descriptor, request, (*own, *deadline(face, 100)))
    assert ended.code == "DEADLINE_EXCEEDED"
    assert [cast(Any, each).text for each in ended.messages] == ([] if method == "Unary" else ["a"] * 3)
    await handlers.cancelled.wait()
    if face is not GRPC:  # grpcio's client ends the call itself
        assert ended.reason == "DEADLINE_EXCEEDED"
    if method == "Unary" and (face is REST or isinstance(face, Connect)):
        assert http_status(ended) == 504


async def test_deadline_of_the_policy_ends_a_call_without_one(probe: Probed) -> None:
    ends, handlers, own = probe
    messages, _ = probes.generated()
    descriptor = messages.DESCRIPTOR.services_by_name["ProbeService"].methods_by_name["Unary"]
    request = messages.ProbeRequest(act="sleep")
    for ended in await asyncio.gather(*(face.call(ends, descriptor, request, own) for face in FACES)):
        assert (ended.code, ended.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    assert handlers.entered == len(FACES)
