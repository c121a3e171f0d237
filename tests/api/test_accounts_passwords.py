"""How a password is changed by whoever knows it, and forgotten by whoever does not."""

import asyncio

import grpc
import psycopg
import pytest

from accord.accounts.v1.accounts_pb2 import (
    ChangeEmailRequest,
    ChangePasswordRequest,
    GetSessionRequest,
    RequestPasswordResetRequest,
    ResetPasswordRequest,
    SignInRequest,
    VerifyEmailRequest,
)
from accord_api.outbox import Mail
from accord_auth.passwords import Passwords
from tests.api.conftest import Client, outcome, refusal
from tests.api.mailbox import Letter, mailed, mailed_to_anyone, mailed_token
from tests.api.signing_in import (
    EMAIL,
    OTHER_EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    ban,
    forget_password,
    hash_changed_during,
    outdated_hash,
    refused_sign_in,
    sign_in,
    sign_up,
    signed_in,
)
from tests.conftest import change
from tests.factories import Headers, bearer


async def request_reset(client: Client, email: str = EMAIL) -> None:
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=email))


async def reset_token(client: Client, email: str = EMAIL) -> str:
    await request_reset(client, email)
    return await mailed_token(client.database, email, Mail.RESET_PASSWORD)


async def reset(client: Client, token: str, password: str = OTHER_PASSWORD) -> None:
    await client.accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=password))


async def change_password(client: Client, headers: Headers, current: str = PASSWORD, new: str = OTHER_PASSWORD) -> None:
    request = ChangePasswordRequest(current_password=current, new_password=new)
    await client.accounts.ChangePassword(request, metadata=headers)


async def is_signed_in(client: Client, headers: Headers) -> bool:
    try:
        await client.accounts.GetSession(GetSessionRequest(), metadata=headers)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        return False
    return True


async def only_works(client: Client, password: str, not_this: str) -> None:
    assert (await refused_sign_in(client, password=not_this)).reason == "SIGN_IN_REFUSED"
    await sign_in(client, password=password)


# --- changed ----------------------------------------------------------------------------------------------------------
async def test_changed_password_is_the_only_one_that_works_and_the_owner_is_told(client: Client) -> None:
    await change_password(client, await signed_in(client))
    await only_works(client, OTHER_PASSWORD, PASSWORD)
    assert (await mailed(client.database, EMAIL))[-1] == Letter(Mail.PASSWORD_CHANGED, {"display_name": "Me"})


async def test_change_of_password_ends_all_other_sessions_of_the_account(client: Client) -> None:
    mine = await signed_in(client)
    others = [bearer((await sign_in(client)).session_token) for _ in range(3)]
    somebody = await client.somebody()
    assert all([await is_signed_in(client, headers) for headers in others])
    await change_password(client, mine)
    assert [await is_signed_in(client, headers) for headers in others] == [False] * 3
    assert await is_signed_in(client, mine)
    assert await is_signed_in(client, somebody.headers)


async def test_wrong_current_password_changes_nothing(client: Client) -> None:
    mine, other = await signed_in(client), bearer((await sign_in(client)).session_token)
    refused = await refusal(change_password(client, mine, current=PASSWORD + " "))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PASSWORD_WRONG")
    assert await is_signed_in(client, other)
    await only_works(client, PASSWORD, OTHER_PASSWORD)


async def test_account_without_a_password_cannot_change_it(client: Client, dsn: str) -> None:
    headers = await signed_in(client)
    forget_password(dsn, EMAIL)
    assert (await refusal(change_password(client, headers))).reason == "PASSWORD_WRONG"


async def test_with_the_change_a_reset_that_was_asked_for_is_useless(client: Client) -> None:
    headers = await signed_in(client)
    token = await reset_token(client)
    await change_password(client, headers)
    assert (await refusal(reset(client, token, "a third password"))).reason == "TOKEN_INVALID"
    await only_works(client, OTHER_PASSWORD, "a third password")


async def test_with_the_change_a_new_address_that_was_asked_for_cannot_be_proved(client: Client) -> None:
    headers = await signed_in(client)
    await client.accounts.ChangeEmail(ChangeEmailRequest(new_email=OTHER_EMAIL), metadata=headers)  # whoever that was
    token = await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL)
    await change_password(client, headers)
    refused = await refusal(client.accounts.VerifyEmail(VerifyEmailRequest(token=token)))
    assert refused.reason == "TOKEN_INVALID"


async def test_with_the_change_the_address_can_still_be_proved(client: Client) -> None:
    await change_password(client, await signed_in(client))
    token = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
    await client.accounts.VerifyEmail(VerifyEmailRequest(token=token))


async def test_of_ten_changes_at_once_from_one_password_one_succeeds(client: Client) -> None:
    headers = await signed_in(client)
    new = [f"password number {number}" for number in range(10)]
    answers = await asyncio.gather(*(outcome(change_password(client, headers, new=password)) for password in new))
    assert sorted(answers) == ["OK", *["PASSWORD_WRONG"] * 9]
    await sign_in(client, password=new[answers.index("OK")])


async def test_password_is_changed_when_its_hash_is_renewed_while_it_is_verified(client: Client, dsn: str) -> None:
    headers = await signed_in(client)
    async with hash_changed_during(dsn, outdated_hash()):
        call = asyncio.ensure_future(outcome(change_password(client, headers)))
    assert await call == "OK"
    await only_works(client, OTHER_PASSWORD, PASSWORD)


async def test_password_is_not_changed_when_another_change_commits_while_it_is_verified(
    client: Client, dsn: str
) -> None:
    headers = await signed_in(client)
    async with hash_changed_during(dsn, outdated_hash("a third password")):
        call = asyncio.ensure_future(outcome(change_password(client, headers)))
    assert await call == "PASSWORD_WRONG"
    await only_works(client, "a third password", OTHER_PASSWORD)


async def test_guessing_the_current_password_of_an_open_session_is_limited(client: Client) -> None:
    headers = await signed_in(client)
    answers = [await refusal(change_password(client, headers, current=f"guess {number}")) for number in range(11)]
    assert [answer.reason for answer in answers] == ["PASSWORD_WRONG"] * 10 + ["RATE_LIMITED"]
    assert await is_signed_in(client, headers)


# --- forgotten --------------------------------------------------------------------------------------------------------
async def test_reset_password_is_the_only_one_that_works_and_the_owner_is_told(client: Client) -> None:
    await sign_up(client)
    await reset(client, await reset_token(client, EMAIL))
    await only_works(client, OTHER_PASSWORD, PASSWORD)
    assert (await mailed(client.database, EMAIL))[-1] == Letter(Mail.PASSWORD_CHANGED, {"display_name": "Me"})


async def test_reset_ends_all_sessions_of_the_account(client: Client) -> None:
    mine, other, somebody = (
        await signed_in(client),
        bearer((await sign_in(client)).session_token),
        await client.somebody(),
    )
    assert await is_signed_in(client, other)
    await reset(client, await reset_token(client))
    assert not await is_signed_in(client, mine)
    assert not await is_signed_in(client, other)
    assert await is_signed_in(client, somebody.headers)


async def test_reset_proves_the_address_and_makes_its_other_tokens_useless(client: Client, dsn: str) -> None:
    await sign_up(client)
    await reset(client, await reset_token(client))
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT email_verified_at IS NOT NULL FROM accounts").fetchone() == (True,)
    token = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
    refused = await refusal(client.accounts.VerifyEmail(VerifyEmailRequest(token=token)))
    assert refused.reason == "TOKEN_INVALID"


async def test_reset_gives_a_password_to_an_account_that_only_providers_signed_in_to(client: Client, dsn: str) -> None:
    await sign_up(client)
    forget_password(dsn, EMAIL)
    await reset(client, await reset_token(client))
    await sign_in(client, password=OTHER_PASSWORD)


async def test_no_reset_is_mailed_to_banned_deleted_or_unknown_accounts(client: Client, dsn: str) -> None:
    for name in ("banned", "deleted"):
        await sign_up(client, f"{name}@example.com")
    ban(dsn, "banned@example.com")
    change(dsn, "UPDATE accounts SET deleted_at = now() WHERE email = %s", "deleted@example.com")
    before = await mailed_to_anyone(client.database)
    for name in ("banned", "deleted", "unknown"):
        await request_reset(client, f"{name}@example.com")
    assert await mailed_to_anyone(client.database) == before


async def test_account_that_is_banned_after_it_asked_does_not_come_back_by_a_reset(client: Client, dsn: str) -> None:
    await sign_up(client)
    token = await reset_token(client)
    ban(dsn, EMAIL)
    await outcome(reset(client, token))
    assert (await refused_sign_in(client, password=OTHER_PASSWORD)).reason == "SIGN_IN_REFUSED"


async def test_token_of_a_reset_can_be_used_again_after_a_password_that_was_refused(client: Client) -> None:
    await sign_up(client)
    token = await reset_token(client)
    for password in ("too short", "x" * 14, "x" * 129):
        refused = await refusal(reset(client, token, password))
        assert (refused.reason, list(refused.violations)) == ("INVALID_MESSAGE", ["new_password"])
    await reset(client, token)
    await sign_in(client, password=OTHER_PASSWORD)


async def test_sign_in_that_was_under_way_with_the_old_password_opens_no_session_after_a_reset(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old password was right when it was asked for; what is opened with it must not outlive it."""
    await sign_up(client)
    token = await reset_token(client)
    verified, go_on = asyncio.Event(), asyncio.Event()
    verify = Passwords.verify

    async def verify_and_wait(self: Passwords, password_hash: str | None, password: str) -> bool:
        known = await verify(self, password_hash, password)
        verified.set()
        await go_on.wait()
        return known

    monkeypatch.setattr(Passwords, "verify", verify_and_wait)
    under_way = asyncio.ensure_future(refused_sign_in(client))
    await verified.wait()
    await reset(client, token)
    go_on.set()
    assert (await under_way).reason == "SIGN_IN_REFUSED"


async def test_fifteen_sign_ins_while_a_password_is_reset_leave_no_session_of_the_old_one(client: Client) -> None:
    await sign_up(client)
    token = await reset_token(client)
    signing_in = [asyncio.ensure_future(_signed_in(client)) for _ in range(15)]
    await asyncio.wait(signing_in, return_when=asyncio.FIRST_COMPLETED)
    await reset(client, token)
    for headers in await asyncio.gather(*signing_in):
        assert headers is None or not await is_signed_in(client, headers)


async def _signed_in(client: Client) -> Headers | None:
    try:
        return bearer((await client.accounts.SignIn(SignInRequest(email=EMAIL, password=PASSWORD))).session_token)
    except grpc.aio.AioRpcError:
        return None


# --- chosen -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("password", ["", "x" * 7, "x" * 14, "ü" * 14, "x" * 129, "somebody@example.com"])
async def test_password_that_may_not_be_chosen_is_refused_by_its_field_wherever_it_is_chosen(
    client: Client, password: str
) -> None:
    headers = await signed_in(client)
    token = await reset_token(client)
    for where in ("change", "reset"):
        choose = change_password(client, headers, new=password) if where == "change" else reset(client, token, password)
        refused = await refusal(choose)
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
        assert list(refused.violations) == ["new_password"]
        assert not password or password not in repr(refused)
    await only_works(client, PASSWORD, OTHER_PASSWORD)


@pytest.mark.parametrize("password", ["x1y2z3" * 3, "ü𝕏" * 63, "\0" * 10 + "abcdef", " lead and trail "])
async def test_new_password_is_taken_exactly_as_sent(client: Client, password: str) -> None:
    headers = await signed_in(client)
    await change_password(client, headers, new=password)
    await only_works(client, password, password + " ")
    await reset(client, await reset_token(client), password + "!")
    await only_works(client, password + "!", password)


# --- audited ----------------------------------------------------------------------------------------------------------
async def test_passwords_are_in_no_audit_event_and_events_say_whose_they_are(client: Client, dsn: str) -> None:
    headers = await signed_in(client)
    await refusal(change_password(client, headers, current="canary of a wrong password"))
    await change_password(client, headers)
    token = await reset_token(client)
    await reset(client, token, "canary of a reset password")
    with psycopg.connect(dsn) as connection:
        query = "SELECT method, code, account_id = accounts.id, target = accounts.id::text, audit_events::text"
        events = connection.execute(f"{query} FROM audit_events, accounts ORDER BY occurred_at").fetchall()
    outcomes = [(event[0].rpartition("/")[2], *event[1:4]) for event in events]
    assert outcomes[2:] == [
        ("ChangePassword", "PERMISSION_DENIED", True, True),
        ("ChangePassword", "OK", True, True),
        ("RequestPasswordReset", "OK", True, True),
        ("ResetPassword", "OK", True, True),
    ]
    text = "".join(event[4] for event in events)
    for secret in (PASSWORD, OTHER_PASSWORD, "canary", token, token[4:]):
        assert secret not in text
