"""Every method of the contract that is audited leaves one event, however it ends: who did what, on whose behalf, in which
organization, with which credential, and how it ended.

The methods and their requests are those of the contract: one that is new is tried without a line here.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

import grpc
import psycopg
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from psycopg.rows import class_row

from accord.admin.v1.admin_pb2 import DeleteAccountRequest, SetAccountPasswordRequest, StopImpersonatingRequest
from accord.api_keys.v1.api_keys_pb2 import RotateApiKeyRequest
from accord.invitations.v1.invitations_pb2 import AcceptInvitationRequest, DeclineInvitationRequest
from accord.members.v1.members_pb2 import LeaveOrganizationRequest
from accord.policy.v1.policy_pb2 import ACCESS_ADMIN, ACCESS_PUBLIC, ACCESS_SERVICE, ACCESS_SIGNED_IN, Access
from accord.services.v1.services_pb2 import ExchangeTokenRequest, IssueTokenRequest, RotateSecretRequest
from tests.api import requests
from tests.api.conftest import Client, read_refusal
from tests.api.faces import path_of
from tests.api.foreign import Owner, own_request
from tests.api.matrix import every_method, policy_of
from tests.api.services import AUDIENCE, new_service, token_of
from tests.api.test_audit_of_accounts import SERVICES
from tests.api.world import World
from tests.factories import Headers, bearer

AUDITED: Final = [method for method in every_method() if policy_of(method).audit]
PEOPLE: Final = (ACCESS_SIGNED_IN, ACCESS_ADMIN)


def feature(method: MethodDescriptor) -> str:
    return method.full_name.split(".")[1]


def having(*access: Access.ValueType) -> pytest.MarkDecorator:
    methods = [method for method in AUDITED if policy_of(method).access in access]
    return pytest.mark.parametrize("method", methods, ids=[method.name for method in methods])


class Event(NamedTuple):
    method: str
    account_id: UUID | None
    organization_id: UUID | None
    credential: str | None
    credential_id: UUID | None
    impersonator_id: UUID | None
    service_account_id: UUID | None
    target: str | None
    peer: str
    code: str
    reason: str | None
    request_id: str


class Ended(NamedTuple):
    code: str
    reason: str | None
    request_id: str


@having(*PEOPLE)
async def test_call_of_a_user_is_audited_with_the_user(
    client: Client, world: World, dsn: str, log: list[Any], method: MethodDescriptor
) -> None:
    me = await owner(world)
    if policy_of(method).access == ACCESS_ADMIN:
        world.change_account(me.person, "role = 'administrator'")
    ended = await call(client, method, await about(world, me, method), me.person.headers)
    (event,) = events(dsn, method)
    assert (event.account_id, event.organization_id) == (me.person.account_id, me.organization)
    assert (event.credential, event.credential_id) == ("session", me.person.session_id)
    assert (event.impersonator_id, event.service_account_id) == (None, None)
    assert (event.code, event.reason, event.request_id) == ended
    assert event.peer == "127.0.0.1"
    assert event.target is not None or event.code != "OK"


IMPERSONABLE: Final = [
    method
    for method in AUDITED
    if policy_of(method).access == ACCESS_SIGNED_IN and not (policy_of(method).fresh or policy_of(method).in_person)
]


@pytest.mark.parametrize("method", IMPERSONABLE, ids=[method.name for method in IMPERSONABLE])
async def test_impersonated_call_is_audited_with_the_user_and_the_administrator(
    client: Client, world: World, dsn: str, log: list[Any], method: MethodDescriptor
) -> None:
    me, administrator = await owner(world), await world.person()
    world.change_account(administrator, "role = 'administrator'")
    world.change_session(me.person, "impersonator_id = %s", administrator.account_id)
    ended = await call(client, method, await about(world, me, method), me.person.headers)
    (event,) = events(dsn, method)
    assert (event.account_id, event.impersonator_id) == (me.person.account_id, administrator.account_id)
    assert (event.code, event.reason, event.request_id) == ended


@having(ACCESS_SERVICE)
async def test_call_of_a_service_is_audited_with_the_service(
    client: Client, world: World, dsn: str, log: list[Any], method: MethodDescriptor
) -> None:
    service = await new_service(world.database)
    headers = bearer(await token_of(client.channel, service))
    ended = await call(client, method, requests.minimal_request(method), headers)
    (event,) = events(dsn, method)
    assert (event.service_account_id, event.credential) == (service.id, "service_token")
    assert (event.code, event.reason, event.request_id) == ended


@having(ACCESS_PUBLIC)
async def test_call_without_a_credential_is_audited(
    client: Client, world: World, dsn: str, log: list[Any], method: MethodDescriptor
) -> None:
    ended = await call(client, method, requests.minimal_request(method), ())
    (event,) = events(dsn, method)
    assert (event.credential, event.credential_id, event.organization_id) == (None, None, None)
    assert (event.code, event.reason, event.request_id) == ended


# --- that it succeeds -------------------------------------------------------------------------------------------------
class Success(NamedTuple):
    """A call that is not refused. The caller is `me` unless it has headers of its own."""

    request: Any
    headers: Headers | None = None


async def rotate_api_key(world: World, me: Owner, _: Client) -> Success:
    assert me.organization
    key = world.key(me.organization, me.person, ()).id
    return Success(RotateApiKeyRequest(api_key_id=str(key), etag=etag(world, "api_keys", key)))


async def rotate_secret(world: World, _me: Owner, _: Client) -> Success:
    service = await new_service(world.database)
    return Success(RotateSecretRequest(service_account_id=str(service.id), etag=str(service.etag)))


async def stop_impersonating(world: World, me: Owner, _: Client) -> Success:
    administrator = await world.person()
    world.change_account(administrator, "role = 'administrator'")
    world.change_session(me.person, "impersonator_id = %s", administrator.account_id)
    return Success(StopImpersonatingRequest())


async def accept_invitation(world: World, me: Owner, _: Client) -> Success:
    return Success(AcceptInvitationRequest(token=await invited(world, me)))


async def decline_invitation(world: World, me: Owner, _: Client) -> Success:
    return Success(DeclineInvitationRequest(token=await invited(world, me)))


async def invited(world: World, me: Owner) -> str:
    inviter = await owner(world)
    assert inviter.organization
    return world.invitation(inviter.organization, inviter.person, me.person.email).token


async def leave_organization(world: World, me: Owner, _: Client) -> Success:
    """Another owner stays."""
    assert me.organization
    await world.member(me.organization, "owner")
    return Success(LeaveOrganizationRequest(organization_id=str(me.organization)))


async def set_account_password(world: World, _me: Owner, _: Client) -> Success:
    request = SetAccountPasswordRequest(
        account_id=str((await world.person()).account_id), new_password="correct horse battery", reason="a reason"
    )
    return Success(request)


async def delete_account(world: World, _me: Owner, _: Client) -> Success:
    other = await world.person()
    return Success(DeleteAccountRequest(account_id=str(other.account_id), reason="a reason"))


async def issue_token(world: World, _me: Owner, _: Client) -> Success:
    service = await new_service(world.database)
    credentials = {"client_id": str(service.id), "client_secret": service.secret}
    return Success(IssueTokenRequest(**credentials, audience=AUDIENCE), ())


async def exchange_token(world: World, me: Owner, client: Client) -> Success:
    headers = bearer(await token_of(client.channel, await new_service(world.database)))
    return Success(ExchangeTokenRequest(subject_token=me.person.token, audience=AUDIENCE), headers)


# Methods that the least request about the caller's own things is not enough for.
SUCCESSES: Final[Mapping[str, Callable[[World, Owner, Client], Awaitable[Success]]]] = {
    "accord.admin.v1.AdminService.DeleteAccount": delete_account,
    "accord.admin.v1.AdminService.SetAccountPassword": set_account_password,
    "accord.admin.v1.AdminService.StopImpersonating": stop_impersonating,
    "accord.api_keys.v1.ApiKeyService.RotateApiKey": rotate_api_key,
    "accord.invitations.v1.InvitationService.AcceptInvitation": accept_invitation,
    "accord.invitations.v1.InvitationService.DeclineInvitation": decline_invitation,
    "accord.members.v1.MemberService.LeaveOrganization": leave_organization,
    "accord.services.v1.ServiceAccountService.RotateSecret": rotate_secret,
    "accord.services.v1.TokenService.ExchangeToken": exchange_token,
    "accord.services.v1.TokenService.IssueToken": issue_token,
}
# test_audit_of_accounts.py sees a success of each method of the other services.
SUCCEEDING: Final = [method for method in AUDITED if feature(method) not in SERVICES]


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("method", SUCCEEDING, ids=[method.name for method in SUCCEEDING])
async def test_event_of_a_success_names_its_target(
    client: Client, world: World, dsn: str, method: MethodDescriptor
) -> None:
    me = await owner(world)
    if policy_of(method).access == ACCESS_ADMIN:
        world.change_account(me.person, "role = 'administrator'")
    prepare = SUCCESSES.get(method.full_name)
    success = await prepare(world, me, client) if prepare else Success(await about(world, me, method))
    ended = await call(
        client, method, success.request, me.person.headers if success.headers is None else success.headers
    )
    assert ended.code == "OK", (
        f"{method.full_name} is refused with {ended.reason}, so this test sees no audited success: add a function to SUCCESSES"
    )
    (event,) = events(dsn, method)
    assert (event.code, event.reason, event.request_id) == ended
    assert event.target is not None, f"the handler of {method.full_name} sets no target: call().note(target=…)"


def test_methods_are_audited_and_succeed_here_or_with_those_of_accounts() -> None:
    assert {method.full_name for method in AUDITED} >= SUCCESSES.keys()
    assert {"CreateRole", "BanAccount"} <= {method.name for method in SUCCEEDING}
    assert {feature(method) for method in AUDITED} >= set(SERVICES)


async def owner(world: World) -> Owner:
    organization = world.organization()
    return Owner(await world.member(organization, "owner"), organization)


def etag(world: World, table: str, id: UUID) -> str:
    with psycopg.connect(world.dsn) as connection:
        row = connection.execute(f"SELECT etag::text FROM {table} WHERE id = %s".encode(), [id]).fetchone()
    assert row is not None
    return str(row[0])


async def about(world: World, me: Owner, method: MethodDescriptor) -> Any:
    """Administrators do it to others."""
    whose = await owner(world) if policy_of(method).access == ACCESS_ADMIN else me
    return await own_request(world, whose, method)


async def call(client: Client, method: MethodDescriptor, request: Message, headers: Headers) -> Ended:
    assert requests.violations(request) == []
    sent = requests.send(client.channel, method, request, headers)
    try:
        await sent
    except grpc.aio.AioRpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        return Ended(error.code().name, read_refusal(error).reason, trailers["x-request-id"])
    return Ended("OK", None, dict(await sent.trailing_metadata())["x-request-id"])


def events(dsn: str, method: MethodDescriptor) -> list[Event]:
    """But for those of other methods that the test itself has called before."""
    columns = ", ".join(Event._fields)
    with psycopg.connect(dsn, row_factory=class_row(Event)) as connection:
        return connection.execute(
            f"SELECT {columns} FROM audit_events WHERE method = %s".encode(), [path_of(method)]
        ).fetchall()
