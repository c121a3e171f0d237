"""ServiceAccountService: administrators create, list, rotate, disable and enable service accounts."""

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration

from accord.services.v1.services_pb2 import (
    CreateServiceAccountRequest,
    CreateServiceAccountResponse,
    DisableServiceAccountRequest,
    EnableServiceAccountRequest,
    IssueTokenRequest,
    ListServiceAccountsRequest,
    RotateSecretRequest,
    RotateSecretResponse,
    ServiceAccount,
)
from accord.services.v1.services_pb2_grpc import ServiceAccountServiceStub, TokenServiceStub
from tests.api.conftest import Client, outcome, read_refusal, refusal
from tests.api.services import AUDIENCE, make_administrator
from tests.conftest import change
from tests.factories import Person

if TYPE_CHECKING:
    from accord.services.v1.services_pb2_grpc import ServiceAccountServiceAsyncStub

WEEK = timedelta(days=7)


@pytest.fixture
def accounts(client: Client) -> "ServiceAccountServiceAsyncStub":
    return ServiceAccountServiceStub(client.channel)


@pytest.fixture
async def administrator(client: Client, dsn: str) -> Person:
    person = await client.new_user()
    make_administrator(dsn, person)
    return person


async def create(
    accounts: "ServiceAccountServiceAsyncStub", administrator: Person, name: str = "billing", **fields: Any
) -> CreateServiceAccountResponse:
    request = CreateServiceAccountRequest(**{"name": name, "audiences": [AUDIENCE]} | fields)
    return await accounts.CreateServiceAccount(request, metadata=administrator.headers)


async def rotate(
    accounts: "ServiceAccountServiceAsyncStub",
    administrator: Person,
    account: ServiceAccount,
    overlap: timedelta = timedelta(0),
) -> RotateSecretResponse:
    duration = Duration()
    duration.FromTimedelta(overlap)
    request = RotateSecretRequest(service_account_id=account.id, etag=account.etag, overlap=duration)
    return await accounts.RotateSecret(request, metadata=administrator.headers)


async def issue(client: Client, account: ServiceAccount, secret: str) -> str:
    """The reason for which IssueToken fails with this secret, or OK."""
    request = IssueTokenRequest(client_id=account.id, client_secret=secret, audience=AUDIENCE)
    return await outcome(TokenServiceStub(client.channel).IssueToken(request))


# --- create and list --------------------------------------------------------------------------------------------------
async def test_secret_of_a_new_account_is_returned_once_and_stored_as_a_hash(
    client: Client, accounts: "ServiceAccountServiceAsyncStub", administrator: Person, dsn: str
) -> None:
    made = await create(accounts, administrator, audiences=["accord", "payments"])
    account = made.service_account
    assert (account.name, list(account.audiences)) == ("billing", ["accord", "payments"])
    assert account.created_by == str(administrator.account_id)
    assert not account.HasField("disabled_at")
    assert not account.HasField("previous_expires_at")
    assert await issue(client, account, made.client_secret) == "OK"
    with psycopg.connect(dsn) as connection:
        texts = [
            connection.execute(f"SELECT string_agg({table}::text, ' ') FROM {table}".encode()).fetchone()
            for table in ("service_accounts", "audit_events", "rate_limits", "idempotency_keys")
        ]
    assert made.client_secret not in str(texts)
    assert "billing" in str(texts)


async def test_name_is_unique(accounts: "ServiceAccountServiceAsyncStub", administrator: Person) -> None:
    await create(accounts, administrator)
    refused = await refusal(create(accounts, administrator))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "Billing"},
        {"name": "1billing"},
        {"name": "billing.eu"},
        {"name": "b" * 64},
        {"audiences": []},
        {"audiences": [""]},
        {"audiences": ["a", "a"]},
        {"audiences": ["a" * 256]},
        {"audiences": [str(number) for number in range(21)]},
    ],
    ids=str,
)
async def test_invalid_account_is_rejected(
    accounts: "ServiceAccountServiceAsyncStub", administrator: Person, fields: dict[str, Any]
) -> None:
    assert (await refusal(create(accounts, administrator, **fields))).reason == "INVALID_MESSAGE"


async def test_accounts_are_listed_in_pages_newest_first_including_disabled_ones(
    accounts: "ServiceAccountServiceAsyncStub", administrator: Person
) -> None:
    made = [(await create(accounts, administrator, name)).service_account for name in ("a", "b", "c", "d", "e")]
    disabling = DisableServiceAccountRequest(service_account_id=made[0].id)
    await accounts.DisableServiceAccount(disabling, metadata=administrator.headers)
    names, token = [], ""
    while True:
        request = ListServiceAccountsRequest(page_size=2, page_token=token)
        page = await accounts.ListServiceAccounts(request, metadata=administrator.headers)
        names += [account.name for account in page.service_accounts]
        assert [list(account.audiences) for account in page.service_accounts] == [[AUDIENCE]] * len(
            page.service_accounts
        )
        if not (token := page.next_page_token):
            break
    assert names == ["e", "d", "c", "b", "a"]
    altered = ListServiceAccountsRequest(page_token="altered")
    listing = accounts.ListServiceAccounts(altered, metadata=administrator.headers)
    assert await outcome(listing) == "PAGE_TOKEN_INVALID"


async def test_users_who_are_not_administrators_are_denied(
    accounts: "ServiceAccountServiceAsyncStub", administrator: Person, me: Person
) -> None:
    account = (await create(accounts, administrator)).service_account
    assert (await refusal(create(accounts, me))).reason == "PERMISSION_DENIED"
    assert (await refusal(rotate(accounts, me, account))).reason == "PERMISSION_DENIED"
    for call in (
        accounts.ListServiceAccounts(ListServiceAccountsRequest(), metadata=me.headers),
        accounts.DisableServiceAccount(
            DisableServiceAccountRequest(service_account_id=account.id), metadata=me.headers
        ),
        accounts.EnableServiceAccount(EnableServiceAccountRequest(service_account_id=account.id), metadata=me.headers),
    ):
        assert (await refusal(call)).reason == "PERMISSION_DENIED"


async def test_secrets_require_a_fresh_sign_in(
    accounts: "ServiceAccountServiceAsyncStub", administrator: Person, client: Client, dsn: str
) -> None:
    account = (await create(accounts, administrator)).service_account
    stale = await client.new_user()
    make_administrator(dsn, stale)
    change(dsn, "UPDATE sessions SET authenticated_at = now() - interval '1 hour' WHERE id = %s", stale.session_id)
    assert (await refusal(create(accounts, stale, "other"))).reason == "SIGN_IN_NOT_FRESH"
    assert (await refusal(rotate(accounts, stale, account))).reason == "SIGN_IN_NOT_FRESH"


# --- rotate -----------------------------------------------------------------------------------------------------------
async def test_both_secrets_are_valid_during_the_overlap_and_only_the_new_one_after_it(
    client: Client, accounts: "ServiceAccountServiceAsyncStub", administrator: Person, dsn: str
) -> None:
    made = await create(accounts, administrator)
    new = await rotate(accounts, administrator, made.service_account, WEEK)
    left = new.service_account.previous_expires_at.seconds - new.service_account.updated_at.seconds
    assert left == WEEK.total_seconds()
    assert new.service_account.etag != made.service_account.etag
    assert await issue(client, new.service_account, made.client_secret) == "OK"
    assert await issue(client, new.service_account, new.client_secret) == "OK"
    change(dsn, "UPDATE service_accounts SET previous_expires_at = now()")
    assert await issue(client, new.service_account, made.client_secret) == "CLIENT_INVALID"
    assert await issue(client, new.service_account, new.client_secret) == "OK"


async def test_without_an_overlap_the_old_secret_is_invalid_at_once(
    client: Client, accounts: "ServiceAccountServiceAsyncStub", administrator: Person
) -> None:
    made = await create(accounts, administrator)
    new = await rotate(accounts, administrator, made.service_account)
    assert not new.service_account.HasField("previous_expires_at")
    assert await issue(client, made.service_account, made.client_secret) == "CLIENT_INVALID"
    assert await issue(client, made.service_account, new.client_secret) == "OK"


async def test_second_rotation_ends_the_overlap_of_the_first(
    client: Client, accounts: "ServiceAccountServiceAsyncStub", administrator: Person
) -> None:
    made = await create(accounts, administrator)
    second = await rotate(accounts, administrator, made.service_account, WEEK)
    third = await rotate(accounts, administrator, second.service_account, WEEK)
    secrets = (made.client_secret, second.client_secret, third.client_secret)
    outcomes = [await issue(client, made.service_account, secret) for secret in secrets]
    assert outcomes == ["CLIENT_INVALID", "OK", "OK"]


async def test_one_of_fifty_concurrent_rotations_succeeds(
    client: Client, accounts: "ServiceAccountServiceAsyncStub", administrator: Person
) -> None:
    made = await create(accounts, administrator)
    rotations = (rotate(accounts, administrator, made.service_account, WEEK) for _ in range(50))
    results = await asyncio.gather(*rotations, return_exceptions=True)
    [winner] = [result for result in results if isinstance(result, RotateSecretResponse)]
    refused = [read_refusal(result) for result in results if isinstance(result, grpc.aio.AioRpcError)]
    assert {(each.code, each.reason) for each in refused} == {(grpc.StatusCode.ABORTED, "ETAG_MISMATCH")}
    assert len(refused) == 49
    assert await issue(client, made.service_account, winner.client_secret) == "OK"
    assert await issue(client, made.service_account, made.client_secret) == "OK"


@pytest.mark.parametrize("overlap", [WEEK + timedelta(seconds=1), timedelta(seconds=-1)])
async def test_overlap_outside_its_limits_is_rejected(
    accounts: "ServiceAccountServiceAsyncStub", administrator: Person, overlap: timedelta
) -> None:
    account = (await create(accounts, administrator)).service_account
    assert (await refusal(rotate(accounts, administrator, account, overlap))).reason == "INVALID_MESSAGE"


async def test_rotation_without_an_etag_is_rejected(
    accounts: "ServiceAccountServiceAsyncStub", administrator: Person
) -> None:
    account = ServiceAccount(id=(await create(accounts, administrator)).service_account.id)
    assert (await refusal(rotate(accounts, administrator, account))).violations.keys() == {"etag"}


# --- disable ----------------------------------------------------------------------------------------------------------
async def test_disabled_account_gets_no_token_until_it_is_enabled(
    client: Client, accounts: "ServiceAccountServiceAsyncStub", administrator: Person
) -> None:
    made = await create(accounts, administrator)
    disabling = DisableServiceAccountRequest(service_account_id=made.service_account.id)
    first = (await accounts.DisableServiceAccount(disabling, metadata=administrator.headers)).service_account
    assert first.HasField("disabled_at")
    assert await issue(client, made.service_account, made.client_secret) == "CLIENT_INVALID"
    again = (await accounts.DisableServiceAccount(disabling, metadata=administrator.headers)).service_account
    assert again == first
    enabling = EnableServiceAccountRequest(service_account_id=made.service_account.id)
    enabled = (await accounts.EnableServiceAccount(enabling, metadata=administrator.headers)).service_account
    assert not enabled.HasField("disabled_at")
    assert await issue(client, made.service_account, made.client_secret) == "OK"
    assert (await accounts.EnableServiceAccount(enabling, metadata=administrator.headers)).service_account == enabled


async def test_unknown_account_is_not_found(accounts: "ServiceAccountServiceAsyncStub", administrator: Person) -> None:
    unknown = ServiceAccount(id=str(uuid4()), etag=str(uuid4()))
    for call in (
        rotate(accounts, administrator, unknown),
        accounts.DisableServiceAccount(
            DisableServiceAccountRequest(service_account_id=unknown.id), metadata=administrator.headers
        ),
        accounts.EnableServiceAccount(
            EnableServiceAccountRequest(service_account_id=unknown.id), metadata=administrator.headers
        ),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "SERVICE_ACCOUNT_NOT_FOUND")
        assert refused.metadata == {"service_account_id": unknown.id}
