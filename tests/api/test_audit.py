"""Every method of the contract that is audited leaves one event, however it ends: who did what, on whose behalf, in which
organization, with which credential, and how it ended.

The methods and their requests are those of the contract: one that is new is tried without a line here.
"""

from typing import Any, Final, NamedTuple
from uuid import UUID

import grpc
import psycopg
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from psycopg.rows import class_row

from accord.policy.v1.policy_pb2 import ACCESS_ADMIN, ACCESS_PUBLIC, ACCESS_SERVICE, ACCESS_SIGNED_IN, Access
from tests.api import requests
from tests.api.conftest import Client, read_refusal
from tests.api.foreign import Owner, own_request
from tests.api.matrix import every_method, path_of, policy_of
from tests.api.services import new_service, token_of
from tests.api.world import World
from tests.factories import Headers, bearer

AUDITED: Final = [method for method in every_method() if policy_of(method).audit]
PEOPLE: Final = (ACCESS_SIGNED_IN, ACCESS_ADMIN)


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
async def test_what_somebody_does_is_told_of_them(
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
async def test_what_an_administrator_does_as_somebody_is_told_of_both(
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
async def test_what_a_service_does_is_told_of_the_service(
    client: Client, world: World, dsn: str, log: list[Any], method: MethodDescriptor
) -> None:
    service = await new_service(world.database)
    headers = bearer(await token_of(client.channel, service))
    ended = await call(client, method, requests.least(method), headers)
    (event,) = events(dsn, method)
    assert (event.service_account_id, event.credential) == (service.id, "service_token")
    assert (event.code, event.reason, event.request_id) == ended


@having(ACCESS_PUBLIC)
async def test_what_nobody_in_particular_does_is_told_too(
    client: Client, world: World, dsn: str, log: list[Any], method: MethodDescriptor
) -> None:
    ended = await call(client, method, requests.least(method), ())
    (event,) = events(dsn, method)
    assert (event.credential, event.credential_id, event.organization_id) == (None, None, None)
    assert (event.code, event.reason, event.request_id) == ended


async def owner(world: World) -> Owner:
    organization = world.organization()
    return Owner(await world.member(organization, "owner"), organization)


async def about(world: World, me: Owner, method: MethodDescriptor) -> Any:
    """Administrators do it to others."""
    whose = await owner(world) if policy_of(method).access == ACCESS_ADMIN else me
    return await own_request(world, whose, method)


async def call(client: Client, method: MethodDescriptor, request: Message, headers: Headers) -> Ended:
    assert requests.faults(request) == []
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
