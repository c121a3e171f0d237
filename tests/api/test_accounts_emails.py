"""How an e-mail address is proved, and changed for another."""

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
async def test_sign_up_mails_a_token_that_proves_the_address(client: Client) -> None:
    headers = await signed_in(client)
    assert not (await account(client, headers)).HasField("email_verified_at")
    await verify(client, await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL))
    assert (await account(client, headers)).HasField("email_verified_at")


async def test_sign_up_with_an_address_that_has_an_account_tells_its_owner_and_gives_no_token(client: Client) -> None:
    await sign_up(client, name="Me")
    await sign_up(client, EMAIL.upper(), OTHER_PASSWORD, "Somebody else")
    first, second = await mailed(client.database, EMAIL)
    assert first.template == Mail.VERIFY_EMAIL
    assert second == Letter(Mail.ACCOUNT_EXISTS, {"display_name": "Me"})


async def test_refused_sign_up_mails_nothing(client: Client) -> None:
    await refusal(sign_up(client, password="too short"))
    assert await mailed_to_anyone(client.database) == []


# --- proved or not ----------------------------------------------------------------------------------------------------
async def test_unproved_address_signs_in_where_that_is_allowed(client: Client) -> None:
    await sign_up(client)
    assert (await sign_in(client)).session_token


@MUST_BE_VERIFIED
async def test_unproved_address_is_told_so_after_the_right_password_alone(client: Client) -> None:
    await sign_up(client)
    assert (await refused_sign_in(client, password=OTHER_PASSWORD)).reason == "SIGN_IN_REFUSED"
    refused = await refused_sign_in(client)
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EMAIL_NOT_VERIFIED")
    await verify(client, await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL))
    assert (await sign_in(client)).session_token


@MUST_BE_VERIFIED
async def test_banned_account_with_an_unproved_address_is_not_told_so(client: Client, dsn: str) -> None:
    await sign_up(client)
    ban(dsn, EMAIL)
    assert (await refused_sign_in(client)).reason == "SIGN_IN_REFUSED"


async def test_proof_of_an_address_that_is_the_account_s_no_more_is_refused(client: Client, dsn: str) -> None:
    headers = await signed_in(client)
    token = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
    change(dsn, "UPDATE accounts SET email = %s", OTHER_EMAIL)
    await refused_token(client, token)
    assert not (await account(client, headers)).HasField("email_verified_at")


async def test_an_address_is_proved_from_its_first_proof(client: Client) -> None:
    headers = await signed_in(client)
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    await verify(client, await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL))
    proved = (await account(client, headers)).email_verified_at
    token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    await client.accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=PASSWORD))
    assert (await account(client, bearer((await sign_in(client)).session_token))).email_verified_at == proved


async def test_account_that_is_banned_can_prove_its_address_and_stays_banned(client: Client, dsn: str) -> None:
    await sign_up(client)
    ban(dsn, EMAIL)
    await verify(client, await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL))
    assert (await refused_sign_in(client)).reason == "SIGN_IN_REFUSED"


# --- once more --------------------------------------------------------------------------------------------------------
async def test_another_token_is_mailed_and_the_former_one_useless(client: Client) -> None:
    await sign_up(client)
    former = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
    await client.accounts.ResendVerificationEmail(ResendVerificationEmailRequest(email=EMAIL.upper()))
    token = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
    assert token != former
    await refused_token(client, former)
    await verify(client, token)


async def test_no_token_is_mailed_to_whom_has_nothing_to_prove(client: Client, dsn: str) -> None:
    await sign_up(client)
    await verify(client, await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL))
    await sign_up(client, "banned@example.com")
    ban(dsn, "banned@example.com")
    before = await mailed_to_anyone(client.database)
    for email in (EMAIL, "banned@example.com", "nobody@example.com"):
        await client.accounts.ResendVerificationEmail(ResendVerificationEmailRequest(email=email))
    assert await mailed_to_anyone(client.database) == before


# --- another address --------------------------------------------------------------------------------------------------
async def test_nothing_changes_until_the_new_address_is_proved_and_the_old_one_is_told(client: Client) -> None:
    headers = await signed_in(client)
    await change_email(client, headers, "ElseWhere@Example.org")
    assert (await account(client, headers)).email == EMAIL
    (letter,) = await mailed(client.database, OTHER_EMAIL)
    assert (letter.template, letter.values["display_name"]) == (Mail.CHANGE_EMAIL, "Me")
    told = (await mailed(client.database, EMAIL))[-1]
    assert told == Letter(Mail.EMAIL_CHANGE_REQUESTED, {"display_name": "Me", "new_email": OTHER_EMAIL})
    assert (await refused_sign_in(client, OTHER_EMAIL)).reason == "SIGN_IN_REFUSED"


async def test_the_new_address_is_the_account_s_once_proved_and_the_old_one_is_told_and_free(client: Client) -> None:
    headers = await signed_in(client)
    await change_email(client, headers)
    await verify(client, await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL))
    mine = await account(client, headers)
    assert mine.email == OTHER_EMAIL
    assert mine.HasField("email_verified_at")
    told = (await mailed(client.database, EMAIL))[-1]
    assert told == Letter(Mail.EMAIL_CHANGED, {"display_name": "Me", "new_email": OTHER_EMAIL})
    assert await templates(client, OTHER_EMAIL) == [Mail.CHANGE_EMAIL]
    await sign_in(client, OTHER_EMAIL)
    assert (await refused_sign_in(client, EMAIL)).reason == "SIGN_IN_REFUSED"
    await sign_up(client, EMAIL, OTHER_PASSWORD)
    await sign_in(client, EMAIL, OTHER_PASSWORD)


async def test_with_the_change_all_other_mailed_tokens_are_useless(client: Client) -> None:
    headers = await signed_in(client)
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    await change_email(client, headers)
    await verify(client, await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL))
    await refused_token(client, await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL))
    token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    request = ResetPasswordRequest(token=token, new_password=OTHER_PASSWORD)
    assert (await refusal(client.accounts.ResetPassword(request))).reason == "TOKEN_INVALID"
    await sign_in(client, OTHER_EMAIL)


async def test_only_the_last_new_address_that_was_asked_for_can_be_proved(client: Client) -> None:
    headers = await signed_in(client)
    await change_email(client, headers, "first@example.org")
    await change_email(client, headers, "second@example.org")
    await refused_token(client, await mailed_token(client.database, "first@example.org", Mail.CHANGE_EMAIL))
    await verify(client, await mailed_token(client.database, "second@example.org", Mail.CHANGE_EMAIL))
    assert (await account(client, headers)).email == "second@example.org"


async def test_an_address_that_somebody_has_is_answered_alike_and_cannot_be_taken(client: Client) -> None:
    headers = await signed_in(client)
    await sign_up(client, OTHER_EMAIL, OTHER_PASSWORD)
    await change_email(client, headers)
    await refused_token(client, await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL))
    assert (await account(client, headers)).email == EMAIL
    await sign_in(client, OTHER_EMAIL, OTHER_PASSWORD)


async def test_an_address_that_somebody_got_meanwhile_cannot_be_taken(client: Client) -> None:
    headers = await signed_in(client)
    await change_email(client, headers)
    token = await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL)
    await sign_up(client, OTHER_EMAIL, OTHER_PASSWORD)
    told = await templates(client, EMAIL)
    await refused_token(client, token)
    assert (await account(client, headers)).email == EMAIL
    assert await templates(client, EMAIL) == told


async def test_of_two_accounts_that_prove_one_address_at_once_one_gets_it(client: Client) -> None:
    tokens = []
    for number in range(2):
        headers = await signed_in(client, f"{number}@example.com")
        await change_email(client, headers)
        tokens.append(await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL))
    answers = await asyncio.gather(*(outcome(verify(client, token)) for token in tokens))
    assert sorted(answers) == ["OK", "TOKEN_INVALID"]


async def test_change_of_address_wants_a_session_that_signed_in_recently(client: Client, dsn: str) -> None:
    request = ChangeEmailRequest(new_email=OTHER_EMAIL)
    assert (await refusal(client.accounts.ChangeEmail(request))).reason == "CREDENTIAL_MISSING"
    headers = await signed_in(client)
    change(dsn, "UPDATE sessions SET authenticated_at = now() - interval '1 day'")
    refused = await refusal(client.accounts.ChangeEmail(request, metadata=headers))
    assert refused.reason == "SIGN_IN_NOT_FRESH"
    assert await mailed(client.database, OTHER_EMAIL) == []


@pytest.mark.parametrize("email", ["", "x", "a@", "a b@c.de", "x" * 250 + "@b.de", "a@b.de\n"])
async def test_wrong_new_address_is_refused_by_its_field(client: Client, email: str) -> None:
    headers = (await client.somebody()).headers
    refused = await refusal(client.accounts.ChangeEmail(ChangeEmailRequest(new_email=email), metadata=headers))
    assert list(refused.violations) == ["new_email"]
