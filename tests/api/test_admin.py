"""Those who run the installation: what they may do with the accounts of others, and how it is told who did it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from accord.accounts.v1.accounts_pb2 import DeleteAccountRequest, Session, UpdateAccountRequest
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord.admin.v1.admin_pb2 import (
    AccountRole,
    AuditEvent,
    BanAccountRequest,
    GetAccountRequest,
    ImpersonateAccountRequest,
    ListAccountsRequest,
    ListAuditEventsRequest,
    ManagedAccount,
    RevokeAccountSessionsRequest,
    SetAccountRoleRequest,
    StopImpersonatingRequest,
    UnbanAccountRequest,
)
from accord.admin.v1.admin_pb2_grpc import AdminServiceStub
from accord.sessions.v1.sessions_pb2 import (
    GetSessionRequest,
    ListSessionsRequest,
    ReauthenticateRequest,
    RevokeOtherSessionsRequest,
)
from accord.sessions.v1.sessions_pb2_grpc import SessionServiceStub
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, ListTasksRequest
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_db.engine.database import Database
from accord_db.queries import accounts
from accord_db.queries.sessions import revoke_sessions_of_account
from accord_rpc.contract import contract_services
from accord_rpc.policy import Method, read_methods
from tests.api.conftest import Client, outcome, refusal
from tests.api.signing_in import EMAIL, PASSWORD, refused_sign_in, sign_in, sign_up
from tests.conftest import WAITING, change, count
from tests.factories import Headers, Person, api_key_of, bearer, organization_of, signed_in_person

if TYPE_CHECKING:
    from accord.admin.v1.admin_pb2_grpc import AdminServiceAsyncStub
    from accord.tasks.v1.tasks_pb2_grpc import TaskServiceAsyncStub

PERSON, ADMINISTRATOR = AccountRole.ACCOUNT_ROLE_PERSON, AccountRole.ACCOUNT_ROLE_ADMINISTRATOR
SERVICE = "/accord.admin.v1.AdminService"


async def administrator(database: Database) -> Person:
    person = await signed_in_person(database)
    await accounts.update_role(database, account_id=person.account_id, role="administrator")
    return person


@pytest.fixture
async def root(database: Database) -> Person:
    return await administrator(database)


@pytest.fixture
def admin(client: Client) -> "AdminServiceAsyncStub":
    return AdminServiceStub(client.channel)


async def get(admin: "AdminServiceAsyncStub", root: Person, account_id: UUID) -> ManagedAccount:
    request = GetAccountRequest(account_id=str(account_id))
    return (await admin.GetAccount(request, metadata=root.headers)).account


async def ban(admin: "AdminServiceAsyncStub", by: Person, account_id: UUID, **fields: Any) -> ManagedAccount:
    request = BanAccountRequest(**{"account_id": str(account_id), "reason": "spam"} | fields)
    return (await admin.BanAccount(request, metadata=by.headers)).account


async def unban(admin: "AdminServiceAsyncStub", by: Person, account_id: UUID) -> ManagedAccount:
    return (await admin.UnbanAccount(UnbanAccountRequest(account_id=str(account_id)), metadata=by.headers)).account


async def set_role(
    admin: "AdminServiceAsyncStub", by: Person, account_id: UUID, role: AccountRole.ValueType
) -> ManagedAccount:
    request = SetAccountRoleRequest(account_id=str(account_id), role=role)
    return (await admin.SetAccountRole(request, metadata=by.headers)).account


async def promote(admin: "AdminServiceAsyncStub", by: Person, account_id: UUID) -> ManagedAccount:
    return await set_role(admin, by, account_id, ADMINISTRATOR)


async def end_sessions(admin: "AdminServiceAsyncStub", by: Person, account_id: UUID) -> int:
    request = RevokeAccountSessionsRequest(account_id=str(account_id))
    return (await admin.RevokeAccountSessions(request, metadata=by.headers)).revoked_count


async def impersonate(
    admin: "AdminServiceAsyncStub", by: Person, account_id: UUID, reason: str = "asked for help"
) -> tuple[Headers, Session]:
    request = ImpersonateAccountRequest(account_id=str(account_id), reason=reason)
    response = await admin.ImpersonateAccount(request, metadata=by.headers)
    return bearer(response.session_token), response.session


async def listed(admin: "AdminServiceAsyncStub", root: Person, **request: Any) -> list[ManagedAccount]:
    """All pages."""
    found, token = list[ManagedAccount](), ""
    while True:
        page = await admin.ListAccounts(ListAccountsRequest(page_token=token, **request), metadata=root.headers)
        found += page.accounts
        if not (token := page.next_page_token):
            return found


async def events(admin: "AdminServiceAsyncStub", root: Person, **request: Any) -> list[AuditEvent]:
    """All pages."""
    found, token = list[AuditEvent](), ""
    while True:
        page = await admin.ListAuditEvents(ListAuditEventsRequest(page_token=token, **request), metadata=root.headers)
        found += page.events
        if not (token := page.next_page_token):
            return found


async def is_refused(channel: grpc.aio.Channel, headers: Headers) -> bool:
    return await outcome(SessionServiceStub(channel).GetSession(GetSessionRequest(), metadata=headers)) == (
        "CREDENTIAL_INVALID"
    )


async def until_refused(channel: grpc.aio.Channel, headers: Headers) -> None:
    async with asyncio.timeout(3):  # less than what is remembered would last
        while not await is_refused(channel, headers):
            await asyncio.sleep(0.01)


# --- accounts ---------------------------------------------------------------------------------------------------------
async def test_accounts_are_listed_the_newest_first_a_page_at_a_time(
    admin: "AdminServiceAsyncStub", client: Client, root: Person
) -> None:
    people = [root, *[await client.somebody() for _ in range(4)]]
    found = await listed(admin, root, page_size=2)
    assert [account.email for account in found] == [person.email for person in reversed(people)]
    assert found[-1].role == ADMINISTRATOR
    assert {account.role for account in found[:-1]} == {PERSON}


async def test_accounts_are_searched_by_the_beginning_of_address_or_name(
    admin: "AdminServiceAsyncStub", client: Client, root: Person
) -> None:
    for email, name in (("ada@example.com", "Ada L"), ("Adam@example.com", "Zoe"), ("b@example.com", "ADA B")):
        await sign_up(client, email, name=name)
    assert [account.email for account in await listed(admin, root, email_prefix="ADA", page_size=1)] == [
        "ada@example.com",
        "adam@example.com",
    ]
    found = await listed(admin, root, display_name_prefix="ada", page_size=1)
    assert [account.display_name for account in found] == ["ADA B", "Ada L"]


async def test_accounts_are_filtered_by_role_and_ban(
    admin: "AdminServiceAsyncStub", client: Client, root: Person, me: Person
) -> None:
    other = await client.somebody()
    await ban(admin, root, other.account_id)
    assert [account.id for account in await listed(admin, root, role=ADMINISTRATOR)] == [str(root.account_id)]
    assert [account.id for account in await listed(admin, root, banned=True)] == [str(other.account_id)]
    assert [account.id for account in await listed(admin, root, banned=False, role=PERSON)] == [str(me.account_id)]


async def test_a_page_of_another_list_is_refused(
    admin: "AdminServiceAsyncStub", client: Client, root: Person, me: Person
) -> None:
    page = await admin.ListAccounts(ListAccountsRequest(page_size=1), metadata=root.headers)
    request = ListAccountsRequest(page_size=1, page_token=page.next_page_token, email_prefix="a")
    assert (await refusal(admin.ListAccounts(request, metadata=root.headers))).reason == "PAGE_TOKEN_INVALID"


async def test_a_deleted_account_is_found_by_its_id_and_listed_when_asked_for(
    admin: "AdminServiceAsyncStub", client: Client, root: Person, me: Person
) -> None:
    await client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=me.headers)
    assert (await get(admin, root, me.account_id)).HasField("deleted_at")
    assert [account.id for account in await listed(admin, root)] == [str(root.account_id)]
    assert (await listed(admin, root, show_deleted=True))[0].id == str(me.account_id)


async def test_an_account_that_is_not_there_is_said_so(
    admin: "AdminServiceAsyncStub", client: Client, root: Person, me: Person
) -> None:
    await client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=me.headers)
    changes: list[Callable[[UUID], Awaitable[object]]] = [
        partial(ban, admin, root),
        partial(unban, admin, root),
        partial(set_role, admin, root, role=ADMINISTRATOR),
        partial(impersonate, admin, root),
        partial(end_sessions, admin, root),
    ]
    calls: list[Callable[[UUID], Awaitable[object]]] = [*changes, partial(get, admin, root)]
    for call in calls:
        absent = uuid4()
        refused = await refusal(call(absent))
        assert (refused.reason, refused.metadata) == ("ACCOUNT_NOT_FOUND", {"account_id": str(absent)})
    for call in changes:
        assert (await refusal(call(me.account_id))).reason == "ACCOUNT_NOT_FOUND"


# --- bans -------------------------------------------------------------------------------------------------------------
async def test_who_is_banned_is_refused_on_the_next_call_in_every_gateway(
    admin: "AdminServiceAsyncStub", client: Client, elsewhere: grpc.aio.Channel, root: Person, me: Person
) -> None:
    for channel in (client.channel, elsewhere):
        assert not await is_refused(channel, me.headers)
    banned = await ban(admin, root, me.account_id, reason="spam")
    assert (banned.banned, banned.ban_reason, banned.HasField("banned_until")) == (True, "spam", False)
    assert await is_refused(client.channel, me.headers)
    await until_refused(elsewhere, me.headers)


async def test_a_ban_reaches_the_keys_that_somebody_made_in_every_gateway(
    admin: "AdminServiceAsyncStub", client: Client, elsewhere: grpc.aio.Channel, root: Person, me: Person
) -> None:
    key = await api_key_of(client.database, me, await organization_of(client.database, me))
    here, there = TaskServiceStub(client.channel), TaskServiceStub(elsewhere)

    async def asked(tasks: "TaskServiceAsyncStub") -> str:
        return await outcome(tasks.ListTasks(ListTasksRequest(), metadata=key.headers))

    assert [await asked(here), await asked(there)] == ["OK", "OK"]
    await ban(admin, root, me.account_id)
    assert await asked(here) == "CREDENTIAL_INVALID"
    async with asyncio.timeout(3):
        while await asked(there) != "CREDENTIAL_INVALID":
            await asyncio.sleep(0.01)
    await unban(admin, root, me.account_id)
    assert await asked(here) == "OK"


async def test_who_is_banned_does_not_sign_in_until_the_ban_is_lifted(
    admin: "AdminServiceAsyncStub", client: Client, root: Person
) -> None:
    await sign_up(client)
    [account] = await listed(admin, root, email_prefix=EMAIL)
    session = bearer((await sign_in(client)).session_token)
    await ban(admin, root, UUID(account.id))
    assert (await refused_sign_in(client)).reason == "SIGN_IN_REFUSED"
    lifted = await unban(admin, root, UUID(account.id))
    assert not lifted.banned
    assert not lifted.HasField("banned_at")
    assert not lifted.HasField("ban_reason")
    assert await is_refused(client.channel, session)
    assert (await sign_in(client)).session_token


async def test_a_ban_ends_by_itself_at_its_time(
    admin: "AdminServiceAsyncStub", client: Client, root: Person, dsn: str
) -> None:
    await sign_up(client)
    [account] = await listed(admin, root, email_prefix=EMAIL)
    until = datetime.now(UTC) + timedelta(days=1)
    banned = await ban(admin, root, UUID(account.id), until=Timestamp(seconds=int(until.timestamp())))
    assert banned.banned_until.seconds == int(until.timestamp())
    assert (await refused_sign_in(client)).reason == "SIGN_IN_REFUSED"
    change(dsn, "UPDATE accounts SET banned_until = now() WHERE email = %s", EMAIL)
    assert not (await get(admin, root, UUID(account.id))).banned
    session = bearer((await sign_in(client)).session_token)
    assert not await is_refused(client.channel, session)


@pytest.mark.parametrize("seconds", [-60, 253402300800])
async def test_a_ban_ends_at_a_time_to_come_that_calendars_know(
    admin: "AdminServiceAsyncStub", root: Person, me: Person, seconds: int
) -> None:
    until = Timestamp(seconds=seconds if seconds > 0 else int(datetime.now(UTC).timestamp()) + seconds)
    refused = await refusal(ban(admin, root, me.account_id, until=until))
    assert refused.reason == "INVALID_MESSAGE"
    assert list(refused.violations) == ["until"]


async def test_all_sessions_of_somebody_are_ended(
    admin: "AdminServiceAsyncStub", client: Client, elsewhere: grpc.aio.Channel, root: Person
) -> None:
    await sign_up(client)
    mine = [bearer((await sign_in(client)).session_token) for _ in range(2)]
    for headers in mine:
        assert not await is_refused(elsewhere, headers)
    [account] = await listed(admin, root, email_prefix=EMAIL)
    assert await end_sessions(admin, root, UUID(account.id)) == 2
    for headers in mine:
        assert await is_refused(client.channel, headers)
        await until_refused(elsewhere, headers)


# --- administrators ---------------------------------------------------------------------------------------------------
async def test_a_role_holds_from_the_next_call_on_in_every_gateway(
    admin: "AdminServiceAsyncStub", elsewhere: grpc.aio.Channel, root: Person, me: Person
) -> None:
    there = AdminServiceStub(elsewhere)

    async def asked(stub: "AdminServiceAsyncStub") -> str:
        return await outcome(stub.ListAccounts(ListAccountsRequest(), metadata=me.headers))

    assert [await asked(admin), await asked(there)] == ["PERMISSION_DENIED"] * 2
    assert (await set_role(admin, root, me.account_id, ADMINISTRATOR)).role == ADMINISTRATOR
    assert await asked(admin) == "OK"
    async with asyncio.timeout(3):
        while await asked(there) != "OK":
            await asyncio.sleep(0.01)
    assert (await set_role(there, me, root.account_id, PERSON)).role == PERSON
    async with asyncio.timeout(3):
        while await outcome(listed(admin, root)) != "PERMISSION_DENIED":
            await asyncio.sleep(0.01)


async def test_nobody_becomes_an_administrator_whose_address_is_not_proved(
    admin: "AdminServiceAsyncStub", client: Client, root: Person
) -> None:
    await sign_up(client)
    [account] = await listed(admin, root, email_prefix=EMAIL)
    refused = await refusal(set_role(admin, root, UUID(account.id), ADMINISTRATOR))
    assert refused.reason == "EMAIL_NOT_VERIFIED"


async def test_the_last_administrator_stays(
    admin: "AdminServiceAsyncStub", client: Client, database: Database, root: Person
) -> None:
    kept_out = await administrator(database)
    await accounts.ban_account(database, account_id=kept_out.account_id)
    for call in (
        lambda: set_role(admin, root, root.account_id, PERSON),
        lambda: ban(admin, root, root.account_id),
        lambda: client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=root.headers),
    ):
        refused = await refusal(call())
        assert (refused.reason, refused.metadata) == ("LAST_ADMINISTRATOR", {"account_id": str(root.account_id)})
    await administrator(database)
    assert (await set_role(admin, root, root.account_id, PERSON)).role == PERSON


async def test_of_administrators_who_remove_one_another_at_once_one_stays(
    admin: "AdminServiceAsyncStub", database: Database
) -> None:
    people = [await administrator(database) for _ in range(10)]

    async def remove(number: int) -> str:
        by, whom = people[number % 10], people[(number + 1 + number // 10) % 10]
        if number % 2:
            return await outcome(ban(admin, by, whom.account_id))
        return await outcome(set_role(admin, by, whom.account_id, PERSON))

    ends = await asyncio.gather(*(remove(number) for number in range(50)))
    assert set(ends) <= {"OK", "LAST_ADMINISTRATOR", "PERMISSION_DENIED", "CREDENTIAL_INVALID", "CONFLICT"}
    left = [person for person in people if await accounts.is_administrator(database, account_id=person.account_id)]
    assert left
    assert len(left) < len(people)


@pytest.mark.parametrize("go", [set_role, ban], ids=["demoted", "banned"])
async def test_who_is_left_is_asked_when_the_others_have_gone(
    admin: "AdminServiceAsyncStub", database: Database, dsn: str, root: Person, go: Callable[..., Awaitable[object]]
) -> None:
    other = await administrator(database)
    async with database.transaction() as tx:
        await accounts.update_role(tx, account_id=other.account_id, role="person")
        arguments = {"role": PERSON} if go is set_role else {}
        asked = asyncio.ensure_future(outcome(go(admin, root, root.account_id, **arguments)))
        while not asked.done() and not is_waited(dsn):
            await asyncio.sleep(0.01)
    assert await asked == "LAST_ADMINISTRATOR"


async def test_who_became_the_last_administrator_while_their_call_waited_does_not_delete_their_account(
    client: Client, database: Database, dsn: str, root: Person, me: Person
) -> None:
    async with database.transaction() as tx:
        await accounts.update_role(tx, account_id=me.account_id, role="administrator")
        await accounts.update_role(tx, account_id=root.account_id, role="person")
        call = client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=me.headers)
        asked = asyncio.ensure_future(outcome(call))
        while not asked.done() and not is_waited(dsn):
            await asyncio.sleep(0.01)
    assert await asked == "LAST_ADMINISTRATOR"


@pytest.mark.parametrize("call", [promote, ban, unban, end_sessions, impersonate])
async def test_who_is_no_administrator_any_more_when_it_is_their_turn_is_refused(
    admin: "AdminServiceAsyncStub",
    database: Database,
    dsn: str,
    root: Person,
    me: Person,
    call: Callable[..., Awaitable[object]],
) -> None:
    await administrator(database)
    async with database.transaction() as tx:
        await accounts.get_account_locked(tx, account_id=me.account_id)
        await accounts.update_role(tx, account_id=root.account_id, role="person")
        asked = asyncio.ensure_future(outcome(call(admin, root, me.account_id)))
        while not asked.done() and not is_waited(dsn):
            await asyncio.sleep(0.01)
    assert await asked == "PERMISSION_DENIED"


async def test_whose_sessions_are_ended_while_their_call_waits_acts_as_nobody(
    admin: "AdminServiceAsyncStub", database: Database, dsn: str, root: Person, me: Person
) -> None:
    """Or whoever stole one of them would go on in another that nobody has seen."""
    async with database.transaction() as tx:
        await accounts.get_account_locked(tx, account_id=root.account_id)
        await revoke_sessions_of_account(tx, account_id=root.account_id)
        asked = asyncio.ensure_future(outcome(impersonate(admin, root, me.account_id)))
        while not asked.done() and not is_waited(dsn):
            await asyncio.sleep(0.01)
    assert await asked == "CREDENTIAL_INVALID"
    assert count(dsn, "sessions WHERE impersonator_id IS NOT NULL") == 0


def is_waited(dsn: str) -> bool:
    """Whether a call waits for the lock of another transaction."""
    return count(dsn, WAITING) > 0


@pytest.mark.parametrize("call", [set_role, impersonate])
async def test_power_is_given_by_who_has_signed_in_recently(
    admin: "AdminServiceAsyncStub", root: Person, me: Person, dsn: str, call: Callable[..., Awaitable[object]]
) -> None:
    change(dsn, "UPDATE sessions SET authenticated_at = now() - interval '11 minutes'")
    arguments = [ADMINISTRATOR] if call is set_role else []
    assert (await refusal(call(admin, root, me.account_id, *arguments))).reason == "SIGN_IN_NOT_FRESH"


# --- impersonation ----------------------------------------------------------------------------------------------------
async def test_an_administrator_acts_as_somebody_and_it_is_told_everywhere(
    admin: "AdminServiceAsyncStub", client: Client, root: Person, me: Person, log: list[Any]
) -> None:
    headers, session = await impersonate(admin, root, me.account_id)
    assert session.impersonator_id == str(root.account_id)
    assert session.account_id == str(me.account_id)
    await client.tasks.CreateTask(CreateTaskRequest(title="Theirs"), metadata=headers)
    assert len((await client.tasks.ListTasks(ListTasksRequest(), metadata=me.headers)).tasks) == 1
    update = UpdateAccountRequest()
    update.account.display_name = "Another"
    await client.accounts.UpdateAccount(update, metadata=headers)
    # In the log:
    created, changed = [line for line in log if line["method"].endswith(("CreateTask", "UpdateAccount"))]
    for line in (created, changed):
        assert (line["account_id"], line["impersonator_id"]) == (str(me.account_id), str(root.account_id))
    # In the audit events:
    event, began = await events(admin, root)
    assert event.method.endswith("UpdateAccount")
    assert (event.account_id, event.impersonator_id) == (str(me.account_id), str(root.account_id))
    assert (event.credential, event.credential_id) == ("session", session.id)
    assert began.method == f"{SERVICE}/ImpersonateAccount"
    assert (began.account_id, began.target) == (str(root.account_id), str(me.account_id))
    assert began.stated_reason == "asked for help"
    assert not began.HasField("impersonator_id")
    # And to the person, among their sessions:
    mine = await SessionServiceStub(client.channel).ListSessions(ListSessionsRequest(), metadata=me.headers)
    assert [each.impersonator_id for each in mine.sessions] == [str(root.account_id), ""]
    assert not mine.sessions[0].HasField("peer")


async def test_acting_as_somebody_lasts_an_hour_however_it_is_used(
    admin: "AdminServiceAsyncStub", client: Client, root: Person, me: Person, dsn: str
) -> None:
    headers, session = await impersonate(admin, root, me.account_id)
    assert session.expires_at.seconds - session.created_at.seconds == 3600
    change(dsn, "UPDATE sessions SET last_used_at = now() - interval '30 minutes' WHERE impersonator_id IS NOT NULL")
    used = (await SessionServiceStub(client.channel).GetSession(GetSessionRequest(), metadata=headers)).session
    assert used.expires_at == session.expires_at
    assert used.idle_expires_at.ToNanoseconds() <= session.expires_at.ToNanoseconds()
    change(dsn, "UPDATE sessions SET expires_at = now() WHERE impersonator_id IS NOT NULL")
    async with asyncio.timeout(10):  # what is remembered lasts for five seconds
        while not await is_refused(client.channel, headers):
            await asyncio.sleep(0.05)


async def test_nobody_acts_as_themselves_an_administrator_or_who_is_kept_out(
    admin: "AdminServiceAsyncStub", client: Client, database: Database, root: Person, me: Person
) -> None:
    other, banned = await administrator(database), await client.somebody()
    await ban(admin, root, banned.account_id)
    for person in (root, other, banned):
        refused = await refusal(impersonate(admin, root, person.account_id))
        assert refused.reason == "NOT_IMPERSONABLE"
        assert refused.metadata == {"account_id": str(person.account_id)}


IN_PERSON = [method for method in read_methods(contract_services())[0] if method.policy.in_person]


def test_what_only_the_person_may_do_is_marked() -> None:
    names = {method.name for method in IN_PERSON}
    assert {
        "Reauthenticate",
        "ChangePassword",
        "ApproveDevice",
        "LinkProvider",
        "ChangeEmail",
        "DeleteAccount",
    } <= names
    assert {method.name for method in IN_PERSON if method.policy.fresh} < names


def test_what_gives_power_that_outlasts_the_session_is_marked() -> None:
    """So nothing that an administrator does as somebody lets anybody in, or more, once that has ended."""
    names = {method.name for method in IN_PERSON}
    assert {
        "CreateApiKey",
        "UpdateApiKey",
        "RotateApiKey",
        "CreateInvitation",
        "AcceptInvitation",
        "UpdateMember",
        "TransferOwnership",
        "UpdateRole",
    } <= names


@pytest.mark.parametrize("method", IN_PERSON, ids=lambda method: method.path)
async def test_what_only_the_person_may_do_is_refused_to_who_acts_as_them(
    admin: "AdminServiceAsyncStub", client: Client, root: Person, me: Person, method: Method
) -> None:
    headers, _ = await impersonate(admin, root, me.account_id)
    call: Any = client.channel.unary_unary(method.path)
    assert (await refusal(call(b"", metadata=headers))).reason == "PERMISSION_DENIED"


async def test_a_password_that_the_administrator_knows_does_not_make_it_fresh(
    admin: "AdminServiceAsyncStub", client: Client, root: Person
) -> None:
    await sign_up(client)
    [account] = await listed(admin, root, email_prefix=EMAIL)
    headers, _ = await impersonate(admin, root, UUID(account.id))
    sessions = SessionServiceStub(client.channel)
    again = sessions.Reauthenticate(ReauthenticateRequest(password=PASSWORD), metadata=headers)
    assert (await refusal(again)).reason == "PERMISSION_DENIED"


async def test_who_acts_as_somebody_is_no_administrator_meanwhile(
    admin: "AdminServiceAsyncStub", root: Person, me: Person
) -> None:
    headers, _ = await impersonate(admin, root, me.account_id)
    request = ListAccountsRequest()
    assert (await refusal(admin.ListAccounts(request, metadata=headers))).reason == "PERMISSION_DENIED"


async def test_acting_as_somebody_is_stopped(
    admin: "AdminServiceAsyncStub", client: Client, root: Person, me: Person
) -> None:
    headers, _ = await impersonate(admin, root, me.account_id)
    await admin.StopImpersonating(StopImpersonatingRequest(), metadata=headers)
    assert await is_refused(client.channel, headers)
    for own in (root.headers, me.headers):
        refused = await refusal(admin.StopImpersonating(StopImpersonatingRequest(), metadata=own))
        assert refused.reason == "NOT_IMPERSONATING"


Ending = Callable[["AdminServiceAsyncStub", grpc.aio.Channel, Person, Person, Person], Awaitable[object]]


async def _demoted(admin: "AdminServiceAsyncStub", _: grpc.aio.Channel, boss: Person, by: Person, __: Person) -> None:
    await set_role(admin, boss, by.account_id, PERSON)


async def _banned(admin: "AdminServiceAsyncStub", _: grpc.aio.Channel, boss: Person, by: Person, __: Person) -> None:
    await ban(admin, boss, by.account_id)


async def _deleted(_: "AdminServiceAsyncStub", channel: grpc.aio.Channel, __: Person, by: Person, ___: Person) -> None:
    await AccountServiceStub(channel).DeleteAccount(DeleteAccountRequest(), metadata=by.headers)


async def _signed_out(
    _: "AdminServiceAsyncStub", channel: grpc.aio.Channel, __: Person, by: Person, ___: Person
) -> None:
    request = RevokeOtherSessionsRequest()
    await SessionServiceStub(channel).RevokeOtherSessions(request, metadata=by.headers)


async def _ended(admin: "AdminServiceAsyncStub", _: grpc.aio.Channel, boss: Person, by: Person, __: Person) -> None:
    await end_sessions(admin, boss, by.account_id)


async def _promoted(admin: "AdminServiceAsyncStub", _: grpc.aio.Channel, boss: Person, __: Person, me: Person) -> None:
    await set_role(admin, boss, me.account_id, ADMINISTRATOR)


async def _thrown_out(
    _: "AdminServiceAsyncStub", channel: grpc.aio.Channel, __: Person, ___: Person, me: Person
) -> None:
    request = RevokeOtherSessionsRequest()
    await SessionServiceStub(channel).RevokeOtherSessions(request, metadata=me.headers)


ENDINGS = [_demoted, _banned, _deleted, _signed_out, _ended, _promoted, _thrown_out]


@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__.strip("_"))
async def test_acting_as_somebody_ends_in_every_gateway_and_does_not_come_back(
    admin: "AdminServiceAsyncStub",
    client: Client,
    elsewhere: grpc.aio.Channel,
    database: Database,
    root: Person,
    me: Person,
    end: Ending,
) -> None:
    by = await administrator(database)
    headers, _ = await impersonate(admin, by, me.account_id)
    for channel in (client.channel, elsewhere):
        assert not await is_refused(channel, headers)
    await end(admin, client.channel, root, by, me)
    assert await is_refused(client.channel, headers)
    await until_refused(elsewhere, headers)
    if end is _demoted:
        await set_role(admin, root, by.account_id, ADMINISTRATOR)
    if end is _promoted:
        await set_role(admin, root, me.account_id, PERSON)
    if end is _banned:
        await unban(admin, root, by.account_id)
    assert await is_refused(client.channel, headers)


# --- audit events -----------------------------------------------------------------------------------------------------
async def test_what_administrators_do_is_audited_with_whom_it_was_done_to_and_why(
    admin: "AdminServiceAsyncStub", root: Person, me: Person
) -> None:
    await ban(admin, root, me.account_id, reason="spam")
    await unban(admin, root, me.account_id)
    await refusal(ban(admin, root, root.account_id, reason="a slip"))
    slip, lifted, banned = await events(admin, root, page_size=1, account_id=str(root.account_id))
    assert [event.method for event in (banned, lifted, slip)] == [
        f"{SERVICE}/BanAccount",
        f"{SERVICE}/UnbanAccount",
        f"{SERVICE}/BanAccount",
    ]
    assert {event.credential_id for event in (banned, lifted, slip)} == {str(root.session_id)}
    assert (banned.target, banned.stated_reason, banned.code) == (str(me.account_id), "spam", "OK")
    assert (slip.code, slip.reason) == ("FAILED_PRECONDITION", "LAST_ADMINISTRATOR")
    assert await events(admin, root, target=str(me.account_id)) == [lifted, banned]
    assert await events(admin, root, method=f"{SERVICE}/UnbanAccount") == [lifted]
    assert await events(admin, root, actor_id=str(root.account_id)) == []
    assert await events(admin, root, occurred_before=banned.occurred_at) == []
    assert await events(admin, root, occurred_from=lifted.occurred_at) == [slip, lifted]


async def test_what_was_done_as_somebody_is_found_by_who_did_it(
    admin: "AdminServiceAsyncStub", client: Client, root: Person, me: Person
) -> None:
    headers, _ = await impersonate(admin, root, me.account_id)
    await admin.StopImpersonating(StopImpersonatingRequest(), metadata=headers)
    [event] = await events(admin, root, actor_id=str(root.account_id))
    assert (event.method, event.account_id) == (f"{SERVICE}/StopImpersonating", str(me.account_id))


async def test_a_page_of_other_events_is_refused(admin: "AdminServiceAsyncStub", root: Person, me: Person) -> None:
    for _ in range(2):
        await ban(admin, root, me.account_id)
    page = await admin.ListAuditEvents(ListAuditEventsRequest(page_size=1), metadata=root.headers)
    request = ListAuditEventsRequest(page_token=page.next_page_token, target=str(me.account_id))
    assert (await refusal(admin.ListAuditEvents(request, metadata=root.headers))).reason == "PAGE_TOKEN_INVALID"
