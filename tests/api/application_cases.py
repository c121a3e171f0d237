"""Tests that test_application.py runs with a contract that has a reason and a permission of an application."""

import importlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

import policies
from accord.api_keys.v1.api_keys_pb2 import ApiKey, CreateApiKeyRequest, UpdateApiKeyRequest
from accord.api_keys.v1.api_keys_pb2_grpc import ApiKeyServiceStub
from accord.app.v1 import permissions_pb2, reasons_pb2
from accord.policy.v1.policy_pb2 import PERMISSION_TASKS_READ, PERMISSION_TASKS_WRITE
from accord.roles.v1.roles_pb2 import CreateRoleRequest, GetMyPermissionsRequest, Role, UpdateRoleRequest
from accord.roles.v1.roles_pb2_grpc import RoleServiceStub
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_rpc.contract import Registry
from accord_rpc.errors import RpcError
from accord_rpc.pipeline.rate_limits import rate_limiter
from tests.api.conftest import Client, outcome, refusal
from tests.api.probe import build_pipeline_server
from tests.api.world import World
from tests.factories import Headers, Person

if TYPE_CHECKING:
    from accord.api_keys.v1.api_keys_pb2_grpc import ApiKeyServiceAsyncStub
    from accord.roles.v1.roles_pb2_grpc import RoleServiceAsyncStub

LAUNCH = permissions_pb2.Permission.Value("PERMISSION_PROBES_LAUNCH")
NOT_READY = reasons_pb2.Reason.Value("REASON_PROBE_NOT_READY")
LOST = reasons_pb2.Reason.Value("REASON_PROBE_LOST")
messages: Any = importlib.import_module("probe.v1.application_pb2")
stubs: Any = importlib.import_module("probe.v1.application_pb2_grpc")


class ApplicationService(stubs.ApplicationServiceServicer):  # type: ignore[misc]  # generated for this run
    async def Launch(self, request: Any, context: object) -> Any:
        if request.reason:
            raise RpcError({"not ready": NOT_READY, "lost": LOST}[request.reason], probe_id="7")
        return messages.LaunchResponse()


class Launcher:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = stubs.ApplicationServiceStub(channel)

    def __call__(self, headers: Headers, reason: str = "") -> Any:
        return self._stub.Launch(messages.LaunchRequest(reason=reason), metadata=headers)


@pytest.fixture
async def launch(database: Database, dsn: str) -> AsyncIterator[Launcher]:
    registry, listener = Registry([ApplicationService()]), Listener(dsn)
    services = [messages.DESCRIPTOR.services_by_name["ApplicationService"]]
    server = build_pipeline_server(database, listener, rate_limiter("async+memory://"), services, registry)
    port = server.listen()
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Launcher(channel)
    await server.stop(None)
    await listener.close()


@pytest.fixture
def organization(world: World) -> UUID:
    return world.organization()


@pytest.fixture
async def owner(world: World, organization: UUID) -> Person:
    return await world.member(organization, "owner")


@pytest.fixture
def roles(client: Client) -> "RoleServiceAsyncStub":
    return RoleServiceStub(client.channel)


@pytest.fixture
def keys(client: Client) -> "ApiKeyServiceAsyncStub":
    return ApiKeyServiceStub(client.channel)


async def test_reason_is_returned_and_logged_by_name(launch: Launcher, owner: Person, log: list[Any]) -> None:
    await launch(owner.headers)
    refused = await refusal(launch(owner.headers, "not ready"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROBE_NOT_READY")
    assert refused.message == "The probe is not ready. Try again when it is."
    assert refused.metadata == {"probe_id": "7"}
    assert [line["reason"] for line in log if line.get("method") and "reason" in line] == ["PROBE_NOT_READY"]


async def test_undeclared_reason_is_an_internal_error(launch: Launcher, owner: Person) -> None:
    refused = await refusal(launch(owner.headers, "lost"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")


async def test_built_in_roles_have_the_permission_that_the_contract_declares(
    launch: Launcher, roles: "RoleServiceAsyncStub", world: World, organization: UUID
) -> None:
    for role, held in (("owner", True), ("admin", True), ("member", False)):
        person = await world.member(organization, role)
        mine = await roles.GetMyPermissions(GetMyPermissionsRequest(), metadata=person.headers)
        assert list(mine.app_permissions) == [LAUNCH] * held
        assert all(permission < 1000 for permission in mine.permissions)
        assert await outcome(launch(person.headers)) == ("OK" if held else "PERMISSION_DENIED")


async def test_custom_role_grants_the_permission(
    launch: Launcher, roles: "RoleServiceAsyncStub", world: World, organization: UUID, owner: Person
) -> None:
    request = CreateRoleRequest(name="Pilot", permissions=[PERMISSION_TASKS_READ], app_permissions=[LAUNCH])
    role = (await roles.CreateRole(request, metadata=owner.headers)).role
    assert (list(role.permissions), list(role.app_permissions)) == ([PERMISSION_TASKS_READ], [LAUNCH])
    world.write("UPDATE roles SET name = 'Flight' WHERE permissions = '{tasks.read,probes.launch}'")
    pilot = await world.member(organization, "member")
    assert await outcome(launch(pilot.headers)) == "PERMISSION_DENIED"
    world.give(pilot, organization, UUID(role.id))
    assert await outcome(launch(pilot.headers)) == "OK"


async def test_update_of_one_list_of_a_role_keeps_the_other(
    roles: "RoleServiceAsyncStub", organization: UUID, owner: Person
) -> None:
    request = CreateRoleRequest(name="Pilot", permissions=[PERMISSION_TASKS_READ], app_permissions=[LAUNCH])
    role = (await roles.CreateRole(request, metadata=owner.headers)).role

    async def update(change: Role, *paths: str) -> tuple[list[int], list[int]]:
        change.id = role.id
        request = UpdateRoleRequest(role=change, update_mask=FieldMask(paths=paths))
        now = (await roles.UpdateRole(request, metadata=owner.headers)).role
        return list(now.permissions), list(now.app_permissions)

    assert await update(Role(permissions=[PERMISSION_TASKS_WRITE])) == ([PERMISSION_TASKS_WRITE], [LAUNCH])
    assert await update(Role(), "app_permissions") == ([PERMISSION_TASKS_WRITE], [])
    assert await update(Role(app_permissions=[LAUNCH])) == ([PERMISSION_TASKS_WRITE], [LAUNCH])
    assert await update(Role(), "permissions") == ([], [LAUNCH])
    assert await update(Role(name="Other")) == ([], [LAUNCH])
    assert await update(Role(), "permissions", "app_permissions") == ([], [])


async def test_permission_that_the_caller_does_not_have_cannot_be_granted(
    roles: "RoleServiceAsyncStub", keys: "ApiKeyServiceAsyncStub", world: World, organization: UUID, owner: Person
) -> None:
    role = (await roles.CreateRole(CreateRoleRequest(name="Empty"), metadata=owner.headers)).role
    member = await world.member(organization, "member")
    world.give(member, organization, world.role(organization, _named("roles.write", "api_keys.write")))
    create = CreateRoleRequest(name="More", app_permissions=[LAUNCH])
    update = UpdateRoleRequest(role=Role(id=role.id, app_permissions=[LAUNCH]))
    key = CreateApiKeyRequest(name="More", app_scopes=[LAUNCH])
    for call in (
        roles.CreateRole(create, metadata=member.headers),
        roles.UpdateRole(update, metadata=member.headers),
        keys.CreateApiKey(key, metadata=member.headers),
    ):
        assert await outcome(cast(Any, call)) == "PERMISSION_DENIED"


async def test_api_key_has_the_permission_as_a_scope(
    launch: Launcher, keys: "ApiKeyServiceAsyncStub", owner: Person
) -> None:
    request = CreateApiKeyRequest(name="CI", scopes=[PERMISSION_TASKS_READ], app_scopes=[LAUNCH])
    created = await keys.CreateApiKey(request, metadata=owner.headers)
    assert (list(created.api_key.scopes), list(created.api_key.app_scopes)) == ([PERMISSION_TASKS_READ], [LAUNCH])
    headers = (("x-api-key", created.key),)
    assert await outcome(launch(headers)) == "OK"
    change = UpdateApiKeyRequest(api_key=ApiKey(id=created.api_key.id), update_mask=FieldMask(paths=["app_scopes"]))
    changed = (await keys.UpdateApiKey(change, metadata=owner.headers)).api_key
    assert (list(changed.scopes), list(changed.app_scopes)) == ([PERMISSION_TASKS_READ], [])
    assert await outcome(launch(headers)) == "PERMISSION_DENIED"


def test_client_has_an_exception_for_the_reason() -> None:
    errors = importlib.import_module("application_errors")
    assert issubclass(errors.ProbeNotReady, errors.FailedPrecondition)
    assert errors.ProbeNotReady.__doc__ == "The probe is not ready. Metadata: `probe_id`."
    assert errors.BY_REASON["PROBE_NOT_READY"] is errors.ProbeNotReady


def test_policies_page_lists_the_permission() -> None:
    assert "| `probes.launch` | ● | ● |  |" in policies.page()


def _named(*names: str) -> Any:
    from accord_rpc.permissions import held

    return held(None, names)
