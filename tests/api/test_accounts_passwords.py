"""ChangePassword, for a user who knows the password, and the password reset, for one who does not."""

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
    hash_changed_during,
    outdated_hash,
    refused_sign_in,
    remove_password,
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


async def assert_only_password(client: Client, password: str, old: str) -> None:
    assert (await refused_sign_in(client, password=old)).reason == "SIGN_IN_REFUSED"
    await sign_in(client, password=password)


# --- change -----------------------------------------------------------------------------------------------------------
async def test_after_a_change_only_the_new_password_works_and_the_owner_is_notified(client: Client) -> None:
    await change_password(client, await signed_in(client))
    await assert_only_password(client, OTHER_PASSWORD, PASSWORD)
    assert (await mailed(client.database, EMAIL))[-1] == Letter(Mail.PASSWORD_CHANGED, {"display_name": "Me"})


async def test_change_of_password_ends_all_other_sessions_of_the_account(client: Client) -> None:
    mine = await signed_in(client)
    others = [bearer((await sign_in(client)).session_token) for _ in range(3)]
    other_user = await client.new_user()
    assert all([await is_signed_in(client, headers) for headers in others])
    await change_password(client, mine)
    assert [await is_signed_in(client, headers) for headers in others] == [False] * 3
    assert await is_signed_in(client, mine)
    assert await is_signed_in(client, other_user.headers)


async def test_wrong_current_password_changes_nothing(client: Client) -> None:
    mine, other = await signed_in(client), bearer((await sign_in(client)).session_token)
    refused = await refusal(change_password(client, mine, current=PASSWORD + " "))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PASSWORD_WRONG")
    assert await is_signed_in(client, other)
    await assert_only_password(client, PASSWORD, OTHER_PASSWORD)


async def test_account_without_a_password_cannot_change_it(client: Client, dsn: str) -> None:
    headers = await signed_in(client)
    remove_password(dsn, EMAIL)
    assert (await refusal(change_password(client, headers))).reason == "PASSWORD_WRONG"


async def test_password_change_invalidates_a_requested_reset(client: Client) -> None:
    headers = await signed_in(client)
    token = await reset_token(client)
    await change_password(client, headers)
    assert (await refusal(reset(client, token, "a third password"))).reason == "TOKEN_INVALID"
    await assert_only_password(client, OTHER_PASSWORD, "a third password")


async def test_password_change_invalidates_a_requested_email_change(client: Client) -> None:
    headers = await signed_in(client)
    await client.accounts.ChangeEmail(ChangeEmailRequest(new_email=OTHER_EMAIL), metadata=headers)
    token = await mailed_token(client.database, OTHER_EMAIL, Mail.CHANGE_EMAIL)
    await change_password(client, headers)
    refused = await refusal(client.accounts.VerifyEmail(VerifyEmailRequest(token=token)))
    assert refused.reason == "TOKEN_INVALID"


async def test_email_can_be_verified_after_a_password_change(client: Client) -> None:
    await change_password(client, await signed_in(client))
    token = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
    await client.accounts.VerifyEmail(VerifyEmailRequest(token=token))


async def test_one_of_ten_concurrent_password_changes_succeeds(client: Client) -> None:
    headers = await signed_in(client)
    new = [f"password number {number}" for number in range(10)]
    outcomes = await asyncio.gather(*(outcome(change_password(client, headers, new=password)) for password in new))
    assert sorted(outcomes) == ["OK", *["PASSWORD_WRONG"] * 9]
    await sign_in(client, password=new[outcomes.index("OK")])


async def test_password_is_changed_when_its_hash_is_renewed_while_it_is_verified(client: Client, dsn: str) -> None:
    headers = await signed_in(client)
    async with hash_changed_during(dsn, outdated_hash()):
        call = asyncio.ensure_future(outcome(change_password(client, headers)))
    assert await call == "OK"
    await assert_only_password(client, OTHER_PASSWORD, PASSWORD)


async def test_password_is_not_changed_when_another_change_commits_while_it_is_verified(
    client: Client, dsn: str
) -> None:
    headers = await signed_in(client)
    async with hash_changed_during(dsn, outdated_hash("a third password")):
        call = asyncio.ensure_future(outcome(change_password(client, headers)))
    assert await call == "PASSWORD_WRONG"
    await assert_only_password(client, "a third password", OTHER_PASSWORD)


async def test_guesses_of_the_current_password_are_limited(client: Client) -> None:
    headers = await signed_in(client)
    refusals = [await refusal(change_password(client, headers, current=f"guess {number}")) for number in range(11)]
    assert [refused.reason for refused in refusals] == ["PASSWORD_WRONG"] * 10 + ["RATE_LIMITED"]
    assert await is_signed_in(client, headers)


# --- reset ------------------------------------------------------------------------------------------------------------
async def test_after_a_reset_only_the_new_password_works_and_the_owner_is_notified(client: Client) -> None:
    await sign_up(client)
    await reset(client, await reset_token(client, EMAIL))
    await assert_only_password(client, OTHER_PASSWORD, PASSWORD)
    assert (await mailed(client.database, EMAIL))[-1] == Letter(Mail.PASSWORD_CHANGED, {"display_name": "Me"})


async def test_reset_ends_all_sessions_of_the_account(client: Client) -> None:
    mine, other, other_user = (
        await signed_in(client),
        bearer((await sign_in(client)).session_token),
        await client.new_user(),
    )
    assert await is_signed_in(client, other)
    await reset(client, await reset_token(client))
    assert not await is_signed_in(client, mine)
    assert not await is_signed_in(client, other)
    assert await is_signed_in(client, other_user.headers)


async def test_reset_verifies_the_email_and_invalidates_its_other_tokens(client: Client, dsn: str) -> None:
    await sign_up(client)
    await reset(client, await reset_token(client))
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT email_verified_at IS NOT NULL FROM accounts").fetchone() == (True,)
    token = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
    refused = await refusal(client.accounts.VerifyEmail(VerifyEmailRequest(token=token)))
    assert refused.reason == "TOKEN_INVALID"


async def test_reset_sets_a_password_on_an_account_that_only_used_providers(client: Client, dsn: str) -> None:
    await sign_up(client)
    remove_password(dsn, EMAIL)
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


async def test_reset_does_not_lift_a_ban_imposed_after_the_request(client: Client, dsn: str) -> None:
    await sign_up(client)
    token = await reset_token(client)
    ban(dsn, EMAIL)
    await outcome(reset(client, token))
    assert (await refused_sign_in(client, password=OTHER_PASSWORD)).reason == "SIGN_IN_REFUSED"


async def test_reset_token_can_be_reused_after_an_invalid_new_password(client: Client) -> None:
    await sign_up(client)
    token = await reset_token(client)
    for password in ("too short", "x" * 14, "x" * 129):
        refused = await refusal(reset(client, token, password))
        assert (refused.reason, list(refused.violations)) == ("INVALID_MESSAGE", ["new_password"])
    await reset(client, token)
    await sign_in(client, password=OTHER_PASSWORD)


async def test_concurrent_sign_in_with_the_old_password_creates_no_session_after_a_reset(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old password was right when it was verified. No session that it opens may outlive the reset."""
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


async def test_sign_ins_during_a_reset_leave_no_session_of_the_old_password(client: Client) -> None:
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


# --- limits -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("password", ["", "x" * 7, "x" * 14, "ü" * 14, "x" * 129, "user@example.com"])
async def test_invalid_new_password_is_a_violation_of_its_field_in_every_method(client: Client, password: str) -> None:
    headers = await signed_in(client)
    token = await reset_token(client)
    for where in ("change", "reset"):
        choose = change_password(client, headers, new=password) if where == "change" else reset(client, token, password)
        refused = await refusal(choose)
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
        assert list(refused.violations) == ["new_password"]
        assert not password or password not in repr(refused)
    await assert_only_password(client, PASSWORD, OTHER_PASSWORD)


@pytest.mark.parametrize("password", ["x1y2z3" * 3, "ü𝕏" * 63, "\0" * 10 + "abcdef", " lead and trail "])
async def test_new_password_is_accepted_exactly_as_sent(client: Client, password: str) -> None:
    headers = await signed_in(client)
    await change_password(client, headers, new=password)
    await assert_only_password(client, password, password + " ")
    await reset(client, await reset_token(client), password + "!")
    await assert_only_password(client, password + "!", password)


# --- audit ------------------------------------------------------------------------------------------------------------
async def test_audit_events_name_the_account_and_contain_no_password(client: Client, dsn: str) -> None:
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
