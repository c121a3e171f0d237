"""Every response of every route of REST that the OpenAPI document describes: success, and each of its errors.

`tests/api/documented.py` compares the responses with the document. `pytest --face rest tests/api` compares those of all tests of the
API, and lists the errors that no handler returned."""

from collections.abc import Callable, Iterator
from typing import Any, Final
from uuid import uuid4

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor

import accord_gateway.server.gateway as wiring
import accord_rpc.pipeline.rate_limits as rate_limits
from accord.app.v1 import reasons_pb2
from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import ACCESS_ADMIN, ACCESS_SERVICE
from accord.tasks.v1 import tasks_pb2
from accord_gateway.settings import Settings
from accord_rpc.errors import RpcError
from accord_rpc.policy import Method
from tests.api.documented import documented_reasons, operations, pipeline_reasons, produced
from tests.api.faces import REST, Ends
from tests.api.foreign import Owner, own_request
from tests.api.matrix import every_method, policy_of
from tests.api.routes import routes
from tests.api.services import new_service, token_of
from tests.api.test_hostile import NeverExhausted, Unlimited
from tests.api.world import World
from tests.factories import Headers, Person, bearer

BATCH_GET: Final = tasks_pb2.DESCRIPTOR.services_by_name["TaskService"].methods_by_name["BatchGetTasks"]
METHODS: Final = [method for method in every_method() if routes(method)]
# Its value is the reason that the handler of the test raises.
REASON: Final = "x-reason"


@pytest.fixture
def gateway_settings() -> Settings:
    return Settings(port=0, metrics_port=0, server="accord")


@pytest.fixture(autouse=True)
def no_rate_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "rate_limiter", lambda _: Unlimited())
    monkeypatch.setattr(rate_limits, "DurableLimit", NeverExhausted)


async def owner(world: World) -> Owner:
    organization = world.organization()
    return Owner(await world.member(organization, "owner"), organization)


async def headers_for(method: MethodDescriptor, me: Person, ends: Ends, world: World) -> Headers:
    """Of `me`, or of another caller if the method does not accept `me`."""
    match policy_of(method).access:
        case access if access == ACCESS_SERVICE:
            return bearer(await token_of(ends.channel, await new_service(world.database)))
        case access if access == ACCESS_ADMIN:
            administrator = await world.person()
            world.change_account(administrator, "role = 'administrator'")
            return administrator.headers
    return me.headers


# --- errors -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every handler raises the reason in a header."""
    before = set(produced)
    original: Callable[..., dict[Method, Any]] = wiring._contract_methods

    def methods(*arguments: Any) -> dict[Method, Any]:
        return {method: or_raise(handler) for method, handler in original(*arguments).items()}

    monkeypatch.setattr(wiring, "_contract_methods", methods)
    yield
    produced.intersection_update(before)  # they are not those of real handlers


def or_raise(handler: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(request: object, context: Any) -> Any:
        name = f"REASON_{dict(context.invocation_metadata()).get(REASON)}"
        if name == "REASON_None":
            return await handler(request, context)
        if name == "REASON_INTERNAL":
            raise ValueError
        kind = Reason if name in Reason.DESCRIPTOR.values_by_name else reasons_pb2.Reason
        raise RpcError(kind.Value(name), retry_after=2.5, task_id="7")

    return handle


@pytest.mark.every_feature
async def test_every_documented_error_of_every_route_arrives_as_documented(
    raising: None, ends: Ends, world: World, log: list[Any]
) -> None:
    """With its status, in the form of the schema, and with the headers that it needs."""
    me, expected = await owner(world), set[tuple[str, str]]()
    for method in METHODS:
        own, request = await headers_for(method, me.person, ends, world), await own_request(world, me, method)
        for found in routes(method):
            sent = REST.of_target(found.target(json_format.MessageToDict(request)))
            for reason in sorted({reason for _, reason in documented_reasons(found.operation)}):
                outcome = await REST.send(ends, method, sent, (*own, (REASON, reason)))
                assert outcome.reason == reason, (found.operation, outcome)
                expected.add((found.operation, reason))
    assert len(expected) > 10 * len(METHODS)
    assert expected <= produced


# --- success ----------------------------------------------------------------------------------------------------------
@pytest.mark.every_feature
async def test_every_route_responds_as_documented(ends: Ends, world: World, log: list[Any]) -> None:
    """A method that needs more than a message, such as a secret that was mailed or the current etag, returns one of its own errors.
    Tests of the feature call it with all it needs, and `--face=rest` compares those responses."""
    reasons: dict[str, str] = {}
    for method in METHODS:
        me = await owner(world)
        request = await own_request(world, me, method)
        outcome = await REST.call(ends, method, request, await headers_for(method, me.person, ends, world))
        reasons[method.full_name] = outcome.reason
    assert {name: reason for name, reason in reasons.items() if reason in pipeline_reasons()} == {}
    assert list(reasons.values()).count("OK") > len(METHODS) / 2


async def test_batch_that_is_too_long_for_a_url_has_a_route_of_its_own(ends: Ends, world: World) -> None:
    person = await world.person()
    request = tasks_pb2.BatchGetTasksRequest(task_ids=[str(uuid4()) for _ in range(400)])
    outcome = await REST.call(ends, BATCH_GET, request, person.headers)
    assert outcome.reason == "TASK_NOT_FOUND"
    assert ("TaskService_BatchGetTasks_2", "TASK_NOT_FOUND") in produced


def test_document_has_the_routes_of_the_contract() -> None:
    assert {found.operation for method in METHODS for found in routes(method)} == set(operations())
    assert len(METHODS) > 50
