import asyncio
from datetime import UTC, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import grpc
import pytest
from psycopg import sql
from sqlalchemy import func, select

from accord.invitations.v1.invitations_pb2 import (
    AcceptInvitationRequest,
    CancelInvitationRequest,
    CreateInvitationRequest,
    DeclineInvitationRequest,
    Invitation,
    InvitationStatus,
    ListInvitationsRequest,
)
from accord.invitations.v1.invitations_pb2_grpc import InvitationServiceStub
from accord.members.v1.members_pb2 import Member, RemoveMemberRequest, UpdateMemberRequest
from accord.members.v1.members_pb2_grpc import MemberServiceStub
from accord.organizations.v1.organizations_pb2 import DeleteOrganizationRequest
from accord.organizations.v1.organizations_pb2_grpc import OrganizationServiceStub
from accord.policy.v1.policy_pb2 import (
    PERMISSION_INVITATIONS_WRITE,
    PERMISSION_TASKS_READ,
    PERMISSION_TASKS_WRITE,
    ROLE_ADMIN,
    ROLE_MEMBER,
    ROLE_OWNER,
    ROLE_UNSPECIFIED,
    Role,
)
from accord_api.outbox import Mail
from accord_auth.tokens import new_token
from accord_db.queries import accounts, members, roles
from accord_db.schema import AuditEvent
from accord_db.schema import Invitation as Row
from accord_db.schema import Member as MemberRow
from accord_rpc.permissions import AnyPermission, held, names
from tests.api.conftest import Client, outcome, refusal
from tests.api.mailbox import mailed, mailed_token
from tests.conftest import execute
from tests.factories import Person, activate, joined, organization_of

if TYPE_CHECKING:
    from accord.invitations.v1.invitations_pb2_grpc import InvitationServiceAsyncStub

PENDING, ACCEPTED, DECLINED, CANCELLED, EXPIRED = (
    InvitationStatus.INVITATION_STATUS_PENDING,
    InvitationStatus.INVITATION_STATUS_ACCEPTED,
    InvitationStatus.INVITATION_STATUS_DECLINED,
    InvitationStatus.INVITATION_STATUS_CANCELLED,
    InvitationStatus.INVITATION_STATUS_EXPIRED,
)


@pytest.fixture
def invitations(client: Client) -> "InvitationServiceAsyncStub":
    return InvitationServiceStub(client.channel)


@pytest.fixture
async def ours(client: Client, me: Person) -> UUID:
    """An organization owned by `me`, active in the session."""
    organization_id = await organization_of(client.database, me)
    await activate(client.database, me, organization_id)
    return organization_id


@pytest.fixture
async def guest(client: Client) -> Person:
    return await client.new_user()


async def member(client: Client, organization_id: UUID, role: str | None, *role_ids: UUID) -> Person:
    """Another member with the organization active in the session."""
    person = await client.new_user()
    await joined(client.database, organization_id, person, role)
    await members.replace_member_roles(
        client.database, organization_id=organization_id, account_id=person.account_id, role_ids=role_ids
    )
    await activate(client.database, person, organization_id)
    return person


async def new_role(client: Client, organization_id: UUID, *permissions: AnyPermission) -> UUID:
    role = await roles.insert_role(
        client.database,
        role_id=uuid4(),
        organization_id=organization_id,
        name=uuid4().hex,
        permissions=names(permissions),
    )
    return role.id


async def invite(
    invitations: "InvitationServiceAsyncStub",
    caller: Person,
    email: str,
    role: Role.ValueType = ROLE_MEMBER,
    *role_ids: UUID,
    request_id: str = "",
) -> Invitation:
    request = CreateInvitationRequest(email=email, role=role, role_ids=map(str, role_ids), request_id=request_id)
    return (await invitations.CreateInvitation(request, metadata=caller.headers)).invitation


async def token_for(client: Client, person: Person) -> str:
    return await mailed_token(client.database, person.email, Mail.INVITATION)


async def accept(invitations: "InvitationServiceAsyncStub", caller: Person, token: str) -> str:
    request = AcceptInvitationRequest(token=token)
    return (await invitations.AcceptInvitation(request, metadata=caller.headers)).organization_id


async def decline(invitations: "InvitationServiceAsyncStub", caller: Person, token: str) -> None:
    await invitations.DeclineInvitation(DeclineInvitationRequest(token=token), metadata=caller.headers)


async def cancel(invitations: "InvitationServiceAsyncStub", caller: Person, invitation_id: str) -> Invitation:
    request = CancelInvitationRequest(invitation_id=invitation_id)
    return (await invitations.CancelInvitation(request, metadata=caller.headers)).invitation


async def list_(
    invitations: "InvitationServiceAsyncStub", caller: Person, *, show_ended: bool = False
) -> list[Invitation]:
    request = ListInvitationsRequest(show_ended=show_ended)
    return list((await invitations.ListInvitations(request, metadata=caller.headers)).invitations)


async def is_member(client: Client, organization_id: UUID, person: Person) -> bool:
    found = await members.get_member(client.database, organization_id=organization_id, account_id=person.account_id)
    return found is not None


async def assert_not_found(invitations: "InvitationServiceAsyncStub", caller: Person, token: str) -> None:
    refused = await refusal(accept(invitations, caller, token))
    absent = await refusal(accept(invitations, caller, new_token("acj_")))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "INVITATION_NOT_FOUND")
    assert refused == absent


def move_expiry_back(dsn: str, interval: str) -> None:
    execute(dsn, sql.SQL("UPDATE invitations SET expires_at = expires_at - {}::interval").format(interval))


# --- invite and accept --------------------------------------------------------------------------------------------------
async def test_accepting_an_invitation_creates_a_member_with_its_roles(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    role_id = await new_role(client, ours, PERMISSION_TASKS_READ)
    invitation = await invite(invitations, me, guest.email, ROLE_ADMIN, role_id)
    assert UUID(invitation.id).version == 7
    assert (invitation.email, invitation.role, list(invitation.role_ids)) == (guest.email, ROLE_ADMIN, [str(role_id)])
    assert (invitation.created_by, invitation.status) == (str(me.account_id), PENDING)
    assert invitation.expires_at.ToDatetime(UTC) - invitation.created_at.ToDatetime(UTC) == timedelta(days=7)
    assert not invitation.HasField("ended_at")
    assert not await is_member(client, ours, guest)
    assert await accept(invitations, guest, await token_for(client, guest)) == str(ours)
    found = await members.get_member(client.database, organization_id=ours, account_id=guest.account_id)
    assert found
    assert (found.role, found.role_ids) == ("admin", [role_id])
    [over] = await list_(invitations, me, show_ended=True)
    assert (over.id, over.status) == (invitation.id, ACCEPTED)
    assert over.HasField("ended_at")


async def test_new_member_has_access_on_the_next_call(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    await activate(client.database, guest, ours)
    await invite(invitations, me, guest.email, ROLE_ADMIN)
    assert await outcome(list_(invitations, guest)) == "PERMISSION_DENIED"  # caches the refusal
    await accept(invitations, guest, await token_for(client, guest))
    assert await outcome(list_(invitations, guest)) == "OK"


async def test_email_names_inviter_and_organization_and_only_the_email_contains_the_token(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    invitation = await invite(invitations, me, guest.email)
    [email] = await mailed(client.database, guest.email)
    token = email.values["token"]
    assert email.template == Mail.INVITATION
    assert email.values == {"inviter": "Some User", "organization": "Some Organization", "token": token}
    assert token.startswith("acj_")
    rows = await client.database.fetch_all(select(func.row_to_json(Row.__table__.table_valued())))  # type: ignore[attr-defined]
    assert token not in str(rows)
    assert token not in str(invitation)


async def test_invitation_can_be_accepted_once(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    await invite(invitations, me, guest.email)
    token = await token_for(client, guest)
    await accept(invitations, guest, token)
    await members.delete_member(client.database, organization_id=ours, account_id=guest.account_id)
    await assert_not_found(invitations, guest, token)
    assert await outcome(decline(invitations, guest, token)) == "INVITATION_NOT_FOUND"
    assert not await is_member(client, ours, guest)


async def test_one_of_fifty_concurrent_acceptances_succeeds_and_creates_one_member(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    await invite(invitations, me, guest.email)
    token = await token_for(client, guest)
    outcomes = await asyncio.gather(*(outcome(accept(invitations, guest, token)) for _ in range(50)))
    assert sorted(outcomes) == sorted(["OK"] + ["INVITATION_NOT_FOUND"] * 49)
    member_count = select(func.count()).select_from(MemberRow).where(MemberRow.organization_id == ours)
    assert await client.database.fetch_one(member_count) == 2  # the owner and the guest


async def test_only_one_of_concurrent_accept_decline_and_cancel_takes_effect(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID
) -> None:
    for _ in range(10):
        guest = await client.new_user()
        invitation = await invite(invitations, me, guest.email)
        token = await token_for(client, guest)
        accepted, declined, cancelled = await asyncio.gather(
            outcome(accept(invitations, guest, token)),
            outcome(decline(invitations, guest, token)),
            cancel(invitations, me, invitation.id),
        )
        [over] = [each for each in await list_(invitations, me, show_ended=True) if each.id == invitation.id]
        assert [accepted, declined].count("OK") == (over.status in (ACCEPTED, DECLINED))
        assert cancelled == over
        assert (accepted == "OK") == (over.status == ACCEPTED) == await is_member(client, ours, guest)


async def test_declined_invitation_creates_no_member_and_cannot_be_accepted(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    await invite(invitations, me, guest.email)
    token = await token_for(client, guest)
    await decline(invitations, guest, token)
    await assert_not_found(invitations, guest, token)
    assert [each.status for each in await list_(invitations, me, show_ended=True)] == [DECLINED]
    await invite(invitations, me, guest.email)  # a new invitation is allowed
    assert await accept(invitations, guest, await token_for(client, guest))


async def test_member_cannot_accept_an_invitation_and_it_stays_pending(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    await invite(invitations, me, guest.email, ROLE_ADMIN)
    await joined(client.database, ours, guest)
    refused = await refusal(accept(invitations, guest, await token_for(client, guest)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "MEMBER_EXISTS")
    found = await members.get_member(client.database, organization_id=ours, account_id=guest.account_id)
    assert found
    assert found.role == "member"
    assert [each.status for each in await list_(invitations, me)] == [PENDING]


# --- email address ------------------------------------------------------------------------------------------------------
async def test_invitation_for_another_address_is_not_found(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    await invite(invitations, me, guest.email)
    token, other = await token_for(client, guest), await client.new_user()
    for caller in (other, me):
        await assert_not_found(invitations, caller, token)
        assert await refusal(decline(invitations, caller, token)) == await refusal(
            decline(invitations, caller, "nonsense")
        )
    assert await accept(invitations, guest, token) == str(ours)


async def test_accept_and_decline_require_a_verified_email_for_any_token(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person, dsn: str
) -> None:
    await invite(invitations, me, guest.email)
    token = await token_for(client, guest)
    execute(dsn, sql.SQL("UPDATE accounts SET email_verified_at = NULL WHERE email = {}").format(guest.email))
    for tried in (token, new_token("acj_"), "nonsense"):
        assert await outcome(accept(invitations, guest, tried)) == "EMAIL_NOT_VERIFIED"
        assert await outcome(decline(invitations, guest, tried)) == "EMAIL_NOT_VERIFIED"
    await accounts.update_email_verified(client.database, account_id=guest.account_id, email=guest.email)
    assert await accept(invitations, guest, token) == str(ours)


async def test_account_whose_email_changed_cannot_accept(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    await invite(invitations, me, guest.email)
    token = await token_for(client, guest)
    await accounts.update_email(client.database, account_id=guest.account_id, email=f"{uuid4().hex}@example.com")
    await assert_not_found(invitations, guest, token)


async def test_email_of_an_invitation_is_case_insensitive(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    assert (await invite(invitations, me, guest.email.upper())).email == guest.email
    assert await accept(invitations, guest, await token_for(client, guest)) == str(ours)


async def test_caller_with_an_unverified_email_cannot_invite(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person, dsn: str
) -> None:
    execute(dsn, sql.SQL("UPDATE accounts SET email_verified_at = NULL WHERE email = {}").format(me.email))
    assert await outcome(invite(invitations, me, guest.email)) == "EMAIL_NOT_VERIFIED"
    assert await mailed(client.database, guest.email) == []


# --- invalid invitations ------------------------------------------------------------------------------------------------
async def test_invitation_expires_after_seven_days(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person, dsn: str
) -> None:
    await invite(invitations, me, guest.email)
    token = await token_for(client, guest)
    move_expiry_back(dsn, "7 days 1 second")
    await assert_not_found(invitations, guest, token)
    assert await list_(invitations, me) == []
    assert [each.status for each in await list_(invitations, me, show_ended=True)] == [EXPIRED]
    move_expiry_back(dsn, "-1 minute")
    assert await accept(invitations, guest, token) == str(ours)


async def test_cancelled_invitation_is_not_found(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    invitation = await invite(invitations, me, guest.email)
    cancelled = await cancel(invitations, me, invitation.id)
    assert cancelled.status == CANCELLED
    assert await cancel(invitations, me, invitation.id) == cancelled  # cancelling twice has no effect
    await assert_not_found(invitations, guest, await token_for(client, guest))


async def test_invitation_to_a_deleted_organization_is_not_found(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    await invite(invitations, me, guest.email)
    token = await token_for(client, guest)
    await OrganizationServiceStub(client.channel).DeleteOrganization(DeleteOrganizationRequest(), metadata=me.headers)
    await assert_not_found(invitations, guest, token)
    assert await outcome(decline(invitations, guest, token)) == "INVITATION_NOT_FOUND"
    assert not await is_member(client, ours, guest)


@pytest.mark.parametrize("role", [ROLE_MEMBER, ROLE_UNSPECIFIED])
async def test_invitation_of_a_demoted_or_removed_inviter_is_not_found(
    client: Client,
    invitations: "InvitationServiceAsyncStub",
    me: Person,
    ours: UUID,
    guest: Person,
    role: Role.ValueType,
) -> None:
    inviter, members_stub = await member(client, ours, "admin"), MemberServiceStub(client.channel)
    await invite(invitations, inviter, guest.email)
    token = await token_for(client, guest)
    if role:
        request = UpdateMemberRequest(member=Member(account_id=str(inviter.account_id), role=role))
        await members_stub.UpdateMember(request, metadata=me.headers)
    else:
        gone = RemoveMemberRequest(account_id=str(inviter.account_id))
        await members_stub.RemoveMember(gone, metadata=me.headers)
    await assert_not_found(invitations, guest, token)
    assert not await is_member(client, ours, guest)


@pytest.mark.parametrize("column", ["banned_at", "deleted_at"])
async def test_invitation_of_a_banned_or_deleted_inviter_is_not_found(
    client: Client, invitations: "InvitationServiceAsyncStub", ours: UUID, guest: Person, dsn: str, column: str
) -> None:
    inviter = await member(client, ours, "admin")
    await invite(invitations, inviter, guest.email)
    token = await token_for(client, guest)
    statement = sql.SQL("UPDATE accounts SET {} = now() WHERE email = {}")
    execute(dsn, statement.format(sql.Identifier(column), inviter.email))
    await assert_not_found(invitations, guest, token)


async def test_invitation_with_permissions_the_inviter_does_not_hold_on_acceptance_is_not_found(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    """A role of the invitation gained a permission that the inviter does not hold."""
    role_id = await new_role(client, ours, PERMISSION_TASKS_READ)
    inviting = await new_role(client, ours, PERMISSION_INVITATIONS_WRITE, PERMISSION_TASKS_READ)
    inviter = await member(client, ours, None, inviting)
    await invite(invitations, inviter, guest.email, ROLE_UNSPECIFIED, role_id)
    token = await token_for(client, guest)
    changes = roles.RoleChanges(permissions=names([PERMISSION_TASKS_READ, PERMISSION_TASKS_WRITE]))
    await roles.update_role(client.database, role_id=role_id, organization_id=ours, changes=changes)
    await assert_not_found(invitations, guest, token)
    changes = roles.RoleChanges(permissions=names([PERMISSION_TASKS_READ]))
    await roles.update_role(client.database, role_id=role_id, organization_id=ours, changes=changes)
    assert await accept(invitations, guest, token) == str(ours)


async def test_deleted_roles_of_an_invitation_are_not_assigned(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    gone, stays = await new_role(client, ours), await new_role(client, ours, PERMISSION_TASKS_READ)
    await invite(invitations, me, guest.email, ROLE_UNSPECIFIED, gone, stays)
    await roles.delete_role(client.database, role_id=gone, organization_id=ours)
    await accept(invitations, guest, await token_for(client, guest))
    found = await members.get_member(client.database, organization_id=ours, account_id=guest.account_id)
    assert found
    assert (found.role, found.role_ids) == (None, [stays])


# --- privilege escalation -----------------------------------------------------------------------------------------------
async def test_member_cannot_invite_with_roles_they_do_not_hold(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    admin = await member(client, ours, "admin")
    inviting = await member(client, ours, None, await new_role(client, ours, PERMISSION_INVITATIONS_WRITE))
    more = await new_role(client, ours, PERMISSION_TASKS_READ)
    for caller, role, role_ids in (
        (admin, ROLE_OWNER, ()),
        (inviting, ROLE_OWNER, ()),
        (inviting, ROLE_ADMIN, ()),
        (inviting, ROLE_MEMBER, ()),
        (inviting, ROLE_UNSPECIFIED, (more,)),
    ):
        refused = await refusal(invite(invitations, caller, guest.email, role, *role_ids))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert await mailed(client.database, guest.email) == []
    assert await list_(invitations, me, show_ended=True) == []
    assert await outcome(invite(invitations, admin, guest.email, ROLE_ADMIN)) == "OK"


async def test_only_owners_can_invite_owners_or_cancel_such_invitations(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    custom = await member(client, ours, None, await new_role(client, ours, *held("owner")))
    assert await outcome(invite(invitations, custom, guest.email, ROLE_OWNER)) == "PERMISSION_DENIED"
    invitation = await invite(invitations, me, guest.email, ROLE_OWNER)
    assert await outcome(cancel(invitations, custom, invitation.id)) == "PERMISSION_DENIED"


async def test_owner_invitation_of_a_former_owner_is_not_found(
    client: Client, invitations: "InvitationServiceAsyncStub", ours: UUID, guest: Person
) -> None:
    inviter = await member(client, ours, "owner", await new_role(client, ours, *held("owner")))
    await invite(invitations, inviter, guest.email, ROLE_OWNER)
    place = {"organization_id": ours, "account_id": inviter.account_id}
    await members.update_member_role(client.database, **place, role="admin")
    await assert_not_found(invitations, guest, await token_for(client, guest))


async def test_admin_cannot_cancel_an_owner_invitation(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    invitation = await invite(invitations, me, guest.email, ROLE_OWNER)
    admin = await member(client, ours, "admin")
    assert await outcome(cancel(invitations, admin, invitation.id)) == "PERMISSION_DENIED"
    assert [each.status for each in await list_(invitations, admin)] == [PENDING]


async def test_member_without_permission_cannot_list_create_or_cancel_invitations(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    invitation = await invite(invitations, me, guest.email)
    plain = await member(client, ours, "member")
    for call in (
        list_(invitations, plain),
        invite(invitations, plain, "a@example.com"),
        cancel(invitations, plain, invitation.id),
    ):
        assert (await refusal(call)).reason == "PERMISSION_DENIED"


async def test_invitation_of_another_organization_is_not_found(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    other = await member(client, await organization_of(client.database, me), "owner")
    theirs = await invite(invitations, other, guest.email)
    for invitation_id in (theirs.id, str(uuid4())):
        refused = await refusal(cancel(invitations, me, invitation_id))
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "INVITATION_NOT_FOUND")
        assert refused.metadata == {"invitation_id": invitation_id}
    assert await list_(invitations, me, show_ended=True) == []
    assert await list_(invitations, other) == [theirs]


async def test_role_of_another_organization_cannot_be_in_an_invitation(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    foreign = await new_role(client, await organization_of(client.database, me))
    for role_id in (foreign, uuid4()):
        refused = await refusal(invite(invitations, me, guest.email, ROLE_MEMBER, role_id))
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ROLE_NOT_FOUND")
        assert refused.metadata == {"role_id": str(role_id)}


# --- limits -------------------------------------------------------------------------------------------------------------
async def test_address_has_at_most_one_pending_invitation(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person, dsn: str
) -> None:
    outcomes = await asyncio.gather(*(outcome(invite(invitations, me, guest.email)) for _ in range(10)))
    assert sorted(outcomes) == sorted(["OK"] + ["INVITATION_EXISTS"] * 9)
    assert (await refusal(invite(invitations, me, guest.email.upper()))).code == grpc.StatusCode.ALREADY_EXISTS
    assert len(await mailed(client.database, guest.email)) == 1
    move_expiry_back(dsn, "7 days 1 second")
    assert await outcome(invite(invitations, me, guest.email)) == "OK"
    elsewhere = await member(client, await organization_of(client.database, me), "owner")
    assert await outcome(invite(invitations, elsewhere, guest.email)) == "OK"


async def test_member_cannot_be_invited(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID
) -> None:
    plain = await member(client, ours, "member")
    for email in (me.email, plain.email.upper()):
        assert await outcome(invite(invitations, me, email)) == "MEMBER_EXISTS"


async def test_repeated_request_id_creates_and_mails_one_invitation(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    request_id = str(uuid4())
    first = await invite(invitations, me, guest.email, request_id=request_id)
    assert await invite(invitations, me, guest.email, request_id=request_id) == first
    assert len(await mailed(client.database, guest.email)) == 1


async def test_organization_has_at_most_1000_pending_invitations(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, dsn: str
) -> None:
    filled = sql.SQL(
        "INSERT INTO invitations (id, organization_id, email, role, role_ids, token_hash, created_by, expires_at)"
        " SELECT gen_random_uuid(), {}, 'a' || number || '@example.com', 'member', '{{}}',"
        " sha256(number::text::bytea), {}, now() + interval '1 day' FROM generate_series(1, 999) AS number"
    )
    execute(dsn, filled.format(str(ours), str(me.account_id)))
    outcomes = await asyncio.gather(*(outcome(invite(invitations, me, f"b{n}@example.com")) for n in range(5)))
    assert sorted(outcomes) == sorted(["OK"] + ["TOO_MANY_INVITATIONS"] * 4)
    move_expiry_back(dsn, "1 day")
    assert await outcome(invite(invitations, me, "later@example.com")) == "OK"


async def test_all_members_together_can_send_100_invitations_a_day(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID
) -> None:
    admin = await member(client, ours, "admin")
    for number in range(100):
        await invite(invitations, (me, admin)[number % 2], f"{number}@example.com")
    for caller in (me, admin):
        refused = await refusal(invite(invitations, caller, "more@example.com"))
        assert (refused.reason, refused.quota) == ("RATE_LIMITED", [f"organization:{ours}"])
    other = await member(client, await organization_of(client.database, me), "owner")
    assert await outcome(invite(invitations, other, "more@example.com")) == "OK"


async def test_list_invitations_returns_pages_newest_first(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID
) -> None:
    ids = [(await invite(invitations, me, f"{name}@example.com")).id for name in "abc"][::-1]
    await cancel(invitations, me, ids[1])
    assert [each.id for each in await list_(invitations, me)] == [ids[0], ids[2]]
    found: list[str] = []
    page_token = ""
    while len(found) < 4:
        request = ListInvitationsRequest(page_size=1, page_token=page_token, show_ended=True)
        page = await invitations.ListInvitations(request, metadata=me.headers)
        found += [each.id for each in page.invitations]
        if not (page_token := page.next_page_token):
            break
    assert found == ids


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (CreateInvitationRequest(role=ROLE_MEMBER), "email"),
        (CreateInvitationRequest(email="invalid", role=ROLE_MEMBER), "email"),
        (CreateInvitationRequest(email="a@example.com\r\nBcc: b@example.com", role=ROLE_MEMBER), "email"),
        (CreateInvitationRequest(email="a" * 250 + "@example.com", role=ROLE_MEMBER), "email"),
        (CreateInvitationRequest(email="a@example.com"), ""),
        (CreateInvitationRequest(email="a@example.com", role_ids=["1"]), "role_ids[0]"),
        (CreateInvitationRequest(email="a@example.com", role_ids=[str(UUID(int=1))] * 2), "role_ids"),
    ],
)
async def test_invalid_invitation_reports_the_field(
    invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, request_: CreateInvitationRequest, field: str
) -> None:
    refused = await refusal(invitations.CreateInvitation(request_, metadata=me.headers))
    assert (refused.reason, list(refused.violations)) == ("INVALID_MESSAGE", [field])


async def test_audit_events_record_the_invitation_id(
    client: Client, invitations: "InvitationServiceAsyncStub", me: Person, ours: UUID, guest: Person
) -> None:
    invitation = await invite(invitations, me, guest.email)
    token = await token_for(client, guest)
    await accept(invitations, guest, token)
    await refusal(accept(invitations, guest, token))
    events = await client.database.fetch_all(select(AuditEvent).order_by(AuditEvent.id))
    assert [(event.method.rpartition("/")[2], event.account_id, event.target, event.code) for event in events] == [
        ("CreateInvitation", me.account_id, invitation.id, "OK"),
        ("AcceptInvitation", guest.account_id, invitation.id, "OK"),
        ("AcceptInvitation", guest.account_id, None, "NOT_FOUND"),
    ]
