"""AdminService: accounts that administrators create, delete, set passwords of and end sessions of."""

import asyncio
from collections.abc import Awaitable
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from accord.accounts.v1 import accounts_pb2
from accord.accounts.v1.accounts_pb2 import (
    ChangePasswordRequest,
    CompleteSignInRequest,
    GetAccountRequest,
    GetSessionRequest,
    RequestPasswordResetRequest,
    ResetPasswordRequest,
    SignInResponse,
    SignOutRequest,
)
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord.admin.v1 import admin_pb2
from accord.admin.v1.admin_pb2 import ManagedAccount
from accord.sessions.v1.sessions_pb2 import ReauthenticateRequest
from accord.sessions.v1.sessions_pb2_grpc import SessionServiceStub
from accord.tasks.v1.tasks_pb2 import ListTasksRequest
from accord_api.outbox import Mail
from accord_db.queries import accounts
from tests.api.conftest import Calls, Client, outcome, refusal
from tests.api.mailbox import mailed_to_anyone, mailed_token
from tests.api.services import exchanged, new_service, token_for, token_of
from tests.api.signing_in import (
    EMAIL,
    OTHER_EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    add_second_factor,
    refused_sign_in,
    sign_in,
    sign_up,
)
from tests.conftest import change, count
from tests.factories import Headers, Person, bearer, organization_of, signed_in_person

TEMPORARY = "a password of the administrator"
PERSON = admin_pb2.AccountRole.ACCOUNT_ROLE_PERSON


@pytest.fixture
async def root(client: Client) -> Person:
    person = await signed_in_person(client.database)
    await accounts.update_role(client.database, account_id=person.account_id, role="administrator")
    return person


@pytest.fixture
def admin(client: Client, root: Person) -> Calls:
    return client.calls(admin_pb2, root)


async def create(admin: Calls, **fields: Any) -> ManagedAccount:
    request = {"email": EMAIL, "display_name": "Ada", "reason": "a new colleague"} | fields
    account: ManagedAccount = (await admin.CreateAccount(**request)).account
    return account


async def set_password(admin: Calls, account_id: object, password: str = TEMPORARY) -> ManagedAccount:
    request = {"account_id": str(account_id), "new_password": password, "reason": "lost access"}
    account: ManagedAccount = (await admin.SetAccountPassword(**request)).account
    return account


async def delete(admin: Calls, account_id: object) -> ManagedAccount:
    account: ManagedAccount = (await admin.DeleteAccount(account_id=str(account_id), reason="left")).account
    return account


async def id_of(client: Client, email: str = EMAIL) -> UUID:
    account = await accounts.get_account_by_email(client.database, email=email)
    assert account is not None
    return account.id


def change_password(client: Client, headers: Headers, current: str, new: str) -> Awaitable[object]:
    request = ChangePasswordRequest(current_password=current, new_password=new)
    return client.accounts.ChangePassword(request, metadata=headers)


async def read_account(stub: Any, headers: Headers) -> str:
    return await outcome(stub.GetAccount(GetAccountRequest(), metadata=headers))


# --- create -----------------------------------------------------------------------------------------------------------
async def test_created_account_signs_in_and_must_change_its_password(client: Client, admin: Calls) -> None:
    created = await create(admin, email="User@Example.com", password=TEMPORARY, email_verified=True)
    assert (created.email, created.display_name, created.role) == (EMAIL, "Ada", PERSON)
    assert created.HasField("email_verified_at")
    assert created.password_change_required
    assert await mailed_to_anyone(client.database) == []
    opened = await sign_in(client, password=TEMPORARY)
    assert opened.session.password_change_required
    headers = bearer(opened.session_token)
    assert await read_account(client.accounts, headers) == "PASSWORD_CHANGE_REQUIRED"
    await change_password(client, headers, TEMPORARY, OTHER_PASSWORD)
    assert await read_account(client.accounts, headers) == "OK"
    again = await sign_in(client, password=OTHER_PASSWORD)
    assert not again.session.password_change_required
    assert not (await admin.GetAccount(account_id=created.id)).account.password_change_required


async def test_account_without_a_password_gets_one_by_mail(client: Client, admin: Calls) -> None:
    created = await create(admin)
    assert not created.HasField("email_verified_at")
    assert not created.password_change_required
    assert (await refused_sign_in(client)).reason == "SIGN_IN_REFUSED"
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    await client.accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=PASSWORD))
    assert not (await sign_in(client)).session.password_change_required


async def test_address_of_another_account_is_refused(client: Client, admin: Calls) -> None:
    await sign_up(client)
    before = await admin.ListAccounts(email_prefix=EMAIL)
    refused = await refusal(create(admin, email=EMAIL.upper(), password=TEMPORARY, email_verified=True))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ACCOUNT_EXISTS")
    assert await admin.ListAccounts(email_prefix=EMAIL) == before


async def test_of_concurrent_creations_with_one_address_one_succeeds(client: Client, admin: Calls) -> None:
    outcomes = await asyncio.gather(*(outcome(create(admin)) for _ in range(10)))
    assert sorted(outcomes) == ["ACCOUNT_EXISTS"] * 9 + ["OK"]


@pytest.mark.parametrize("password", ["short", "passwordpassword", "user@example.com!!"])
async def test_password_that_users_could_not_choose_is_refused(client: Client, admin: Calls, password: str) -> None:
    refused = await refusal(create(admin, password=password))
    assert (refused.reason, list(refused.violations)) == ("INVALID_MESSAGE", ["password"])
    await sign_up(client)
    refused = await refusal(set_password(admin, await id_of(client), password))
    assert (refused.reason, list(refused.violations)) == ("INVALID_MESSAGE", ["new_password"])


# --- passwords --------------------------------------------------------------------------------------------------------
async def test_set_password_ends_sessions_and_tokens_and_notifies_the_person(client: Client, admin: Calls) -> None:
    await sign_up(client)
    mine = bearer((await sign_in(client)).session_token)
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    changed = await set_password(admin, await id_of(client))
    assert changed.password_change_required
    assert await read_account(client.accounts, mine) == "CREDENTIAL_INVALID"
    reset = ResetPasswordRequest(token=token, new_password=OTHER_PASSWORD)
    assert (await refusal(client.accounts.ResetPassword(reset))).reason == "TOKEN_INVALID"
    assert (await refused_sign_in(client)).reason == "SIGN_IN_REFUSED"
    assert [letter.template for _, letter in await mailed_to_anyone(client.database)][-1] == Mail.PASSWORD_CHANGED
    assert (await sign_in(client, password=TEMPORARY)).session.password_change_required


@pytest.fixture
async def restricted(client: Client, admin: Calls) -> SignInResponse:
    """A session that was opened with a password of the administrator."""
    await sign_up(client)
    await set_password(admin, await id_of(client))
    return await sign_in(client, password=TEMPORARY)


async def test_restricted_session_reads_itself_and_signs_out(client: Client, restricted: SignInResponse) -> None:
    headers = bearer(restricted.session_token)
    session = (await client.accounts.GetSession(GetSessionRequest(), metadata=headers)).session
    assert session.password_change_required
    await client.accounts.SignOut(SignOutRequest(), metadata=headers)
    assert await read_account(client.accounts, headers) == "CREDENTIAL_INVALID"


async def test_restricted_session_cannot_keep_the_password_of_the_administrator(
    client: Client, restricted: SignInResponse
) -> None:
    headers = bearer(restricted.session_token)
    refused = await refusal(change_password(client, headers, TEMPORARY, TEMPORARY))
    assert (refused.reason, list(refused.violations)) == ("INVALID_MESSAGE", ["new_password"])
    refused = await refusal(change_password(client, headers, PASSWORD, OTHER_PASSWORD))
    assert refused.reason == "PASSWORD_WRONG"
    assert await read_account(client.accounts, headers) == "PASSWORD_CHANGE_REQUIRED"


async def test_changed_password_frees_the_session_in_every_gateway_at_once(
    client: Client, elsewhere: grpc.aio.Channel, restricted: SignInResponse
) -> None:
    headers, there = bearer(restricted.session_token), AccountServiceStub(elsewhere)
    assert await read_account(there, headers) == "PASSWORD_CHANGE_REQUIRED"
    await change_password(client, headers, TEMPORARY, OTHER_PASSWORD)
    assert await read_account(client.accounts, headers) == "OK"
    async with asyncio.timeout(3):
        while await read_account(there, headers) != "OK":
            await asyncio.sleep(0.01)


async def test_mailed_reset_frees_the_account(client: Client, restricted: SignInResponse) -> None:
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    await client.accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=OTHER_PASSWORD))
    assert await read_account(client.accounts, bearer(restricted.session_token)) == "CREDENTIAL_INVALID"
    assert not (await sign_in(client, password=OTHER_PASSWORD)).session.password_change_required


async def test_second_step_does_not_free_the_session_nor_is_it_skipped(client: Client, admin: Calls) -> None:
    await sign_up(client)
    await accounts.verify_email(client.database, account_id=await id_of(client))
    app, _ = await add_second_factor(client, bearer((await sign_in(client)).session_token))
    await set_password(admin, await id_of(client))
    waiting = await sign_in(client, password=TEMPORARY)
    assert waiting.session_token == ""
    request = CompleteSignInRequest(second_step_token=waiting.second_step_token, code=app.code(1))
    opened = await client.accounts.CompleteSignIn(request)
    assert opened.session.password_change_required
    assert await read_account(client.accounts, bearer(opened.session_token)) == "PASSWORD_CHANGE_REQUIRED"


async def test_second_step_that_waits_is_void_after_the_password_is_set(client: Client, admin: Calls) -> None:
    await sign_up(client)
    await accounts.verify_email(client.database, account_id=await id_of(client))
    app, _ = await add_second_factor(client, bearer((await sign_in(client)).session_token))
    waiting = await sign_in(client)
    await set_password(admin, await id_of(client))
    request = CompleteSignInRequest(second_step_token=waiting.second_step_token, code=app.code(1))
    assert (await refusal(client.accounts.CompleteSignIn(request))).reason == "TOKEN_INVALID"


async def test_password_of_the_administrator_proves_nothing_in_another_session(
    client: Client, admin: Calls, dsn: str, restricted: SignInResponse
) -> None:
    """A session of a provider is not restricted. The password, which the administrator knows, must not make it recent."""
    change(dsn, "UPDATE sessions SET password_change_required = false, provider = 'corp'")
    headers, sessions = bearer(restricted.session_token), SessionServiceStub(client.channel)
    assert await read_account(client.accounts, headers) == "OK"
    reauthenticate = ReauthenticateRequest(password=TEMPORARY)
    refused = await refusal(sessions.Reauthenticate(reauthenticate, metadata=headers))
    assert refused.reason == "PASSWORD_CHANGE_REQUIRED"
    await change_password(client, headers, TEMPORARY, OTHER_PASSWORD)
    assert (
        await sessions.Reauthenticate(ReauthenticateRequest(password=OTHER_PASSWORD), metadata=headers)
    ).session_token


async def test_service_cannot_act_in_a_restricted_session(client: Client, restricted: SignInResponse) -> None:
    headers = bearer(await token_of(client.channel, await new_service(client.database)))
    assert (
        await refusal(exchanged(client.channel, headers, restricted.session_token))
    ).reason == "SUBJECT_TOKEN_INVALID"


async def test_service_that_acts_in_a_session_is_refused_when_the_password_must_be_changed(
    client: Client, dsn: str
) -> None:
    me, service = await client.new_user(), await new_service(client.database)
    acting = bearer(await token_for(client.channel, service, me))
    change(dsn, "UPDATE sessions SET password_change_required = true WHERE id = %s", me.session_id)
    tasks = client.tasks.ListTasks(ListTasksRequest(), metadata=acting)
    assert (await refusal(tasks)).reason == "CREDENTIAL_INVALID"


async def test_administrators_cannot_set_their_own_password_or_that_of_another_administrator(
    client: Client, admin: Calls, root: Person
) -> None:
    other = await signed_in_person(client.database)
    await accounts.update_role(client.database, account_id=other.account_id, role="administrator")
    for person in (root, other):
        refused = await refusal(set_password(admin, person.account_id))
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PASSWORD_NOT_SETTABLE")
        assert refused.metadata == {"account_id": str(person.account_id)}
    assert await read_account(client.accounts, other.headers) == "OK"


# --- sessions ---------------------------------------------------------------------------------------------------------
async def test_administrator_lists_and_ends_sessions_of_an_account(client: Client, admin: Calls) -> None:
    await sign_up(client)
    opened = [await sign_in(client) for _ in range(3)]
    account_id = str(await id_of(client))
    listed = (await admin.ListAccountSessions(account_id=account_id)).sessions
    assert [session.id for session in listed] == [each.session.id for each in reversed(opened)]
    assert {session.peer for session in listed} == {"127.0.0.1"}
    assert not any(session.current for session in listed)
    await admin.RevokeAccountSession(account_id=account_id, session_id=opened[1].session.id)
    await admin.RevokeAccountSession(account_id=account_id, session_id=opened[1].session.id)
    outcomes = [await read_account(client.accounts, bearer(each.session_token)) for each in opened]
    assert outcomes == ["OK", "CREDENTIAL_INVALID", "OK"]
    assert len((await admin.ListAccountSessions(account_id=account_id)).sessions) == 2
    ended = (await admin.ListAccountSessions(account_id=account_id, show_ended=True)).sessions
    revoked = accounts_pb2.SessionStatus.SESSION_STATUS_REVOKED
    assert [session.id for session in ended if session.status == revoked] == [opened[1].session.id]


async def test_session_of_another_account_is_not_found(client: Client, admin: Calls, root: Person) -> None:
    other, mine = await client.new_user(), await client.new_user()
    for session_id in (str(other.session_id), str(uuid4())):
        call = admin.RevokeAccountSession(account_id=str(mine.account_id), session_id=session_id)
        refused = await refusal(call)
        assert (refused.reason, refused.metadata) == ("SESSION_NOT_FOUND", {"session_id": session_id})
    assert await read_account(client.accounts, other.headers) == "OK"
    listed = (await admin.ListAccountSessions(account_id=str(root.account_id))).sessions
    assert [session.current for session in listed] == [True]


# --- delete -----------------------------------------------------------------------------------------------------------
async def test_deleted_account_cannot_call_and_its_address_is_free(client: Client, admin: Calls) -> None:
    await sign_up(client)
    mine, account_id = bearer((await sign_in(client)).session_token), await id_of(client)
    deleted = await delete(admin, account_id)
    assert (deleted.id, deleted.HasField("deleted_at")) == (str(account_id), True)
    assert await read_account(client.accounts, mine) == "CREDENTIAL_INVALID"
    assert (await refused_sign_in(client)).reason == "SIGN_IN_REFUSED"
    assert (await refusal(delete(admin, account_id))).reason == "ACCOUNT_NOT_FOUND"
    assert (await create(admin)).id != str(account_id)


async def test_sole_owner_of_an_organization_cannot_be_deleted(client: Client, admin: Calls) -> None:
    me = await client.new_user()
    organization_id = await organization_of(client.database, me)
    refused = await refusal(delete(admin, me.account_id))
    assert (refused.reason, refused.metadata) == ("LAST_OWNER", {"organization_id": str(organization_id)})
    assert await read_account(client.accounts, me.headers) == "OK"


async def test_of_administrators_who_delete_each_other_one_remains(client: Client, root: Person, dsn: str) -> None:
    other = await signed_in_person(client.database)
    await accounts.update_role(client.database, account_id=other.account_id, role="administrator")
    calls = [outcome(delete(client.calls(admin_pb2, by), of.account_id)) for by, of in ((root, other), (other, root))]
    assert (await asyncio.gather(*calls)).count("OK") == 1
    assert count(dsn, "accounts WHERE role = 'administrator' AND deleted_at IS NULL") == 1


async def test_last_administrator_cannot_be_deleted(admin: Calls, root: Person) -> None:
    assert (await refusal(delete(admin, root.account_id))).reason == "LAST_ADMINISTRATOR"


# --- all --------------------------------------------------------------------------------------------------------------
async def test_changes_require_a_recent_sign_in(client: Client, admin: Calls, root: Person, dsn: str) -> None:
    change(dsn, "UPDATE sessions SET authenticated_at = now() - interval '11 minutes' WHERE id = %s", root.session_id)
    for call in (create(admin), set_password(admin, uuid4()), delete(admin, uuid4())):
        assert (await refusal(call)).reason == "SIGN_IN_NOT_FRESH"


async def test_unknown_account_is_not_found(admin: Calls) -> None:
    absent = str(uuid4())
    calls = (
        set_password(admin, absent),
        delete(admin, absent),
        admin.ListAccountSessions(account_id=absent),
        admin.RevokeAccountSession(account_id=absent, session_id=str(uuid4())),
    )
    for call in calls:
        refused = await refusal(call)
        assert (refused.reason, refused.metadata) == ("ACCOUNT_NOT_FOUND", {"account_id": absent})


async def test_changes_are_audited_with_their_reason_and_without_the_password(
    client: Client, admin: Calls, root: Person, dsn: str
) -> None:
    created = await create(admin, password=TEMPORARY)
    await set_password(admin, created.id, OTHER_PASSWORD)
    await delete(admin, created.id)
    events = (await admin.ListAuditEvents(target=created.id)).events
    assert [(event.method.rpartition("/")[2], event.stated_reason, event.account_id) for event in events] == [
        ("DeleteAccount", "left", str(root.account_id)),
        ("SetAccountPassword", "lost access", str(root.account_id)),
        ("CreateAccount", "a new colleague", str(root.account_id)),
    ]
    assert count(dsn, f"audit_events WHERE audit_events::text LIKE '%{TEMPORARY}%'") == 0


@pytest.mark.parametrize("reason", ["", "x" * 501, "a\0b"])
async def test_changes_need_a_reason(admin: Calls, reason: str) -> None:
    refused = await refusal(create(admin, email=OTHER_EMAIL, reason=reason))
    assert (refused.reason, list(refused.violations)) == ("INVALID_MESSAGE", ["reason"])
