"""GetAccount, UpdateAccount and DeleteAccount."""

from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from accord.accounts.v1.accounts_pb2 import (
    Account,
    DeleteAccountRequest,
    GetAccountRequest,
    GetSessionRequest,
    RequestPasswordResetRequest,
    ResetPasswordRequest,
    UpdateAccountRequest,
    VerifyEmailRequest,
)
from accord_api.outbox import Mail
from tests.api.conftest import Client, Refusal, refusal
from tests.api.mailbox import mailed_token
from tests.api.signing_in import (
    EMAIL,
    OTHER_PASSWORD,
    refused_sign_in,
    sign_in,
    sign_up,
    signed_in,
)
from tests.conftest import change
from tests.factories import Person, bearer


async def get(client: Client, me: Person) -> Account:
    return (await client.accounts.GetAccount(GetAccountRequest(), metadata=me.headers)).account


async def update(client: Client, me: Person, account: Account, *paths: str) -> Account:
    request = UpdateAccountRequest(account=account, update_mask=FieldMask(paths=paths))
    return (await client.accounts.UpdateAccount(request, metadata=me.headers)).account


async def refused_update(client: Client, me: Person, account: Account, *paths: str) -> Refusal:
    return await refusal(update(client, me, account, *paths))


async def delete(client: Client, headers: Any) -> None:
    await client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=headers)


# --- get and update ---------------------------------------------------------------------------------------------------
async def test_get_account_returns_every_field_to_the_owner(client: Client, me: Person) -> None:
    account = await get(client, me)
    assert (account.id, account.email, account.display_name) == (str(me.account_id), me.email, "Some User")
    assert account.updated_at == account.email_verified_at
    assert account.etag


async def test_get_account_without_a_credential_is_refused(client: Client) -> None:
    assert (await refusal(client.accounts.GetAccount(GetAccountRequest()))).reason == "CREDENTIAL_MISSING"


@pytest.mark.parametrize("paths", [[], ["display_name"]])
async def test_update_changes_the_display_name_and_the_etag(client: Client, me: Person, paths: list[str]) -> None:
    before = await get(client, me)
    after = await update(client, me, Account(display_name="Ünï 𝕏"), *paths)
    assert after == await get(client, me)
    assert after.display_name == "Ünï 𝕏"
    assert after.etag != before.etag
    assert after.updated_at.ToNanoseconds() > before.updated_at.ToNanoseconds()
    assert (after.id, after.email, after.created_at) == (before.id, before.email, before.created_at)


async def test_image_url_is_set_and_cleared(client: Client, me: Person) -> None:
    url = "https://images.example.com:8443/ada.png?size=64#%C3%BC"
    assert (await update(client, me, Account(image_url=url))).image_url == url
    assert (await update(client, me, Account(display_name="Ada"))).image_url == url
    cleared = await update(client, me, Account(), "image_url")
    assert not cleared.HasField("image_url")
    assert cleared == await get(client, me)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://example.com/a.png",
        "HTTPS://example.com/a.png",
        "//example.com/a.png",
        "https://",
        "https:///a.png",
        "https://user:secret@example.com/a.png",
        "https://example.com\\@evil.example/",
        "https://example.com/a b.png",
        "https://example.com/\n",
        "https://example.com/ü.png",
        "https://example.com/%zz",
        "javascript:alert(1)//https://example.com",
        "data:image/png;base64,AAAA",
        "https://example.com/" + "a" * 2029,
    ],
)
async def test_image_url_that_is_no_https_url_is_refused(client: Client, me: Person, url: str) -> None:
    refused = await refused_update(client, me, Account(image_url=url))
    assert (refused.code, list(refused.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["account.image_url"])


async def test_update_changes_only_the_caller_s_account(client: Client, me: Person) -> None:
    other = await client.new_user()
    await update(client, me, Account(display_name="Me"))
    assert (await get(client, other)).display_name == "Some User"


async def test_update_with_the_current_etag_succeeds_once(client: Client, me: Person) -> None:
    etag = (await get(client, me)).etag
    after = await update(client, me, Account(display_name="First", etag=etag))
    refused = await refused_update(client, me, Account(display_name="Second", etag=etag))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert await get(client, me) == after


@pytest.mark.parametrize(
    "path",
    [
        "email",
        "id",
        "email_verified_at",
        "created_at",
        "updated_at",
        "etag",
        "password_hash",
        "banned_at",
        "*",
        "x",
        "",
    ],
)
async def test_mask_with_any_path_but_the_display_name_is_refused(client: Client, me: Person, path: str) -> None:
    before = await get(client, me)
    account = Account(
        id=str(uuid4()), email="other@example.com", display_name="Other", email_verified_at=Timestamp(seconds=1)
    )
    for paths in ([path], ["display_name", path]):
        assert list((await refused_update(client, me, account, *paths)).violations) == ["update_mask"]
    assert await get(client, me) == before


async def test_output_only_fields_without_a_mask_are_ignored(client: Client, me: Person) -> None:
    """A client may send an account back as it received it."""
    before = await get(client, me)
    account = Account(
        id=str(uuid4()), email="other@example.com", display_name="New", email_verified_at=Timestamp(seconds=1)
    )
    after = await update(client, me, account)
    assert (after.id, after.email, after.display_name) == (before.id, before.email, "New")
    assert after.email_verified_at == before.email_verified_at


async def test_update_without_a_change_is_refused(client: Client, me: Person) -> None:
    assert list((await refused_update(client, me, Account())).violations) == ["update_mask"]


@pytest.mark.parametrize("name", ["x" * 101, "nul\0", "line\nbreak"])
async def test_invalid_name_is_a_violation_of_its_field(client: Client, me: Person, name: str) -> None:
    assert list((await refused_update(client, me, Account(display_name=name))).violations) == ["account.display_name"]


async def test_name_cannot_be_cleared(client: Client, me: Person) -> None:
    assert (await refused_update(client, me, Account(), "display_name")).reason == "INVALID_MESSAGE"
    assert (await get(client, me)).display_name == "Some User"


# --- delete -----------------------------------------------------------------------------------------------------------
async def test_deleted_account_is_signed_out_everywhere_and_cannot_sign_in(client: Client, dsn: str) -> None:
    mine, other = await signed_in(client), bearer((await sign_in(client)).session_token)
    await client.accounts.GetSession(GetSessionRequest(), metadata=other)
    await delete(client, mine)
    for headers in (mine, other):
        refused = await refusal(client.accounts.GetSession(GetSessionRequest(), metadata=headers))
        assert refused.reason == "CREDENTIAL_INVALID"
    assert (await refused_sign_in(client)).reason == "SIGN_IN_REFUSED"
    with psycopg.connect(dsn) as connection:
        query = "SELECT bool_and(revoked_at IS NOT NULL) FROM sessions"
        assert connection.execute(query).fetchone() == (True,)
        assert connection.execute("SELECT deleted_at IS NOT NULL FROM accounts").fetchone() == (True,)
        assert connection.execute("SELECT count(*) FROM account_tokens").fetchone() == (0,)


async def test_email_of_a_deleted_account_can_be_used_at_once_for_a_separate_account(client: Client) -> None:
    await sign_up(client)
    first = await sign_in(client)
    await delete(client, bearer(first.session_token))
    await sign_up(client, password=OTHER_PASSWORD)
    second = await sign_in(client, password=OTHER_PASSWORD)
    assert second.session.account_id != first.session.account_id
    assert (await refused_sign_in(client)).reason == "SIGN_IN_REFUSED"


async def test_tokens_of_a_deleted_account_do_not_affect_a_new_account_with_its_email(client: Client) -> None:
    headers = await signed_in(client)
    verify_token = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    reset_token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    await delete(client, headers)
    await sign_up(client)
    for call in (
        client.accounts.VerifyEmail(VerifyEmailRequest(token=verify_token)),
        client.accounts.ResetPassword(ResetPasswordRequest(token=reset_token, new_password=OTHER_PASSWORD)),
    ):
        assert (await refusal(call)).reason == "TOKEN_INVALID"
    await sign_in(client)


async def test_deletion_does_not_affect_other_accounts(client: Client, me: Person) -> None:
    other = await client.new_user()
    await delete(client, me.headers)
    assert (await get(client, other)).id == str(other.account_id)


async def test_deletion_requires_a_recent_sign_in(client: Client, me: Person, dsn: str) -> None:
    change(dsn, "UPDATE sessions SET authenticated_at = now() - interval '1 day'")
    assert (await refusal(delete(client, me.headers))).reason == "SIGN_IN_NOT_FRESH"
    assert (await get(client, me)).id == str(me.account_id)


async def test_update_and_deletion_are_audited_with_their_account(client: Client, me: Person, dsn: str) -> None:
    await update(client, me, Account(display_name="canary"))
    await delete(client, me.headers)
    with psycopg.connect(dsn) as connection:
        query = "SELECT method, code, account_id, target, audit_events::text FROM audit_events ORDER BY occurred_at"
        events = connection.execute(query).fetchall()
    account = (me.account_id, str(me.account_id))
    assert [(event[0].rpartition("/")[2], *event[1:4]) for event in events] == [
        ("UpdateAccount", "OK", *account),
        ("DeleteAccount", "OK", *account),
    ]
    assert "canary" not in str(events)
