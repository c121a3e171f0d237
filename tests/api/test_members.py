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
    """An organization. It is active in the sessions of the members created here."""

    def __init__(self, client: Client, organization_id: UUID, owner: Person) -> None:
        self._client = client
        self.members: MemberServiceAsyncStub = MemberServiceStub(client.channel)
        self.id = organization_id
        self.owner = owner

    async def new_member(self, role: str | None = "member", *role_ids: UUID) -> Person:
        """A new member with a session."""
        person = await self._client.new_user()
        await joined(self._client.database, self.id, person, role)
        await self.replace_roles(person, *role_ids)
        await activate(self._client.database, person, self.id)
        return person

    async def replace_roles(self, person: Person, *role_ids: UUID) -> None:
        await queries.replace_member_roles(
            self._client.database, organization_id=self.id, account_id=person.account_id, role_ids=role_ids
        )

    async def new_role(self, *permissions: AnyPermission) -> UUID:
        """The id of a new custom role."""
        role = await insert_role(
            self._client.database,
            role_id=uuid7(),
            organization_id=self.id,
            name=uuid4().hex,
            permissions=names(permissions),
        )
        return role.id

    async def list_all(self, caller: Person, **request: Any) -> list[Member]:
        """All pages."""
        found, token = list[Member](), ""
        while True:
            page = await self.members.ListMembers(
                ListMembersRequest(page_token=token, **request), metadata=caller.headers
            )
            found += page.members
            if not (token := page.next_page_token):
                return found

    async def get(self, person: Person) -> Member:
        [found] = [each for each in await self.list_all(self.owner) if each.account_id == str(person.account_id)]
        return found

    async def roles(self) -> list[Role.ValueType]:
        found = await queries.list_members(self._client.database, organization_id=self.id, page=Page(1000))
        return [Role.Value(f"ROLE_{each.role.upper()}") if each.role else ROLE_UNSPECIFIED for each in found]

    async def update(self, caller: Person, target: Person, *paths: str, **fields: Any) -> Member:
        member = Member(account_id=str(target.account_id), **fields)
        request = UpdateMemberRequest(member=member, update_mask=FieldMask(paths=paths))
        return (await self.members.UpdateMember(request, metadata=caller.headers)).member

    async def remove(self, caller: Person, target: Person) -> None:
        await self.members.RemoveMember(RemoveMemberRequest(account_id=str(target.account_id)), metadata=caller.headers)

    async def leave(self, caller: Person, organization_id: object = None) -> None:
        request = LeaveOrganizationRequest(organization_id=str(organization_id or self.id))
        await self.members.LeaveOrganization(request, metadata=caller.headers)

    async def transfer(self, caller: Person, target: Person) -> Member:
        request = TransferOwnershipRequest(account_id=str(target.account_id))
        return (await self.members.TransferOwnership(request, metadata=caller.headers)).member


@pytest.fixture
async def acme(client: Client, me: Person) -> Acme:
    """Owned by `me`."""
    organization_id = await organization_of(client.database, me)
    await activate(client.database, me, organization_id)
    return Acme(client, organization_id, me)


# --- list -------------------------------------------------------------------------------------------------------------
async def test_list_members_returns_account_fields_and_roles(acme: Acme, me: Person) -> None:
    role_ids = sorted([await acme.new_role(PERMISSION_TASKS_READ), await acme.new_role()])
    other = await acme.new_member("admin", *role_ids)
    theirs, mine = await acme.list_all(other)
    assert (theirs.account_id, theirs.email, theirs.display_name) == (str(other.account_id), other.email, "Some User")
    assert (theirs.role, list(theirs.role_ids)) == (ROLE_ADMIN, [str(role_id) for role_id in role_ids])
    assert theirs.etag
    assert theirs.created_at.ToDatetime() >= mine.created_at.ToDatetime()
    assert (mine.account_id, mine.role, list(mine.role_ids)) == (str(me.account_id), ROLE_OWNER, [])


async def test_list_members_pages_through_the_active_organization_only(client: Client, acme: Acme, me: Person) -> None:
    people = [me] + [await acme.new_member() for _ in range(4)]
    stranger = await client.new_user()
    await joined(client.database, await organization_of(client.database, stranger), people[1])
    found = await acme.list_all(me, page_size=2)
    assert [each.account_id for each in found] == [str(person.account_id) for person in reversed(people)]


async def test_a_page_token_of_another_organization_is_refused(client: Client, acme: Acme, me: Person) -> None:
    await acme.new_member()
    page = await acme.members.ListMembers(ListMembersRequest(page_size=1), metadata=me.headers)
    other = await client.new_user()
    await activate(client.database, other, await organization_of(client.database, other))
    request = ListMembersRequest(page_token=page.next_page_token)
    refused = await refusal(acme.members.ListMembers(request, metadata=other.headers))
    assert refused.reason == "PAGE_TOKEN_INVALID"


async def test_non_member_cannot_list_members(client: Client, acme: Acme) -> None:
    stranger = await client.new_user()
    await activate(client.database, stranger, acme.id)
    assert (await refusal(acme.list_all(stranger))).reason == "PERMISSION_DENIED"


# --- update -----------------------------------------------------------------------------------------------------------
async def test_update_member_changes_the_fields_of_the_mask(acme: Acme, me: Person) -> None:
    role_id = await acme.new_role(PERMISSION_TASKS_READ)
    other = await acme.new_member("member")
    before = await acme.get(other)
    now = await acme.update(me, other, role=ROLE_ADMIN)
    assert (now.role, list(now.role_ids)) == (ROLE_ADMIN, [])
    assert now.etag != before.etag
    now = await acme.update(me, other, "role_ids", role_ids=[str(role_id)], role=ROLE_MEMBER)
    assert (now.role, list(now.role_ids)) == (ROLE_ADMIN, [str(role_id)])
    now = await acme.update(me, other, "role")
    assert (now.role, list(now.role_ids)) == (ROLE_UNSPECIFIED, [str(role_id)])
    now = await acme.update(me, other, "role", "role_ids", role=ROLE_MEMBER)
    assert (now.role, list(now.role_ids)) == (ROLE_MEMBER, [])
    assert await acme.get(other) == now


async def test_roles_are_replaced_and_not_added(acme: Acme, me: Person) -> None:
    first, second, third = [str(await acme.new_role()) for _ in range(3)]
    other = await acme.new_member()
    await acme.update(me, other, role_ids=[first, second])
    now = await acme.update(me, other, role_ids=[third, second])
    assert sorted(now.role_ids) == sorted([second, third])


async def test_role_change_takes_effect_on_the_next_call(acme: Acme, me: Person) -> None:
    other = await acme.new_member("member")
    for _ in range(2):
        await acme.list_all(other)
        await acme.update(me, other, "role")
        assert (await refusal(acme.list_all(other))).reason == "PERMISSION_DENIED"
        await acme.update(me, other, role_ids=[str(await acme.new_role(PERMISSION_MEMBERS_READ))])
        await acme.list_all(other)
        await acme.update(me, other, "role_ids")
        assert (await refusal(acme.list_all(other))).reason == "PERMISSION_DENIED"
        await acme.update(me, other, role=ROLE_MEMBER)


async def test_update_with_a_stale_etag_changes_nothing(acme: Acme, me: Person) -> None:
    other = await acme.new_member()
    before = await acme.get(other)
    now = await acme.update(me, other, role=ROLE_ADMIN, etag=before.etag)
    refused = await refusal(acme.update(me, other, role=ROLE_OWNER, etag=before.etag))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert await acme.get(other) == now


async def test_member_of_another_organization_is_not_found(dsn: str, client: Client, acme: Acme, me: Person) -> None:
    foreign = await client.new_user()
    await organization_of(client.database, foreign, "member")
    absent = Person(uuid4(), uuid4(), "", "")
    for target in (foreign, absent):
        for call in (acme.update(me, target, role=ROLE_ADMIN), acme.remove(me, target), acme.transfer(me, target)):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "MEMBER_NOT_FOUND")
            assert refused.metadata == {"account_id": str(target.account_id)}
    assert count(dsn, "members WHERE role = 'member'") == 1


async def test_role_of_another_organization_cannot_be_assigned(client: Client, acme: Acme, me: Person) -> None:
    stranger = await client.new_user()
    elsewhere = Acme(client, await organization_of(client.database, stranger), stranger)
    other = await acme.new_member()
    for role_id in (await elsewhere.new_role(PERMISSION_TASKS_READ), uuid4()):
        refused = await refusal(acme.update(me, other, role_ids=[str(await acme.new_role()), str(role_id)]))
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ROLE_NOT_FOUND")
        assert refused.metadata == {"role_id": str(role_id)}
    assert list((await acme.get(other)).role_ids) == []


@pytest.mark.parametrize("path", ["account_id", "email", "display_name", "created_at", "etag", "*", "permissions"])
async def test_mask_cannot_name_a_read_only_field(acme: Acme, me: Person, path: str) -> None:
    other = await acme.new_member()
    before = await acme.get(other)
    refused = await refusal(acme.update(me, other, path, email="other@example.com", display_name="Else"))
    assert list(refused.violations) == ["update_mask"]
    assert await acme.get(other) == before


async def test_unknown_role_is_refused(acme: Acme, me: Person) -> None:
    other = await acme.new_member()
    assert (await refusal(acme.update(me, other, role=9))).reason == "INVALID_MESSAGE"


async def test_member_without_permission_cannot_update_or_remove_members(acme: Acme) -> None:
    one, other = await acme.new_member("member"), await acme.new_member(None)
    for call in (acme.update(one, other, role=ROLE_MEMBER), acme.update(one, one, role=ROLE_OWNER)):
        assert (await refusal(call)).reason == "PERMISSION_DENIED"
    assert (await refusal(acme.remove(one, other))).reason == "PERMISSION_DENIED"


# --- privilege escalation -------------------------------------------------------------------------------------------
async def test_admin_cannot_update_or_remove_an_owner(acme: Acme, me: Person) -> None:
    admin, second = await acme.new_member("admin"), await acme.new_member("owner")
    for target in (me, second):
        for call in (
            acme.update(admin, target, role=ROLE_MEMBER),
            acme.update(admin, target, "role"),
            acme.update(admin, target, role_ids=[str(await acme.new_role())]),
            acme.remove(admin, target),
        ):
            assert (await refusal(call)).reason == "PERMISSION_DENIED"
    assert (await acme.roles()).count(ROLE_OWNER) == 2


async def test_admin_cannot_assign_the_owner_role(acme: Acme) -> None:
    admin, other = await acme.new_member("admin"), await acme.new_member()
    for target in (admin, other):
        assert (await refusal(acme.update(admin, target, role=ROLE_OWNER))).reason == "PERMISSION_DENIED"
    assert (await acme.update(admin, other, role=ROLE_ADMIN)).role == ROLE_ADMIN


async def test_only_owners_can_assign_or_change_owners(acme: Acme, me: Person) -> None:
    """A caller whose custom roles grant every permission is refused too."""
    rest = await acme.new_role(PERMISSION_ORGANIZATION_DELETE, PERMISSION_ORGANIZATION_TRANSFER)
    custom, other, second = (
        await acme.new_member("admin", rest),
        await acme.new_member(),
        await acme.new_member("owner"),
    )
    for call in (
        acme.update(custom, custom, role=ROLE_OWNER),
        acme.update(custom, other, role=ROLE_OWNER),
        acme.update(custom, second, role=ROLE_MEMBER),
        acme.update(custom, second, "role_ids"),
        acme.remove(custom, me),
    ):
        assert (await refusal(call)).reason == "PERMISSION_DENIED"
    assert sorted(await acme.roles()) == [ROLE_OWNER, ROLE_OWNER, ROLE_ADMIN, ROLE_MEMBER]


async def test_role_can_be_assigned_and_removed_only_by_holders_of_its_permissions(acme: Acme) -> None:
    within = await acme.new_role(PERMISSION_TASKS_READ, PERMISSION_MEMBERS_WRITE)
    beyond = await acme.new_role(PERMISSION_TASKS_READ, PERMISSION_ORGANIZATION_TRANSFER)
    admin, other, holder = await acme.new_member("admin"), await acme.new_member(), await acme.new_member(None, beyond)
    assert list((await acme.update(admin, other, role_ids=[str(within)])).role_ids) == [str(within)]
    assert list((await acme.update(admin, other, "role_ids")).role_ids) == []
    assert (await refusal(acme.update(admin, other, role_ids=[str(beyond)]))).reason == "PERMISSION_DENIED"
    assert (await refusal(acme.update(admin, admin, role_ids=[str(beyond)]))).reason == "PERMISSION_DENIED"
    assert (await refusal(acme.update(admin, holder, "role_ids"))).reason == "PERMISSION_DENIED"
    assert (await refusal(acme.remove(admin, holder))).reason == "PERMISSION_DENIED"
    assert list((await acme.get(holder)).role_ids) == [str(beyond)]


async def test_permissions_of_custom_roles_count_as_held(acme: Acme) -> None:
    role_id = await acme.new_role(PERMISSION_MEMBERS_WRITE, PERMISSION_TASKS_READ)
    custom, other, admin = (
        await acme.new_member(None, role_id),
        await acme.new_member(None),
        await acme.new_member("admin"),
    )
    now = await acme.update(custom, other, role_ids=[str(await acme.new_role(PERMISSION_TASKS_READ))])
    assert len(now.role_ids) == 1
    assert (await refusal(acme.update(custom, other, role=ROLE_MEMBER))).reason == "PERMISSION_DENIED"
    assert (await refusal(acme.remove(custom, admin))).reason == "PERMISSION_DENIED"


# --- remove and leave -------------------------------------------------------------------------------------------------
async def test_removed_member_has_no_access_on_the_next_call(dsn: str, acme: Acme, me: Person) -> None:
    other = await acme.new_member("admin", await acme.new_role(PERMISSION_TASKS_READ))
    await acme.list_all(other)
    await acme.remove(me, other)
    assert (await refusal(acme.list_all(other))).reason == "PERMISSION_DENIED"
    assert (await refusal(acme.remove(me, other))).reason == "MEMBER_NOT_FOUND"
    assert count(dsn, "member_roles") == 0


@pytest.mark.parametrize("how", ["removed", "left"])
async def test_keys_and_invitations_of_a_former_member_stay_invalid_after_rejoining(
    client: Client, acme: Acme, how: str
) -> None:
    other, guest = await acme.new_member("admin"), await client.new_user()
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


async def test_member_can_leave_an_organization_that_is_not_active(client: Client, acme: Acme) -> None:
    other = await acme.new_member(None)
    await activate(client.database, other, None)
    await acme.leave(other)
    assert await acme.roles() == [ROLE_OWNER]
    refused = await refusal(acme.leave(other))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ORGANIZATION_NOT_FOUND")
    assert refused.metadata == {"organization_id": str(acme.id)}


async def test_member_who_left_has_no_access_on_the_next_call(acme: Acme) -> None:
    other = await acme.new_member("owner")
    await acme.list_all(other)
    await acme.leave(other)
    assert (await refusal(acme.list_all(other))).reason == "PERMISSION_DENIED"


async def test_organization_of_others_or_deleted_organization_cannot_be_left(client: Client, acme: Acme) -> None:
    stranger, member = await client.new_user(), await acme.new_member()
    for organization_id in (acme.id, uuid4()):
        refused = await refusal(acme.leave(stranger, organization_id))
        assert (refused.reason, refused.metadata) == (
            "ORGANIZATION_NOT_FOUND",
            {"organization_id": str(organization_id)},
        )
    await delete_organization(client.database, organization_id=acme.id)
    assert (await refusal(acme.leave(member))).reason == "ORGANIZATION_NOT_FOUND"


# --- cache invalidation ---------------------------------------------------------------------------------------------
async def test_every_membership_change_notifies_all_processes(dsn: str, client: Client, acme: Acme, me: Person) -> None:
    organizations = OrganizationServiceStub(client.channel)
    undelete = UndeleteOrganizationRequest(organization_id=str(acme.id))
    one, two, three = [await acme.new_member() for _ in range(3)]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"LISTEN {REVOKED_CHANNEL}".encode())
        for call in (
            lambda: acme.update(me, one, role=ROLE_ADMIN),
            lambda: acme.remove(me, one),
            lambda: acme.leave(two),
            lambda: client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=three.headers),
            lambda: organizations.DeleteOrganization(DeleteOrganizationRequest(), metadata=me.headers),
            lambda: organizations.UndeleteOrganization(undelete, metadata=me.headers),
        ):
            await call()
            # any() stops at the first match and does not wait for the timeout.
            assert any(notice.payload == str(acme.id) for notice in connection.notifies(timeout=10))


# --- the last owner ---------------------------------------------------------------------------------------------------
async def test_last_owner_cannot_be_demoted_or_removed(client: Client, acme: Acme, me: Person) -> None:
    await acme.new_member("admin")
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
    assert (await acme.get(me)).role == ROLE_OWNER


async def test_one_of_two_owners_can_be_demoted_or_removed(acme: Acme, me: Person) -> None:
    second = await acme.new_member("owner")
    assert (await acme.update(second, me, role=ROLE_ADMIN)).role == ROLE_ADMIN
    assert (await refusal(acme.leave(second))).reason == "LAST_OWNER"
    await acme.update(second, me, role=ROLE_OWNER)
    await acme.remove(me, second)
    assert await acme.roles() == [ROLE_OWNER]


async def test_owner_stays_owner_when_role_ids_change(acme: Acme, me: Person) -> None:
    now = await acme.update(me, me, role_ids=[str(await acme.new_role())])
    assert now.role == ROLE_OWNER


@pytest.mark.parametrize("way", ["demote", "remove", "leave", "delete account", "all of these"])
async def test_one_of_two_owners_remains_after_fifty_concurrent_calls(
    client: Client, acme: Acme, me: Person, way: str
) -> None:
    second = await acme.new_member("owner")
    ways: dict[str, Callable[[Person, Person], Awaitable[object]]] = {
        "demote": lambda caller, target: acme.update(caller, target, role=ROLE_ADMIN),
        "remove": acme.remove,
        "leave": lambda caller, _: acme.leave(caller),
        "delete account": lambda caller, _: client.accounts.DeleteAccount(
            DeleteAccountRequest(), metadata=caller.headers
        ),
    }
    chosen = [ways[way]] if way in ways else list(ways.values())
    pairs = [(me, second), (second, me), (me, me), (second, second)]
    calls = [chosen[n % len(chosen)](*pairs[n // len(chosen) % len(pairs)]) for n in range(50)]
    outcomes = await asyncio.gather(*map(outcome, calls))
    assert (await acme.roles()).count(ROLE_OWNER) == 1
    assert "OK" in outcomes
    assert set(outcomes) <= {
        "OK",
        "LAST_OWNER",
        "PERMISSION_DENIED",
        "MEMBER_NOT_FOUND",
        "ORGANIZATION_NOT_FOUND",
        "CREDENTIAL_INVALID",
    }


async def test_admin_removed_during_their_call_cannot_remove_another(dsn: str, acme: Acme) -> None:
    admins = [await acme.new_member("admin") for _ in range(8)]
    for admin in admins:
        await acme.list_all(admin)  # caches the permission
    pairs = [(caller, target) for caller in admins for target in admins if caller is not target]
    outcomes = await asyncio.gather(*(outcome(acme.remove(caller, target)) for caller, target in pairs[:50]))
    removal = "method LIKE '%RemoveMember' AND code = 'OK'"
    assert (
        count(dsn, f"audit_events WHERE {removal}")
        == outcomes.count("OK")
        == 8 - (await acme.roles()).count(ROLE_ADMIN)
    )
    # Ids are generated while the transaction holds the lock, so they are in the order of the removals.
    earlier = f"SELECT FROM audit_events e WHERE {removal} AND e.target = audit_events.account_id::text"
    assert count(dsn, f"audit_events WHERE {removal} AND EXISTS ({earlier} AND e.id < audit_events.id)") == 0


async def test_call_of_a_non_member_does_not_wait_for_the_organization_lock(
    dsn: str, client: Client, acme: Acme
) -> None:
    """Otherwise the caller could detect that the organization exists, and block changes by its members."""
    stranger, named = await client.new_user(), UndeleteOrganizationRequest(organization_id=str(acme.id))
    undeleted = OrganizationServiceStub(client.channel).UndeleteOrganization
    with psycopg.connect(dsn) as rival:
        rival.execute("SELECT FROM organizations FOR NO KEY UPDATE")
        assert await outcome(acme.leave(stranger)) == "ORGANIZATION_NOT_FOUND"
        assert await outcome(undeleted(named, metadata=stranger.headers)) == "ORGANIZATION_NOT_FOUND"


async def test_caller_who_loses_the_permission_during_the_call_is_refused(
    dsn: str, client: Client, acme: Acme, me: Person
) -> None:
    """Even if the call grants and removes nothing that the caller does not hold."""
    second, plain = await acme.new_member("owner"), await acme.new_member(None)
    organizations = OrganizationServiceStub(client.channel)
    renamed = UpdateOrganizationRequest(organization=Organization(id=str(acme.id), name="Theirs"))
    with psycopg.connect(dsn) as rival:
        rival.execute("SELECT FROM organizations FOR NO KEY UPDATE")
        calls = [
            asyncio.create_task(outcome(call))
            for call in (
                acme.update(me, plain, role_ids=[str(await acme.new_role())]),
                acme.remove(me, plain),
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
async def test_transfer_makes_the_target_owner_and_the_caller_admin(acme: Acme, me: Person) -> None:
    role_id = await acme.new_role()
    other = await acme.new_member("member", role_id)
    now = await acme.transfer(me, other)
    assert (now.account_id, now.role, list(now.role_ids)) == (str(other.account_id), ROLE_OWNER, [str(role_id)])
    assert sorted(await acme.roles()) == [ROLE_OWNER, ROLE_ADMIN]
    assert (await refusal(acme.transfer(me, other))).reason == "PERMISSION_DENIED"
    assert (await acme.transfer(other, me)).role == ROLE_OWNER


async def test_only_an_owner_can_transfer_ownership(acme: Acme) -> None:
    """A caller whose custom role grants every permission is refused too."""
    everything = await acme.new_role(*held("owner"))
    admin, custom, other = (
        await acme.new_member("admin"),
        await acme.new_member("admin", everything),
        await acme.new_member(),
    )
    for caller in (admin, custom):
        assert (await refusal(acme.transfer(caller, other))).reason == "PERMISSION_DENIED"
    assert (await acme.get(other)).role == ROLE_MEMBER


async def test_ownership_cannot_be_transferred_to_the_caller(acme: Acme, me: Person) -> None:
    assert list((await refusal(acme.transfer(me, me))).violations) == ["account_id"]
    assert (await acme.get(me)).role == ROLE_OWNER


async def test_ownership_transfer_requires_a_recent_sign_in(dsn: str, acme: Acme, me: Person) -> None:
    other = await acme.new_member()
    change(dsn, "UPDATE sessions SET authenticated_at = now() - interval '11 minutes' WHERE id = %s", me.session_id)
    assert (await refusal(acme.transfer(me, other))).reason == "SIGN_IN_NOT_FRESH"


async def test_one_owner_remains_after_fifty_concurrent_transfers(acme: Acme, me: Person) -> None:
    people = [me, *[await acme.new_member("admin") for _ in range(4)]]
    outcomes = await asyncio.gather(
        *(outcome(acme.transfer(people[n % 5], people[(n + 1 + n // 5 % 4) % 5])) for n in range(50))
    )
    assert (await acme.roles()).count(ROLE_OWNER) == 1
    assert "OK" in outcomes


# --- accounts that are deleted ----------------------------------------------------------------------------------------
async def test_deleted_account_has_no_memberships(dsn: str, client: Client, acme: Acme, me: Person) -> None:
    other = await acme.new_member("owner", await acme.new_role(PERMISSION_TASKS_READ))
    gone = await organization_of(client.database, other)
    await delete_organization(client.database, organization_id=gone)
    await client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=other.headers)
    assert [each.account_id for each in await acme.list_all(me)] == [str(me.account_id)]
    assert (count(dsn, "members"), count(dsn, "member_roles")) == (1, 0)


async def test_account_whose_deletion_is_refused_keeps_its_memberships(client: Client, acme: Acme, me: Person) -> None:
    second = await acme.new_member("owner")
    alone = await organization_of(client.database, second)
    refused = await refusal(client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=second.headers))
    assert (refused.reason, refused.metadata) == ("LAST_OWNER", {"organization_id": str(alone)})
    assert (await acme.get(second)).role == ROLE_OWNER
    await acme.list_all(second)
