"""A sign-in that waits for its second step is no session, and becomes one session at most."""

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
class Guarded:
    """An account with a second factor, and a session that was opened before it had one."""

    account_id: UUID
    headers: Headers
    app: Authenticator
    recovery_codes: list[str]


@pytest.fixture
async def guarded(client: Client) -> Guarded:
    await sign_up(client)
    before = await sign_in(client)
    account_id, keys = UUID(before.session.account_id), keyring(Settings(port=0, metrics_port=0), SECRET_KEY)
    factors = SecondFactors(keys)
    async with client.database.transaction() as tx:
        factor_id, secret = await factors.create(tx, account_id)
        await second_factors.confirm_second_factor(tx, second_factor_id=factor_id, step=0)
        _, codes = await factors.renew_recovery_codes(tx, account_id)
    app = await Authenticator.shown(client.database, secret)
    return Guarded(account_id, bearer(before.session_token), app, codes)


def complete(
    client: Client, waiting: SignInResponse, code: str = "", *, recovery_code: str = ""
) -> Awaitable[CompleteSignInResponse]:
    request = CompleteSignInRequest(second_step_token=waiting.second_step_token)
    if recovery_code:
        request.recovery_code = recovery_code
    else:
        request.code = code
    return client.accounts.CompleteSignIn(request)


async def refused_token(client: Client, waiting: SignInResponse, code: str) -> None:
    refused = await refusal(complete(client, waiting, code))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_INVALID")


# --- the first step ---------------------------------------------------------------------------------------------------
async def test_first_step_opens_no_session(client: Client, guarded: Guarded, dsn: str) -> None:
    before = count(dsn, "sessions")
    waiting = await sign_in(client)
    assert not waiting.session_token
    assert not waiting.HasField("session")
    assert waiting.second_step_token.startswith("act_")
    assert count(dsn, "sessions") == before
    headers = bearer(waiting.second_step_token)
    refused = await refusal(client.accounts.GetSession(GetSessionRequest(), metadata=headers))
    assert refused.reason == "CREDENTIAL_INVALID"


async def test_wrong_password_is_answered_as_without_a_second_factor(client: Client, guarded: Guarded) -> None:
    assert await refused_sign_in(client, password=OTHER_PASSWORD) == await refused_sign_in(client, "no@example.com")


# --- the second step --------------------------------------------------------------------------------------------------
async def test_code_opens_the_session(client: Client, guarded: Guarded) -> None:
    done = await complete(client, await sign_in(client), guarded.app.code())
    headers = bearer(done.session_token)
    who = await client.accounts.GetSession(GetSessionRequest(), metadata=headers)
    assert (who.account.id, who.session.id) == (str(guarded.account_id), done.session.id)
    assert who.session.peer == "127.0.0.1"
    assert who.session.user_agent


async def test_recovery_code_opens_the_session(client: Client, guarded: Guarded) -> None:
    done = await complete(client, await sign_in(client), recovery_code=guarded.recovery_codes[0])
    assert done.session_token


async def test_token_may_be_tried_again_after_a_wrong_code_and_works_once(client: Client, guarded: Guarded) -> None:
    waiting = await sign_in(client)
    refused = await refusal(complete(client, waiting, guarded.app.wrong_code()))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CODE_WRONG")
    await complete(client, waiting, guarded.app.code())
    await refused_token(client, waiting, guarded.app.code(+1))


async def test_of_ten_uses_at_once_one_opens_a_session(client: Client, guarded: Guarded, dsn: str) -> None:
    """With a good code each, so that the token alone decides."""
    waiting, before = await sign_in(client), count(dsn, "sessions")
    calls = [complete(client, waiting, recovery_code=code) for code in guarded.recovery_codes]
    answers = await asyncio.gather(*map(outcome, calls))
    assert sorted(answers) == ["OK", *["TOKEN_INVALID"] * 9]
    assert count(dsn, "sessions") == before + 1


async def test_refused_use_of_a_token_does_not_use_up_the_code(client: Client, guarded: Guarded) -> None:
    waiting = await sign_in(client)
    await complete(client, waiting, recovery_code=guarded.recovery_codes[0])
    request = CompleteSignInRequest(second_step_token=waiting.second_step_token)
    request.recovery_code = guarded.recovery_codes[1]
    assert (await refusal(client.accounts.CompleteSignIn(request))).reason == "TOKEN_INVALID"
    await complete(client, await sign_in(client), recovery_code=guarded.recovery_codes[1])


async def test_another_first_step_makes_the_former_one_useless(client: Client, guarded: Guarded) -> None:
    former, waiting = await sign_in(client), await sign_in(client)
    await refused_token(client, former, guarded.app.code())
    await complete(client, waiting, guarded.app.code())


# --- what ends the wait -----------------------------------------------------------------------------------------------
async def test_sign_in_does_not_wait_on_when_the_password_is_changed(client: Client, guarded: Guarded) -> None:
    waiting = await sign_in(client)
    request = ChangePasswordRequest(current_password=PASSWORD, new_password=OTHER_PASSWORD)
    await client.accounts.ChangePassword(request, metadata=guarded.headers)
    await refused_token(client, waiting, guarded.app.code())


async def test_sign_in_does_not_wait_on_when_the_password_is_reset(client: Client, guarded: Guarded) -> None:
    waiting = await sign_in(client)
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    await client.accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=OTHER_PASSWORD))
    await refused_token(client, waiting, guarded.app.code())


async def test_second_factor_stays_when_the_password_is_reset(client: Client, guarded: Guarded) -> None:
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    await client.accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=OTHER_PASSWORD))
    waiting = await sign_in(client, password=OTHER_PASSWORD)
    assert not waiting.session_token
    await complete(client, waiting, guarded.app.code())


async def test_sign_in_of_an_account_that_is_banned_meanwhile_is_refused(
    client: Client, guarded: Guarded, dsn: str
) -> None:
    waiting = await sign_in(client)
    ban(dsn, EMAIL)
    await refused_token(client, waiting, guarded.app.code())


async def test_sign_in_of_an_account_that_is_deleted_meanwhile_is_refused(client: Client, guarded: Guarded) -> None:
    waiting = await sign_in(client)
    await client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=guarded.headers)
    await refused_token(client, waiting, guarded.app.code())


# --- guessed ----------------------------------------------------------------------------------------------------------
async def test_codes_of_one_account_can_be_guessed_ten_times_whatever_the_token(
    client: Client, guarded: Guarded
) -> None:
    for _ in range(2):
        waiting = await sign_in(client)
        for _ in range(5):
            assert (await refusal(complete(client, waiting, guarded.app.wrong_code()))).reason == "CODE_WRONG"
    waiting = await sign_in(client)
    assert (await refusal(complete(client, waiting, guarded.app.code()))).reason == "RATE_LIMITED"
    await client.accounts.GetSession(GetSessionRequest(), metadata=guarded.headers)  # the owner's session goes on


@pytest.mark.parametrize("code", ["", "12345", "1234567", "12345x", "１２３４５６"])
async def test_what_is_no_code_is_refused_by_its_field(client: Client, guarded: Guarded, code: str) -> None:
    assert (await refusal(complete(client, await sign_in(client), code))).reason == "INVALID_MESSAGE"


# --- audited ----------------------------------------------------------------------------------------------------------
async def test_both_steps_are_audited_without_token_and_code(client: Client, guarded: Guarded, dsn: str) -> None:
    waiting = await sign_in(client)
    await refusal(complete(client, waiting, guarded.app.wrong_code()))
    code = guarded.app.code()
    done = await complete(client, waiting, code)
    with psycopg.connect(dsn) as connection:
        query = "SELECT method, reason, account_id::text, target, audit_events::text"
        events = connection.execute(f"{query} FROM audit_events ORDER BY occurred_at").fetchall()[2:]
    account = str(guarded.account_id)
    assert [(event[0].rpartition("/")[2], *event[1:4]) for event in events] == [
        ("SignIn", None, account, account),
        ("CompleteSignIn", "CODE_WRONG", account, account),
        ("CompleteSignIn", None, account, done.session.id),
    ]
    assert waiting.second_step_token not in str(events)
    assert done.session_token not in str(events)
