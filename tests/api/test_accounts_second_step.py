"""A sign-in that awaits its second step has no session, and creates at most one."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from uuid import UUID

import grpc
import psycopg
import pytest

from accord.accounts.v1.accounts_pb2 import (
    ChangePasswordRequest,
    CompleteSignInRequest,
    CompleteSignInResponse,
    DeleteAccountRequest,
    GetSessionRequest,
    RequestPasswordResetRequest,
    ResetPasswordRequest,
    SignInResponse,
)
from accord_api.outbox import Mail
from accord_auth.second_factors import SecondFactors
from accord_db.queries import second_factors
from accord_gateway.secret_key import keyring
from accord_gateway.settings import Settings
from tests.api.conftest import SECRET_KEY, Client, outcome, refusal
from tests.api.mailbox import mailed_token
from tests.api.signing_in import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    ban,
    refused_sign_in,
    sign_in,
    sign_up,
)
from tests.authenticator import Authenticator
from tests.conftest import count
from tests.factories import Headers, bearer


@dataclass(frozen=True)
class ProtectedAccount:
    """An account with a second factor, and a session that is older than the factor."""

    account_id: UUID
    headers: Headers
    app: Authenticator
    recovery_codes: list[str]


@pytest.fixture
async def account(client: Client) -> ProtectedAccount:
    await sign_up(client)
    before = await sign_in(client)
    account_id, keys = UUID(before.session.account_id), keyring(Settings(port=0, metrics_port=0), SECRET_KEY)
    factors = SecondFactors(keys)
    async with client.database.transaction() as tx:
        factor_id, secret = await factors.create(tx, account_id)
        await second_factors.confirm_second_factor(tx, second_factor_id=factor_id, step=0)
        _, codes = await factors.renew_recovery_codes(tx, account_id)
    app = await Authenticator.enrolled(client.database, secret)
    return ProtectedAccount(account_id, bearer(before.session_token), app, codes)


def complete(
    client: Client, pending: SignInResponse, code: str = "", *, recovery_code: str = ""
) -> Awaitable[CompleteSignInResponse]:
    request = CompleteSignInRequest(second_step_token=pending.second_step_token)
    if recovery_code:
        request.recovery_code = recovery_code
    else:
        request.code = code
    return client.accounts.CompleteSignIn(request)


async def refused_token(client: Client, pending: SignInResponse, code: str) -> None:
    refused = await refusal(complete(client, pending, code))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_INVALID")


# --- the first step ---------------------------------------------------------------------------------------------------
async def test_first_step_creates_no_session(client: Client, account: ProtectedAccount, dsn: str) -> None:
    before = count(dsn, "sessions")
    pending = await sign_in(client)
    assert not pending.session_token
    assert not pending.HasField("session")
    assert pending.second_step_token.startswith("act_")
    assert count(dsn, "sessions") == before
    headers = bearer(pending.second_step_token)
    refused = await refusal(client.accounts.GetSession(GetSessionRequest(), metadata=headers))
    assert refused.reason == "CREDENTIAL_INVALID"


async def test_wrong_password_gets_the_same_response_as_without_a_second_factor(
    client: Client, account: ProtectedAccount
) -> None:
    assert await refused_sign_in(client, password=OTHER_PASSWORD) == await refused_sign_in(client, "no@example.com")


# --- the second step --------------------------------------------------------------------------------------------------
async def test_code_creates_the_session(client: Client, account: ProtectedAccount) -> None:
    completed = await complete(client, await sign_in(client), account.app.code())
    headers = bearer(completed.session_token)
    who = await client.accounts.GetSession(GetSessionRequest(), metadata=headers)
    assert (who.account.id, who.session.id) == (str(account.account_id), completed.session.id)
    assert who.session.peer == "127.0.0.1"
    assert who.session.user_agent


async def test_recovery_code_creates_the_session(client: Client, account: ProtectedAccount) -> None:
    completed = await complete(client, await sign_in(client), recovery_code=account.recovery_codes[0])
    assert completed.session_token


async def test_token_remains_valid_after_a_wrong_code_and_works_once(client: Client, account: ProtectedAccount) -> None:
    pending = await sign_in(client)
    refused = await refusal(complete(client, pending, account.app.wrong_code()))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CODE_WRONG")
    await complete(client, pending, account.app.code())
    await refused_token(client, pending, account.app.code(+1))


async def test_one_of_ten_concurrent_uses_creates_a_session(
    client: Client, account: ProtectedAccount, dsn: str
) -> None:
    """Every call has a valid recovery code, so only the token can fail."""
    pending, before = await sign_in(client), count(dsn, "sessions")
    calls = [complete(client, pending, recovery_code=code) for code in account.recovery_codes]
    outcomes = await asyncio.gather(*map(outcome, calls))
    assert sorted(outcomes) == ["OK", *["TOKEN_INVALID"] * 9]
    assert count(dsn, "sessions") == before + 1


async def test_refused_use_of_a_token_does_not_use_up_the_code(client: Client, account: ProtectedAccount) -> None:
    pending = await sign_in(client)
    await complete(client, pending, recovery_code=account.recovery_codes[0])
    request = CompleteSignInRequest(second_step_token=pending.second_step_token)
    request.recovery_code = account.recovery_codes[1]
    assert (await refusal(client.accounts.CompleteSignIn(request))).reason == "TOKEN_INVALID"
    await complete(client, await sign_in(client), recovery_code=account.recovery_codes[1])


async def test_new_first_step_invalidates_the_former_one(client: Client, account: ProtectedAccount) -> None:
    former, pending = await sign_in(client), await sign_in(client)
    await refused_token(client, former, account.app.code())
    await complete(client, pending, account.app.code())


# --- pending sign-ins -------------------------------------------------------------------------------------------------
async def test_password_change_invalidates_a_pending_sign_in(client: Client, account: ProtectedAccount) -> None:
    pending = await sign_in(client)
    request = ChangePasswordRequest(current_password=PASSWORD, new_password=OTHER_PASSWORD)
    await client.accounts.ChangePassword(request, metadata=account.headers)
    await refused_token(client, pending, account.app.code())


async def test_password_reset_invalidates_a_pending_sign_in(client: Client, account: ProtectedAccount) -> None:
    pending = await sign_in(client)
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    await client.accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=OTHER_PASSWORD))
    await refused_token(client, pending, account.app.code())


async def test_second_factor_is_still_required_after_a_password_reset(
    client: Client, account: ProtectedAccount
) -> None:
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    await client.accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=OTHER_PASSWORD))
    pending = await sign_in(client, password=OTHER_PASSWORD)
    assert not pending.session_token
    await complete(client, pending, account.app.code())


async def test_pending_sign_in_of_a_banned_account_is_refused(
    client: Client, account: ProtectedAccount, dsn: str
) -> None:
    pending = await sign_in(client)
    ban(dsn, EMAIL)
    await refused_token(client, pending, account.app.code())


async def test_pending_sign_in_of_a_deleted_account_is_refused(client: Client, account: ProtectedAccount) -> None:
    pending = await sign_in(client)
    await client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=account.headers)
    await refused_token(client, pending, account.app.code())


# --- limits -----------------------------------------------------------------------------------------------------------
async def test_account_is_limited_to_ten_wrong_codes_across_all_tokens(
    client: Client, account: ProtectedAccount
) -> None:
    for _ in range(2):
        pending = await sign_in(client)
        for _ in range(5):
            assert (await refusal(complete(client, pending, account.app.wrong_code()))).reason == "CODE_WRONG"
    pending = await sign_in(client)
    assert (await refusal(complete(client, pending, account.app.code()))).reason == "RATE_LIMITED"
    await client.accounts.GetSession(GetSessionRequest(), metadata=account.headers)  # the owner's session remains valid


@pytest.mark.parametrize("code", ["", "12345", "1234567", "12345x", "１２３４５６"])
async def test_malformed_code_is_an_invalid_message_of_complete_sign_in(
    client: Client, account: ProtectedAccount, code: str
) -> None:
    assert (await refusal(complete(client, await sign_in(client), code))).reason == "INVALID_MESSAGE"


# --- audit ------------------------------------------------------------------------------------------------------------
async def test_both_steps_are_audited_without_their_tokens(client: Client, account: ProtectedAccount, dsn: str) -> None:
    pending = await sign_in(client)
    await refusal(complete(client, pending, account.app.wrong_code()))
    code = account.app.code()
    completed = await complete(client, pending, code)
    with psycopg.connect(dsn) as connection:
        query = "SELECT method, reason, account_id::text, target, audit_events::text"
        events = connection.execute(f"{query} FROM audit_events ORDER BY occurred_at").fetchall()[2:]
    account_id = str(account.account_id)
    assert [(event[0].rpartition("/")[2], *event[1:4]) for event in events] == [
        ("SignIn", None, account_id, account_id),
        ("CompleteSignIn", "CODE_WRONG", account_id, account_id),
        ("CompleteSignIn", None, account_id, completed.session.id),
    ]
    assert pending.second_step_token not in str(events)
    assert completed.session_token not in str(events)
