"""InvitationService: invitations that the caller has received, listed, accepted and declined without the mailed token."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from accord.invitations.v1 import invitations_pb2
from accord.invitations.v1.invitations_pb2 import MyInvitation
from accord.members.v1 import members_pb2
from accord.organizations.v1 import organizations_pb2
from accord.policy.v1.policy_pb2 import ROLE_MEMBER, ROLE_UNSPECIFIED
from tests.api.conftest import Calls, Client, outcome, refusal
from tests.api.world import Invited, World
from tests.factories import Person


@pytest.fixture
def mine(client: Client, me: Person) -> Calls:
    return client.calls(invitations_pb2, me)


@pytest.fixture
async def host(world: World, acme: UUID) -> Person:
    """An owner of Acme."""
    return await world.member(acme, "owner")


@pytest.fixture
def acme(world: World) -> UUID:
    return world.organization()


@pytest.fixture
def invited(world: World, acme: UUID, host: Person, me: Person) -> Invited:
    return world.invitation(acme, host, me.email)


async def listed(calls: Calls) -> list[MyInvitation]:
    return list((await calls.ListMyInvitations()).invitations)


async def organizations(client: Client, person: Person) -> list[str]:
    found = await client.calls(organizations_pb2, person).ListOrganizations()
    return [organization.id for organization in found.organizations]


async def test_list_shows_organization_inviter_and_role(
    mine: Calls, world: World, acme: UUID, invited: Invited
) -> None:
    [found] = await listed(mine)
    assert (found.id, found.organization_id, found.organization_name) == (str(invited.id), str(acme), "Acme")
    assert (found.inviter_name, found.role) == ("Some User", ROLE_MEMBER)
    assert found.expires_at.seconds - found.created_at.seconds == 7 * 86_400
    world.write("UPDATE invitations SET role = NULL WHERE id = %s", invited.id)
    assert [found.role for found in await listed(mine)] == [ROLE_UNSPECIFIED]


async def test_list_has_invitations_of_all_organizations_whichever_is_active(
    mine: Calls, world: World, me: Person, invited: Invited
) -> None:
    other, own = world.organization(), world.organization()
    second = world.invitation(other, await world.member(other, "owner"), me.email)
    world.join(me, own, "owner")
    world.activate(me, own)
    assert [found.id for found in await listed(mine)] == [str(second.id), str(invited.id)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE invitations SET ended_at = now(), outcome = 'cancelled'",
        "UPDATE invitations SET expires_at = now()",
        "UPDATE invitations SET email = 'someone@example.com'",
        "UPDATE organizations SET deleted_at = now()",
        "UPDATE accounts SET banned_at = now() WHERE id = (SELECT created_by FROM invitations)",
        "UPDATE accounts SET deleted_at = now() WHERE id = (SELECT created_by FROM invitations)",
    ],
)
async def test_invitation_that_cannot_be_accepted_is_neither_listed_nor_found(
    mine: Calls, world: World, invited: Invited, change: str
) -> None:
    world.write(change)
    assert await listed(mine) == []
    refused = await refusal(mine.AcceptMyInvitation(invitation_id=str(invited.id)))
    assert (refused.code, refused.reason, refused.metadata) == (grpc.StatusCode.NOT_FOUND, "INVITATION_NOT_FOUND", {})


async def test_accepted_invitation_makes_the_caller_a_member_once(
    mine: Calls, client: Client, me: Person, acme: UUID, invited: Invited
) -> None:
    accepted = await mine.AcceptMyInvitation(invitation_id=str(invited.id))
    assert accepted.organization_id == str(acme)
    assert await organizations(client, me) == [str(acme)]
    assert await listed(mine) == []
    for again in (
        mine.AcceptMyInvitation(invitation_id=str(invited.id)),
        mine.DeclineMyInvitation(invitation_id=str(invited.id)),
        mine.AcceptInvitation(token=invited.token),
    ):
        assert (await refusal(again)).reason == "INVITATION_NOT_FOUND"


async def test_declined_invitation_has_ended(mine: Calls, client: Client, me: Person, invited: Invited) -> None:
    await mine.DeclineMyInvitation(invitation_id=str(invited.id))
    assert await listed(mine) == []
    assert (await refusal(mine.AcceptMyInvitation(invitation_id=str(invited.id)))).reason == "INVITATION_NOT_FOUND"
    assert (await refusal(mine.AcceptInvitation(token=invited.token))).reason == "INVITATION_NOT_FOUND"
    assert await organizations(client, me) == []


async def test_of_concurrent_acceptances_by_id_and_by_token_one_succeeds(mine: Calls, invited: Invited) -> None:
    calls = [mine.AcceptMyInvitation(invitation_id=str(invited.id)) for _ in range(5)]
    calls += [mine.AcceptInvitation(token=invited.token) for _ in range(5)]
    outcomes = await asyncio.gather(*map(outcome, calls))
    assert sorted(outcomes) == ["INVITATION_NOT_FOUND"] * 9 + ["OK"]


async def test_invitation_of_another_person_is_not_found_like_an_unknown_one(
    client: Client, me: Person, invited: Invited, host: Person
) -> None:
    """Not even for the organization's owner, who can see the id."""
    other = client.calls(invitations_pb2, await client.new_user())
    for calls in (other, client.calls(invitations_pb2, host)):
        assert await listed(calls) == []
        for call in (calls.AcceptMyInvitation, calls.DeclineMyInvitation):
            refused = [await refusal(call(invitation_id=str(id))) for id in (invited.id, uuid4())]
            assert refused[0] == refused[1]
            assert refused[0].reason == "INVITATION_NOT_FOUND"
    assert len(await listed(client.calls(invitations_pb2, me))) == 1


async def test_unverified_address_sees_and_accepts_nothing(
    mine: Calls, world: World, me: Person, invited: Invited
) -> None:
    """Anyone can sign up with the address of another person."""
    world.change_account(me, "email_verified_at = NULL")
    calls: list[Any] = [
        mine.ListMyInvitations(),
        mine.AcceptMyInvitation(invitation_id=str(invited.id)),
        mine.DeclineMyInvitation(invitation_id=str(invited.id)),
    ]
    for call in calls:
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EMAIL_NOT_VERIFIED")


async def test_inviter_who_could_not_invite_any_more_gives_nothing(
    mine: Calls, world: World, acme: UUID, host: Person, invited: Invited
) -> None:
    await world.member(acme, "owner")
    world.demote(host, acme, "member")
    assert (await refusal(mine.AcceptMyInvitation(invitation_id=str(invited.id)))).reason == "INVITATION_NOT_FOUND"


async def test_member_who_accepts_again_keeps_the_invitation(
    mine: Calls, world: World, me: Person, acme: UUID, invited: Invited
) -> None:
    world.join(me, acme, "member")
    assert (await refusal(mine.AcceptMyInvitation(invitation_id=str(invited.id)))).reason == "MEMBER_EXISTS"
    assert len(await listed(mine)) == 1


async def test_acceptance_takes_effect_at_once_and_is_listed_for_the_organization(
    client: Client, mine: Calls, world: World, acme: UUID, host: Person, me: Person, invited: Invited
) -> None:
    await mine.AcceptMyInvitation(invitation_id=str(invited.id))
    world.activate(host, acme)
    members = (await client.calls(members_pb2, host).ListMembers()).members
    assert str(me.account_id) in {member.account_id for member in members}
    ended = (await client.calls(invitations_pb2, host).ListInvitations(show_ended=True)).invitations
    assert [each.status for each in ended] == [invitations_pb2.InvitationStatus.INVITATION_STATUS_ACCEPTED]
