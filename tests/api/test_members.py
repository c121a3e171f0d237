import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from accord.accounts.v1.accounts_pb2 import DeleteAccountRequest
from accord.invitations.v1.invitations_pb2 import AcceptInvitationRequest
from accord.invitations.v1.invitations_pb2_grpc import InvitationServiceStub
from accord.members.v1.members_pb2 import (
    LeaveOrganizationRequest,
    ListMembersRequest,
    Member,
    RemoveMemberRequest,
    TransferOwnershipRequest,
    UpdateMemberRequest,
)
from accord.members.v1.members_pb2_grpc import MemberServiceStub
from accord.organizations.v1.organizations_pb2 import (
    DeleteOrganizationRequest,
    Organization,
    UndeleteOrganizationRequest,
    UpdateOrganizationRequest,
)
from accord.organizations.v1.organizations_pb2_grpc import OrganizationServiceStub
from accord.policy.v1.policy_pb2 import (
    PERMISSION_MEMBERS_READ,
    PERMISSION_MEMBERS_WRITE,
    PERMISSION_ORGANIZATION_DELETE,
    PERMISSION_ORGANIZATION_TRANSFER,
    PERMISSION_TASKS_READ,
    ROLE_ADMIN,
    ROLE_MEMBER,
    ROLE_OWNER,
    ROLE_UNSPECIFIED,
    Role,
)
from accord.tasks.v1.tasks_pb2 import ListTasksRequest
from accord_auth.tokens import INVITATION_PREFIX, new_token, token_hash
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Page
from accord_db.queries import members as queries
from accord_db.queries.invitations import insert_invitation
from accord_db.queries.organizations import delete_organization
from accord_db.queries.roles import insert_role
from accord_db.queries.sessions import REVOKED_CHANNEL
from accord_rpc.permissions import AnyPermission, held, names
from tests.api.conftest import Client, outcome, refusal
from tests.conftest import change, count
from tests.factories import Person, activate, api_key_of, joined, organization_of

if TYPE_CHECKING:
    from accord.members.v1.members_pb2_grpc import MemberServiceAsyncStub


class Acme:
    """An organization, which is active in the sessions of all who join it here."""

    def __init__(self, client: Client, organization_id: UUID, owner: Person) -> None:
        self._client = client
        self.members: MemberServiceAsyncStub = MemberServiceStub(client.channel)
        self.id = organization_id
        self.owner = owner

    async def person(self, role: str | None = "member", *role_ids: UUID) -> Person:
        """A new member."""
        person = await self._client.somebody()
        await joined(self._client.database, self.id, person, role)
        await self.give(person, *role_ids)
        await activate(self._client.database, person, self.id)
        return person

    async def give(self, person: Person, *role_ids: UUID) -> None:
        await queries.replace_member_roles(
            self._client.database, organization_id=self.id, account_id=person.account_id, role_ids=role_ids
        )

    async def role(self, *permissions: AnyPermission) -> UUID:
        """One of the organization's own."""
        role = await insert_role(
            self._client.database,
            role_id=uuid7(),
            organization_id=self.id,
            name=uuid4().hex,
            permissions=names(permissions),
        )
        return role.id

    async def listed(self, who: Person, **request: Any) -> list[Member]:
        """All pages."""
        found, token = list[Member](), ""
        while True:
            page = await self.members.ListMembers(ListMembersRequest(page_token=token, **request), metadata=who.headers)
            found += page.members
            if not (token := page.next_page_token):
                return found

    async def the(self, person: Person) -> Member:
        [found] = [each for each in await self.listed(self.owner) if each.account_id == str(person.account_id)]
        return found

    async def roles(self) -> list[Role.ValueType]:
        found = await queries.list_members(self._client.database, organization_id=self.id, page=Page(1000))
        return [Role.Value(f"ROLE_{each.role.upper()}") if each.role else ROLE_UNSPECIFIED for each in found]

    async def update(self, who: Person, whom: Person, *paths: str, **fields: Any) -> Member:
        member = Member(account_id=str(whom.account_id), **fields)
        request = UpdateMemberRequest(member=member, update_mask=FieldMask(paths=paths))
        return (await self.members.UpdateMember(request, metadata=who.headers)).member

    async def remove(self, who: Person, whom: Person) -> None:
        await self.members.RemoveMember(RemoveMemberRequest(account_id=str(whom.account_id)), metadata=who.headers)

    async def leave(self, who: Person, organization_id: object = None) -> None:
        request = LeaveOrganizationRequest(organization_id=str(organization_id or self.id))
        await self.members.LeaveOrganization(request, metadata=who.headers)

    async def transfer(self, who: Person, whom: Person) -> Member:
        request = TransferOwnershipRequest(account_id=str(whom.account_id))
        return (await self.members.TransferOwnership(request, metadata=who.headers)).member


@pytest.fixture
async def acme(client: Client, me: Person) -> Acme:
    """Owned by `me`."""
    organization_id = await organization_of(client.database, me)
    await activate(client.database, me, organization_id)
    return Acme(client, organization_id, me)


# --- list -------------------------------------------------------------------------------------------------------------
async def test_list_members_tells_who_they_are_and_their_roles(acme: Acme, me: Person) -> None:
    role_ids = sorted([await acme.role(PERMISSION_TASKS_READ), await acme.role()])
    other = await acme.person("admin", *role_ids)
    theirs, mine = await acme.listed(other)
    assert (theirs.account_id, theirs.email, theirs.display_name) == (str(other.account_id), other.email, "Somebody")
    assert (theirs.role, list(theirs.role_ids)) == (ROLE_ADMIN, [str(role_id) for role_id in role_ids])
    assert theirs.etag
    assert theirs.created_at.ToDatetime() >= mine.created_at.ToDatetime()
    assert (mine.account_id, mine.role, list(mine.role_ids)) == (str(me.account_id), ROLE_OWNER, [])


async def test_list_members_pages_through_mine_and_no_others(client: Client, acme: Acme, me: Person) -> None:
    people = [me] + [await acme.person() for _ in range(4)]
    stranger = await client.somebody()
    await joined(client.database, await organization_of(client.database, stranger), people[1])
    found = await acme.listed(me, page_size=2)
    assert [each.account_id for each in found] == [str(person.account_id) for person in reversed(people)]


async def test_a_page_token_of_another_organization_is_refused(client: Client, acme: Acme, me: Person) -> None:
    await acme.person()
    page = await acme.members.ListMembers(ListMembersRequest(page_size=1), metadata=me.headers)
    other = await client.somebody()
    await activate(client.database, other, await organization_of(client.database, other))
    request = ListMembersRequest(page_token=page.next_page_token)
    refused = await refusal(acme.members.ListMembers(request, metadata=other.headers))
    assert refused.reason == "PAGE_TOKEN_INVALID"


async def test_whoever_is_no_member_sees_none(client: Client, acme: Acme) -> None:
    stranger = await client.somebody()
    await activate(client.database, stranger, acme.id)
    assert (await refusal(acme.listed(stranger))).reason == "PERMISSION_DENIED"


# --- update -----------------------------------------------------------------------------------------------------------
async def test_update_member_changes_what_the_mask_names(acme: Acme, me: Person) -> None:
    role_id = await acme.role(PERMISSION_TASKS_READ)
    other = await acme.person("member")
    before = await acme.the(other)
    now = await acme.update(me, other, role=ROLE_ADMIN)
    assert (now.role, list(now.role_ids)) == (ROLE_ADMIN, [])
    assert now.etag != before.etag
    now = await acme.update(me, other, "role_ids", role_ids=[str(role_id)], role=ROLE_MEMBER)
    assert (now.role, list(now.role_ids)) == (ROLE_ADMIN, [str(role_id)])
    now = await acme.update(me, other, "role")
    assert (now.role, list(now.role_ids)) == (ROLE_UNSPECIFIED, [str(role_id)])
    now = await acme.update(me, other, "role", "role_ids", role=ROLE_MEMBER)
    assert (now.role, list(now.role_ids)) == (ROLE_MEMBER, [])
    assert await acme.the(other) == now


async def test_roles_are_replaced_and_not_added(acme: Acme, me: Person) -> None:
    first, second, third = [str(await acme.role()) for _ in range(3)]
    other = await acme.person()
    await acme.update(me, other, role_ids=[first, second])
    now = await acme.update(me, other, role_ids=[third, second])
    assert sorted(now.role_ids) == sorted([second, third])


async def test_a_role_holds_from_the_next_call_on(acme: Acme, me: Person) -> None:
    other = await acme.person("member")
    for _ in range(2):
        await acme.listed(other)
        await acme.update(me, other, "role")
        assert (await refusal(acme.listed(other))).reason == "PERMISSION_DENIED"
        await acme.update(me, other, role_ids=[str(await acme.role(PERMISSION_MEMBERS_READ))])
        await acme.listed(other)
        await acme.update(me, other, "role_ids")
        assert (await refusal(acme.listed(other))).reason == "PERMISSION_DENIED"
        await acme.update(me, other, role=ROLE_MEMBER)


async def test_update_of_a_state_that_is_gone_changes_nothing(acme: Acme, me: Person) -> None:
    other = await acme.person()
    before = await acme.the(other)
    now = await acme.update(me, other, role=ROLE_ADMIN, etag=before.etag)
    refused = await refusal(acme.update(me, other, role=ROLE_OWNER, etag=before.etag))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert await acme.the(other) == now


async def test_a_member_of_another_organization_is_no_member_of_this_one(
    dsn: str, client: Client, acme: Acme, me: Person
) -> None:
    theirs = await client.somebody()
    await organization_of(client.database, theirs, "member")
    nobody = Person(uuid4(), uuid4(), "", "")
    for whom in (theirs, nobody):
        for call in (acme.update(me, whom, role=ROLE_ADMIN), acme.remove(me, whom), acme.transfer(me, whom)):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "MEMBER_NOT_FOUND")
            assert refused.metadata == {"account_id": str(whom.account_id)}
    assert count(dsn, "members WHERE role = 'member'") == 1


async def test_a_role_of_another_organization_cannot_be_given(client: Client, acme: Acme, me: Person) -> None:
    stranger = await client.somebody()
    elsewhere = Acme(client, await organization_of(client.database, stranger), stranger)
    other = await acme.person()
    for role_id in (await elsewhere.role(PERMISSION_TASKS_READ), uuid4()):
        refused = await refusal(acme.update(me, other, role_ids=[str(await acme.role()), str(role_id)]))
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ROLE_NOT_FOUND")
        assert refused.metadata == {"role_id": str(role_id)}
    assert list((await acme.the(other)).role_ids) == []


@pytest.mark.parametrize("path", ["account_id", "email", "display_name", "created_at", "etag", "*", "permissions"])
async def test_a_mask_cannot_name_what_is_not_to_be_changed(acme: Acme, me: Person, path: str) -> None:
    other = await acme.person()
    before = await acme.the(other)
    refused = await refusal(acme.update(me, other, path, email="other@example.com", display_name="Else"))
    assert list(refused.violations) == ["update_mask"]
    assert await acme.the(other) == before


async def test_a_role_that_there_is_not_is_refused(acme: Acme, me: Person) -> None:
    other = await acme.person()
    assert (await refusal(acme.update(me, other, role=9))).reason == "INVALID_MESSAGE"


async def test_a_member_changes_and_removes_nobody(acme: Acme) -> None:
    one, other = await acme.person("member"), await acme.person(None)
    for call in (acme.update(one, other, role=ROLE_MEMBER), acme.update(one, one, role=ROLE_OWNER)):
        assert (await refusal(call)).reason == "PERMISSION_DENIED"
    assert (await refusal(acme.remove(one, other))).reason == "PERMISSION_DENIED"


# --- nobody gives or takes what they do not hold ----------------------------------------------------------------------
async def test_an_admin_cannot_touch_an_owner(acme: Acme, me: Person) -> None:
    admin, second = await acme.person("admin"), await acme.person("owner")
    for whom in (me, second):
        for call in (
            acme.update(admin, whom, role=ROLE_MEMBER),
            acme.update(admin, whom, "role"),
            acme.update(admin, whom, role_ids=[str(await acme.role())]),
            acme.remove(admin, whom),
        ):
            assert (await refusal(call)).reason == "PERMISSION_DENIED"
    assert (await acme.roles()).count(ROLE_OWNER) == 2


async def test_an_admin_cannot_make_an_owner(acme: Acme) -> None:
    admin, other = await acme.person("admin"), await acme.person()
    for whom in (admin, other):
        assert (await refusal(acme.update(admin, whom, role=ROLE_OWNER))).reason == "PERMISSION_DENIED"
    assert (await acme.update(admin, other, role=ROLE_ADMIN)).role == ROLE_ADMIN


async def test_owners_are_made_and_changed_by_owners_alone_whatever_others_hold(acme: Acme, me: Person) -> None:
    """Also if roles of the organization's own, one or several, permit all that there is."""
    rest = await acme.role(PERMISSION_ORGANIZATION_DELETE, PERMISSION_ORGANIZATION_TRANSFER)
    custom, other, second = await acme.person("admin", rest), await acme.person(), await acme.person("owner")
    for call in (
        acme.update(custom, custom, role=ROLE_OWNER),
        acme.update(custom, other, role=ROLE_OWNER),
        acme.update(custom, second, role=ROLE_MEMBER),
        acme.update(custom, second, "role_ids"),
        acme.remove(custom, me),
    ):
        assert (await refusal(call)).reason == "PERMISSION_DENIED"
    assert sorted(await acme.roles()) == [ROLE_OWNER, ROLE_OWNER, ROLE_ADMIN, ROLE_MEMBER]


async def test_a_role_can_be_given_and_taken_by_who_holds_all_that_it_permits(acme: Acme) -> None:
    within = await acme.role(PERMISSION_TASKS_READ, PERMISSION_MEMBERS_WRITE)
    beyond = await acme.role(PERMISSION_TASKS_READ, PERMISSION_ORGANIZATION_TRANSFER)
    admin, other, holder = await acme.person("admin"), await acme.person(), await acme.person(None, beyond)
    assert list((await acme.update(admin, other, role_ids=[str(within)])).role_ids) == [str(within)]
    assert list((await acme.update(admin, other, "role_ids")).role_ids) == []
    assert (await refusal(acme.update(admin, other, role_ids=[str(beyond)]))).reason == "PERMISSION_DENIED"
    assert (await refusal(acme.update(admin, admin, role_ids=[str(beyond)]))).reason == "PERMISSION_DENIED"
    assert (await refusal(acme.update(admin, holder, "role_ids"))).reason == "PERMISSION_DENIED"
    assert (await refusal(acme.remove(admin, holder))).reason == "PERMISSION_DENIED"
    assert list((await acme.the(holder)).role_ids) == [str(beyond)]


async def test_what_a_role_of_the_organizations_own_permits_counts_as_held(acme: Acme) -> None:
    role_id = await acme.role(PERMISSION_MEMBERS_WRITE, PERMISSION_TASKS_READ)
    custom, other, admin = await acme.person(None, role_id), await acme.person(None), await acme.person("admin")
    now = await acme.update(custom, other, role_ids=[str(await acme.role(PERMISSION_TASKS_READ))])
    assert len(now.role_ids) == 1
    assert (await refusal(acme.update(custom, other, role=ROLE_MEMBER))).reason == "PERMISSION_DENIED"
    assert (await refusal(acme.remove(custom, admin))).reason == "PERMISSION_DENIED"


# --- remove and leave -------------------------------------------------------------------------------------------------
async def test_who_is_removed_may_do_nothing_from_the_next_call_on(dsn: str, acme: Acme, me: Person) -> None:
    other = await acme.person("admin", await acme.role(PERMISSION_TASKS_READ))
    await acme.listed(other)
    await acme.remove(me, other)
    assert (await refusal(acme.listed(other))).reason == "PERMISSION_DENIED"
    assert (await refusal(acme.remove(me, other))).reason == "MEMBER_NOT_FOUND"
    assert count(dsn, "member_roles") == 0


@pytest.mark.parametrize("how", ["removed", "left"])
async def test_what_works_in_the_name_of_a_member_does_not_come_back_with_them(
    client: Client, acme: Acme, how: str
) -> None:
    other, guest = await acme.person("admin"), await client.somebody()
    key = await api_key_of(client.database, other, acme.id)
    token = new_token(INVITATION_PREFIX)
    await insert_invitation(
        client.database,
        invitation_id=uuid7(),
        organization_id=acme.id,
        email=guest.email,
        role="member",
        token_hash=token_hash(token),
        created_by=other.account_id,
        lifetime=timedelta(days=1),
    )
    listed = ListTasksRequest()
    await client.tasks.ListTasks(listed, metadata=key.headers)
    await (acme.remove(acme.owner, other) if how == "removed" else acme.leave(other))
    await joined(client.database, acme.id, other, "admin")
    assert (await refusal(client.tasks.ListTasks(listed, metadata=key.headers))).reason == "CREDENTIAL_INVALID"
    accepting = InvitationServiceStub(client.channel).AcceptInvitation(
        AcceptInvitationRequest(token=token), metadata=guest.headers
    )
    assert (await refusal(accepting)).reason == "INVITATION_NOT_FOUND"


async def test_anybody_leaves_any_organization_of_theirs(client: Client, acme: Acme) -> None:
    other = await acme.person(None)
    await activate(client.database, other, None)
    await acme.leave(other)
    assert await acme.roles() == [ROLE_OWNER]
    refused = await refusal(acme.leave(other))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ORGANIZATION_NOT_FOUND")
    assert refused.metadata == {"organization_id": str(acme.id)}


async def test_who_leaves_may_do_nothing_from_the_next_call_on(acme: Acme) -> None:
    other = await acme.person("owner")
    await acme.listed(other)
    await acme.leave(other)
    assert (await refusal(acme.listed(other))).reason == "PERMISSION_DENIED"


async def test_an_organization_of_others_or_a_deleted_one_cannot_be_left(client: Client, acme: Acme) -> None:
    stranger, member = await client.somebody(), await acme.person()
    for organization_id in (acme.id, uuid4()):
        refused = await refusal(acme.leave(stranger, organization_id))
        assert (refused.reason, refused.metadata) == (
            "ORGANIZATION_NOT_FOUND",
            {"organization_id": str(organization_id)},
        )
    await delete_organization(client.database, organization_id=acme.id)
    assert (await refusal(acme.leave(member))).reason == "ORGANIZATION_NOT_FOUND"


# --- whoever remembers is told ----------------------------------------------------------------------------------------
async def test_whatever_changes_who_may_do_what_is_told_to_every_process(
    dsn: str, client: Client, acme: Acme, me: Person
) -> None:
    organizations = OrganizationServiceStub(client.channel)
    undelete = UndeleteOrganizationRequest(organization_id=str(acme.id))
    one, two, three = [await acme.person() for _ in range(3)]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"LISTEN {REVOKED_CHANNEL}".encode())
        for change_it in (
            lambda: acme.update(me, one, role=ROLE_ADMIN),
            lambda: acme.remove(me, one),
            lambda: acme.leave(two),
            lambda: client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=three.headers),
            lambda: organizations.DeleteOrganization(DeleteOrganizationRequest(), metadata=me.headers),
            lambda: organizations.UndeleteOrganization(undelete, metadata=me.headers),
        ):
            await change_it()
            # As soon as it is there, no others are waited for.
            assert any(notice.payload == str(acme.id) for notice in connection.notifies(timeout=10))


# --- the last owner ---------------------------------------------------------------------------------------------------
async def test_the_last_owner_stays_one(client: Client, acme: Acme, me: Person) -> None:
    await acme.person("admin")
    for call in (
        acme.update(me, me, role=ROLE_ADMIN),
        acme.update(me, me, "role"),
        acme.remove(me, me),
        acme.leave(me),
        client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=me.headers),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_OWNER")
        assert refused.metadata == {"organization_id": str(acme.id)}
    assert (await acme.the(me)).role == ROLE_OWNER


async def test_an_owner_beside_another_can_be_one_no_more(acme: Acme, me: Person) -> None:
    second = await acme.person("owner")
    assert (await acme.update(second, me, role=ROLE_ADMIN)).role == ROLE_ADMIN
    assert (await refusal(acme.leave(second))).reason == "LAST_OWNER"
    await acme.update(second, me, role=ROLE_OWNER)
    await acme.remove(me, second)
    assert await acme.roles() == [ROLE_OWNER]


async def test_an_owner_keeps_being_one_with_other_roles(acme: Acme, me: Person) -> None:
    now = await acme.update(me, me, role_ids=[str(await acme.role())])
    assert now.role == ROLE_OWNER


@pytest.mark.parametrize("way", ["demote", "remove", "leave", "delete account", "all of these"])
async def test_of_two_owners_whom_fifty_calls_at_once_would_end_one_stays(
    client: Client, acme: Acme, me: Person, way: str
) -> None:
    second = await acme.person("owner")
    ways: dict[str, Callable[[Person, Person], Awaitable[object]]] = {
        "demote": lambda who, whom: acme.update(who, whom, role=ROLE_ADMIN),
        "remove": acme.remove,
        "leave": lambda who, _: acme.leave(who),
        "delete account": lambda who, _: client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=who.headers),
    }
    chosen = [ways[way]] if way in ways else list(ways.values())
    pairs = [(me, second), (second, me), (me, me), (second, second)]
    calls = [chosen[n % len(chosen)](*pairs[n // len(chosen) % len(pairs)]) for n in range(50)]
    answers = await asyncio.gather(*map(outcome, calls))
    assert (await acme.roles()).count(ROLE_OWNER) == 1
    assert "OK" in answers
    assert set(answers) <= {
        "OK",
        "LAST_OWNER",
        "PERMISSION_DENIED",
        "MEMBER_NOT_FOUND",
        "ORGANIZATION_NOT_FOUND",
        "CREDENTIAL_INVALID",
    }


async def test_who_is_removed_while_their_call_waits_removes_nobody_after(dsn: str, acme: Acme) -> None:
    admins = [await acme.person("admin") for _ in range(8)]
    for admin in admins:
        await acme.listed(admin)  # and so it is remembered that they may
    pairs = [(who, whom) for who in admins for whom in admins if who is not whom]
    answers = await asyncio.gather(*(outcome(acme.remove(who, whom)) for who, whom in pairs[:50]))
    removal = "method LIKE '%RemoveMember' AND code = 'OK'"
    assert (
        count(dsn, f"audit_events WHERE {removal}") == answers.count("OK") == 8 - (await acme.roles()).count(ROLE_ADMIN)
    )
    # Ids are made in the transaction that has the lock: their order is that of the removals.
    earlier = f"SELECT FROM audit_events e WHERE {removal} AND e.target = audit_events.account_id::text"
    assert count(dsn, f"audit_events WHERE {removal} AND EXISTS ({earlier} AND e.id < audit_events.id)") == 0


async def test_whoever_names_an_organization_of_strangers_neither_waits_for_it_nor_holds_it_up(
    dsn: str, client: Client, acme: Acme
) -> None:
    """They would learn that there is one, and could keep its members from changing it."""
    stranger, named = await client.somebody(), UndeleteOrganizationRequest(organization_id=str(acme.id))
    undeleted = OrganizationServiceStub(client.channel).UndeleteOrganization
    with psycopg.connect(dsn) as rival:
        rival.execute("SELECT FROM organizations FOR NO KEY UPDATE")
        assert await outcome(acme.leave(stranger)) == "ORGANIZATION_NOT_FOUND"
        assert await outcome(undeleted(named, metadata=stranger.headers)) == "ORGANIZATION_NOT_FOUND"


async def test_who_loses_the_permission_while_their_call_waits_is_refused(
    dsn: str, client: Client, acme: Acme, me: Person
) -> None:
    """Also where nothing is given or taken that they do not hold."""
    second, nobody = await acme.person("owner"), await acme.person(None)
    organizations = OrganizationServiceStub(client.channel)
    renamed = UpdateOrganizationRequest(organization=Organization(id=str(acme.id), name="Theirs"))
    with psycopg.connect(dsn) as rival:
        rival.execute("SELECT FROM organizations FOR NO KEY UPDATE")
        calls = [
            asyncio.create_task(outcome(call))
            for call in (
                acme.update(me, nobody, role_ids=[str(await acme.role())]),
                acme.remove(me, nobody),
                acme.transfer(me, second),
                organizations.DeleteOrganization(DeleteOrganizationRequest(), metadata=me.headers),
                organizations.UpdateOrganization(renamed, metadata=me.headers),
            )
        ]
        while count(dsn, "pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") < 4:
            await asyncio.sleep(0.01)
        rival.execute("UPDATE members SET role = 'member' WHERE account_id = %s", [me.account_id])
    assert await asyncio.gather(*calls) == ["PERMISSION_DENIED"] * 5
    assert sorted(await acme.roles()) == [ROLE_UNSPECIFIED, ROLE_OWNER, ROLE_MEMBER]


# --- ownership --------------------------------------------------------------------------------------------------------
async def test_ownership_is_handed_over_whole(acme: Acme, me: Person) -> None:
    role_id = await acme.role()
    other = await acme.person("member", role_id)
    now = await acme.transfer(me, other)
    assert (now.account_id, now.role, list(now.role_ids)) == (str(other.account_id), ROLE_OWNER, [str(role_id)])
    assert sorted(await acme.roles()) == [ROLE_OWNER, ROLE_ADMIN]
    assert (await refusal(acme.transfer(me, other))).reason == "PERMISSION_DENIED"
    assert (await acme.transfer(other, me)).role == ROLE_OWNER


async def test_only_an_owner_hands_ownership_over(acme: Acme) -> None:
    """Also if a role of the organization's own holds the permission, with all others."""
    everything = await acme.role(*held("owner"))
    admin, custom, other = await acme.person("admin"), await acme.person("admin", everything), await acme.person()
    for who in (admin, custom):
        assert (await refusal(acme.transfer(who, other))).reason == "PERMISSION_DENIED"
    assert (await acme.the(other)).role == ROLE_MEMBER


async def test_ownership_is_not_handed_to_oneself(acme: Acme, me: Person) -> None:
    assert list((await refusal(acme.transfer(me, me))).violations) == ["account_id"]
    assert (await acme.the(me)).role == ROLE_OWNER


async def test_to_hand_ownership_over_wants_a_recent_sign_in(dsn: str, acme: Acme, me: Person) -> None:
    other = await acme.person()
    change(dsn, "UPDATE sessions SET authenticated_at = now() - interval '11 minutes' WHERE id = %s", me.session_id)
    assert (await refusal(acme.transfer(me, other))).reason == "SIGN_IN_NOT_FRESH"


async def test_of_fifty_hands_that_ownership_goes_through_at_once_one_holds_it(acme: Acme, me: Person) -> None:
    people = [me, *[await acme.person("admin") for _ in range(4)]]
    answers = await asyncio.gather(
        *(outcome(acme.transfer(people[n % 5], people[(n + 1 + n // 5 % 4) % 5])) for n in range(50))
    )
    assert (await acme.roles()).count(ROLE_OWNER) == 1
    assert "OK" in answers


# --- accounts that are deleted ----------------------------------------------------------------------------------------
async def test_a_deleted_account_belongs_to_nothing_any_more(dsn: str, client: Client, acme: Acme, me: Person) -> None:
    other = await acme.person("owner", await acme.role(PERMISSION_TASKS_READ))
    gone = await organization_of(client.database, other)
    await delete_organization(client.database, organization_id=gone)
    await client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=other.headers)
    assert [each.account_id for each in await acme.listed(me)] == [str(me.account_id)]
    assert (count(dsn, "members"), count(dsn, "member_roles")) == (1, 0)


async def test_an_account_that_is_refused_to_go_is_left_whole(client: Client, acme: Acme, me: Person) -> None:
    second = await acme.person("owner")
    alone = await organization_of(client.database, second)
    refused = await refusal(client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=second.headers))
    assert (refused.reason, refused.metadata) == ("LAST_OWNER", {"organization_id": str(alone)})
    assert (await acme.the(second)).role == ROLE_OWNER
    await acme.listed(second)
