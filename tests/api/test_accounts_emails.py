"""Verification and change of e-mail addresses."""

import asyncio

import grpc
import pytest

from accord.accounts.v1.accounts_pb2 import (
    Account,
    ChangeEmailRequest,
    GetAccountRequest,
    RequestPasswordResetRequest,
    ResendVerificationEmailRequest,
    ResetPasswordRequest,
    VerifyEmailRequest,
)
from accord_api.outbox import Mail
from accord_gateway.settings import Settings
from tests.api.conftest import Client, outcome, refusal
from tests.api.mailbox import Letter, mailed, mailed_to_anyone, mailed_token
from tests.api.signing_in import (
    EMAIL,
    OTHER_EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    ban,
    refused_sign_in,
    sign_in,
    sign_up,
    signed_in,
)
from tests.conftest import change
from tests.factories import Headers, bearer

MUST_BE_VERIFIED = pytest.mark.parametrize(
    "gateway_settings", [Settings(port=0, metrics_port=0, verified_email_required=True)], ids=["verified required"]
)


async def verify(client: Client, token: str) -> None:
    await client.accounts.VerifyEmail(VerifyEmailRequest(token=token))


async def refused_token(client: Client, token: str) -> None:
    assert (await refusal(client.accounts.VerifyEmail(VerifyEmailRequest(token=token)))).reason == "TOKEN_INVALID"


async def change_email(client: Client, headers: Headers, new_email: str = OTHER_EMAIL) -> None:
    await client.accounts.ChangeEmail(ChangeEmailRequest(new_email=new_email), metadata=headers)


async def account(client: Client, headers: Headers) -> Account:
    return (await client.accounts.GetAccount(GetAccountRequest(), metadata=headers)).account


async def templates(client: Client, to: str) -> list[Mail]:
    return [letter.template for letter in await mailed(client.database, to)]


# --- sign-up ----------------------------------------------------------------------------------------------------------
async def test_sign_up_mails_a_token_that_verifies_the_email(client: Client) -> None:
    headers = await signed_in(client)
    assert not (await account(client, headers)).HasField("email_verified_at")
    await verify(client, await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL))
    assert (await account(client, headers)).HasField("email_verified_at")


async def test_sign_up_with_an_existing_email_notifies_its_owner_without_a_token(client: Client) -> None:
    await sign_up(client, name="Me")
    await sign_up(client, EMAIL.upper(), OTHER_PASSWORD, "Another name")
    first, second = await mailed(client.database, EMAIL)
    assert first.template == Mail.VERIFY_EMAIL
    assert second == Letter(Mail.ACCOUNT_EXISTS, {"display_name": "Me"})


async def test_refused_sign_up_mails_nothing(client: Client) -> None:
    await refusal(sign_up(client, password="too short"))
    assert await mailed_to_anyone(client.database) == []


# --- verification -----------------------------------------------------------------------------------------------------
async def test_account_with_an_unverified_email_signs_in_by_default(client: Client) -> None:
    await sign_up(client)
    assert (await sign_in(client)).session_token


@MUST_BE_VERIFIED
async def test_email_not_verified_is_reported_only_for_the_right_password(client: Client) -> None:
    await sign_up(client)
    assert (await refused_sign_in(client, password=OTHER_PASSWORD)).reason == "SIGN_IN_REFUSED"
    refused = await refused_sign_in(client)
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EMAIL_NOT_VERIFIED")
    await verify(client, await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL))
    assert (await sign_in(client)).session_token


@MUST_BE_VERIFIED
async def test_email_not_verified_is_not_reported_for_a_banned_account(client: Client, dsn: str) -> None:
    await sign_up(client)
    ban(dsn, EMAIL)
    assert (await refused_sign_in(client)).reason == "SIGN_IN_REFUSED"


async def test_verification_token_of_a_former_email_is_refused(client: Client, dsn: str) -> None:
    headers = await signed_in(client)
    token = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
    change(dsn, "UPDATE accounts SET email = %s", OTHER_EMAIL)
    await refused_token(client, token)
    assert not (await account(client, headers)).HasField("email_verified_at")


async def test_verification_time_is_that_of_the_first_verification(client: Client) -> None:
    headers = await signed_in(client)
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    await verify(client, await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL))
    verified_at = (await account(client, headers)).email_verified_at
    token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    await client.accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=PASSWORD))
    assert (await account(client, bearer((await sign_in(client)).session_token))).email_verified_at == verified_at


async def test_banned_account_can_verify_its_email_and_stays_banned(client: Client, dsn: str) -> None:
    await sign_up(client)
    ban(dsn, EMAIL)
    await verify(client, await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL))
    assert (await refused_sign_in(client)).reason == "SIGN_IN_REFUSED"


# --- resend -----------------------------------------------------------------------------------------------------------
async def test_resend_mails_a_new_token_and_invalidates_the_former_one(client: Client) -> None:
    await sign_up(client)
    former = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
    await client.accounts.ResendVerificationEmail(ResendVerificationEmailRequest(email=EMAIL.upper()))
    token = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
    assert token != former
    await refused_token(client, former)
    await verify(client, token)


async def test_resend_mails_nothing_to_verified_banned_or_unknown_accounts(client: Client, dsn: str) -> None:
    await sign_up(client)
    await verify(client, await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL))
    await sign_up(client, "banned@example.com")
    ban(dsn, "banned@example.com")
    before = await mailed_to_anyone(client.database)
    for email in (EMAIL, "banned@example.com", "unknown@example.com"):
        await client.accounts.ResendVerificationEmail(ResendVerificationEmailRequest(email=email))
    assert await mailed_to_anyone(client.database) == before


# --- change -----------------------------------------------------------------------------------------------------------
async def test_email_is_unchanged_until_the_new_one_is_verified_and_the_old_one_is_notified(client: Client) -> None:
    headers = await signed_in(client)
    await change_email(client, headers, "ElseWhere@Example.org")
    assert (await account(client, headers)).email == EMAIL
    (letter,) = await mailed(client.database, OTHER_EMAIL)
    assert (letter.template, letter.values["display_name"]) == (Mail.CHANGE_EMAIL, "Me")
    notice = (await mailed(client.database, EMAIL))[-1]
    assert notice == Letter(Mail.EMAIL_CHANGE_REQUESTED, {"display_name": "Me", "new_email": OTHER_EMAIL})
    assert (await refused_sign_in(client, OTHER_EMAIL)).reason == "SIGN_IN_REFUSED"


async def test_verified_new_email_replaces_the_old_one_which_is_notified_and_available(client: Client) -> None:
    headers = await signed_in(client)
    await change_email(client, headers)
    await verify(client, await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL))
    mine = await account(client, headers)
    assert mine.email == OTHER_EMAIL
    assert mine.HasField("email_verified_at")
    notice = (await mailed(client.database, EMAIL))[-1]
    assert notice == Letter(Mail.EMAIL_CHANGED, {"display_name": "Me", "new_email": OTHER_EMAIL})
    assert await templates(client, OTHER_EMAIL) == [Mail.CHANGE_EMAIL]
    await sign_in(client, OTHER_EMAIL)
    assert (await refused_sign_in(client, EMAIL)).reason == "SIGN_IN_REFUSED"
    await sign_up(client, EMAIL, OTHER_PASSWORD)
    await sign_in(client, EMAIL, OTHER_PASSWORD)


async def test_email_change_invalidates_all_other_mailed_tokens(client: Client) -> None:
    headers = await signed_in(client)
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    await change_email(client, headers)
    await verify(client, await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL))
    await refused_token(client, await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL))
    token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    request = ResetPasswordRequest(token=token, new_password=OTHER_PASSWORD)
    assert (await refusal(client.accounts.ResetPassword(request))).reason == "TOKEN_INVALID"
    await sign_in(client, OTHER_EMAIL)


async def test_only_the_last_requested_new_email_can_be_verified(client: Client) -> None:
    headers = await signed_in(client)
    await change_email(client, headers, "first@example.org")
    await change_email(client, headers, "second@example.org")
    await refused_token(client, await mailed_token(client.database, "first@example.org", Mail.CHANGE_EMAIL))
    await verify(client, await mailed_token(client.database, "second@example.org", Mail.CHANGE_EMAIL))
    assert (await account(client, headers)).email == "second@example.org"


async def test_change_to_the_email_of_another_account_gets_the_same_response_and_cannot_be_verified(
    client: Client,
) -> None:
    headers = await signed_in(client)
    await sign_up(client, OTHER_EMAIL, OTHER_PASSWORD)
    await change_email(client, headers)
    await refused_token(client, await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL))
    assert (await account(client, headers)).email == EMAIL
    await sign_in(client, OTHER_EMAIL, OTHER_PASSWORD)


async def test_email_registered_by_another_account_in_the_meantime_cannot_be_verified(client: Client) -> None:
    headers = await signed_in(client)
    await change_email(client, headers)
    token = await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL)
    await sign_up(client, OTHER_EMAIL, OTHER_PASSWORD)
    before = await templates(client, EMAIL)
    await refused_token(client, token)
    assert (await account(client, headers)).email == EMAIL
    assert await templates(client, EMAIL) == before


async def test_one_of_two_accounts_that_concurrently_verify_one_email_gets_it(client: Client) -> None:
    tokens = []
    for number in range(2):
        headers = await signed_in(client, f"{number}@example.com")
        await change_email(client, headers)
        tokens.append(await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL))
    outcomes = await asyncio.gather(*(outcome(verify(client, token)) for token in tokens))
    assert sorted(outcomes) == ["OK", "TOKEN_INVALID"]


async def test_email_change_requires_a_recent_sign_in(client: Client, dsn: str) -> None:
    request = ChangeEmailRequest(new_email=OTHER_EMAIL)
    assert (await refusal(client.accounts.ChangeEmail(request))).reason == "CREDENTIAL_MISSING"
    headers = await signed_in(client)
    change(dsn, "UPDATE sessions SET authenticated_at = now() - interval '1 day'")
    refused = await refusal(client.accounts.ChangeEmail(request, metadata=headers))
    assert refused.reason == "SIGN_IN_NOT_FRESH"
    assert await mailed(client.database, OTHER_EMAIL) == []


@pytest.mark.parametrize("email", ["", "x", "a@", "a b@c.de", "x" * 250 + "@b.de", "a@b.de\n"])
async def test_invalid_new_email_is_a_violation_of_its_field(client: Client, email: str) -> None:
    headers = (await client.new_user()).headers
    refused = await refusal(client.accounts.ChangeEmail(ChangeEmailRequest(new_email=email), metadata=headers))
    assert list(refused.violations) == ["new_email"]
