"""Every List method returns each row once, in every order, and refuses page tokens of another list.

Methods, orders and rows are read from the contract and the tables, so a new list is tested without a change here.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from uuid import UUID

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from accord.policy.v1.policy_pb2 import ACCESS_ADMIN
from tests.api import requests
from tests.api.conftest import Client, refusal
from tests.api.foreign import RESOURCES, Owner, own_request, places, received_invitation
from tests.api.matrix import every_method, policy_of
from tests.api.requests import rules
from tests.api.world import World

LISTS: Final = [method for method in every_method() if "page_token" in method.input_type.fields_by_name]
each_list = pytest.mark.parametrize("method", LISTS, ids=[method.name for method in LISTS])
ROWS: Final = 5


async def add_member(world: World, me: Owner) -> None:
    assert me.organization
    await world.member(me.organization, "member")


async def add_membership(world: World, me: Owner) -> None:
    world.join(me.person, world.organization(), "member")


async def add_received_invitation(world: World, me: Owner) -> None:
    await received_invitation(world, me)


# Lists whose items are not rows of one table that the caller owns.
EXCEPTIONS: Final[Mapping[str, Callable[[World, Owner], Awaitable[None]]]] = {
    "accord.invitations.v1.InvitationService.ListMyInvitations": add_received_invitation,
    "accord.members.v1.MemberService.ListMembers": add_member,
    "accord.organizations.v1.OrganizationService.ListOrganizations": add_membership,
}


async def new_caller(world: World, method: MethodDescriptor) -> Owner:
    organization = world.organization()
    me = Owner(await world.member(organization, "owner"), organization)
    if policy_of(method).access == ACCESS_ADMIN:
        world.change_account(me.person, "role = 'administrator'")
    return me


async def list_request(world: World, me: Owner, method: MethodDescriptor) -> Any:
    """Creates rows of the list, within the parent that the request names, and returns the request."""
    request, make = await own_request(world, me, method), EXCEPTIONS.get(method.full_name)
    table = RESOURCES.get(item_type(method).name)
    names = [place.field.name for place in places(method) if not place.part]
    named = {name: UUID(value) for name in names if (value := getattr(request, name))}
    for _ in range(ROWS):
        if make:
            await make(world, me)
        else:
            assert table is not None, f"{method.full_name} lists no resource: add a function to EXCEPTIONS"
            world.row(table, me.person, me.organization, **named)
    return request


def item_type(method: MethodDescriptor) -> Any:
    """The message type of the list's items."""
    [field] = [field for field in method.output_type.fields if field.is_repeated]
    return field.message_type


def orders(method: MethodDescriptor) -> list[str]:
    field: FieldDescriptor | None = method.input_type.fields_by_name.get("order_by")
    return list(getattr(rules(field).string, "in")) if field else [""]


async def page(
    client: Client, me: Owner, method: MethodDescriptor, request: Any, **changes: Any
) -> tuple[list[Any], str]:
    """The keys of the page's items, and the token of the next page."""
    for name, value in changes.items():
        setattr(request, name, value)
    response = await requests.send(client.channel, method, request, me.person.headers)
    field = next(field.name for field in method.output_type.fields if field.is_repeated)
    key = item_type(method).fields[0].name
    return [getattr(message, key) for message in getattr(response, field)], response.next_page_token


@each_list
async def test_pages_hold_each_row_once_in_every_order(client: Client, world: World, method: MethodDescriptor) -> None:
    me = await new_caller(world, method)
    request = await list_request(world, me, method)
    for order_by in orders(method):
        changes = {"order_by": order_by} if order_by else {}
        whole, token = await page(client, me, method, request, page_size=1000, page_token="", **changes)
        assert len(whole) >= ROWS
        assert token == ""
        paged = list[Any]()
        while token or not paged:
            found, token = await page(client, me, method, request, page_size=2, page_token=token)
            assert len(found) <= 2
            paged += found
        assert len(paged) == len(set(paged))
        assert [key for key in paged if key in whole] == whole  # the audit list grows with each call


@each_list
async def test_page_token_is_refused_if_altered_or_of_another_caller_or_order(
    client: Client, world: World, method: MethodDescriptor
) -> None:
    me, other = await new_caller(world, method), await new_caller(world, method)
    request = await list_request(world, me, method)
    _, token = await page(client, me, method, request, page_size=1)
    assert token
    request.page_token = token
    altered = (token[:-1] + "AB"[token[-1] == "A"], "AB"[token[0] == "A"] + token[1:], token[:10], "nonsense", "ü")
    attempts = [(other, request), *((me, changed_copy(request, page_token=text)) for text in altered)]
    attempts += [(me, changed_copy(request, order_by=order)) for order in orders(method)[1:2]]
    for who, attempt in attempts:
        refused = await refusal(requests.send(client.channel, method, attempt, who.person.headers))
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"), attempt
    found, _ = await page(client, me, method, changed_copy(request, page_size=1000))
    assert len(found) >= ROWS - 1


def changed_copy(request: Any, **changes: Any) -> Any:
    changed = type(request)()
    changed.CopyFrom(request)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def test_contract_has_list_methods() -> None:
    assert {"ListTasks", "ListSessions", "ListRoles", "ListAccounts"} <= {method.name for method in LISTS}
    assert len(orders(next(method for method in LISTS if method.name == "ListTasks"))) == 7
