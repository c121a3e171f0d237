"""What a provider's claims and tokens set: the picture of a new account, the provider of sessions, and the stored tokens."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st
from protovalidate import Validator

from accord.accounts.v1.accounts_pb2 import Account, CompleteSignInRequest, GetAccountRequest, UpdateAccountRequest
from accord.providers.v1.providers_pb2 import (
    BeginProviderSignInRequest,
    CompleteProviderSignInRequest,
    CompleteProviderSignInResponse,
    LinkedProvider,
    ListLinkedProvidersRequest,
    RefreshFailure,
)
from accord.providers.v1.providers_pb2_grpc import ProviderServiceStub
from accord_auth.providers import AccessTokenUnavailable, Providers, ProviderUnreachable
from accord_auth.providers.provider_identity import Identity
from accord_db.engine.database import Database
from accord_gateway.secret_key import keyring
from accord_gateway.settings import Settings
from tests.api.conftest import SECRET_KEY, Client
from tests.api.hostile_provider import REDIRECT_URI, HttpResponse, Provider
from tests.api.signing_in import add_second_factor
from tests.conftest import change
from tests.factories import Headers, bearer

PICTURE = "https://corp.example/pictures/ada.png"


@pytest.fixture
def gateway_settings(provider: Provider) -> Settings:
    providers = {"corp": provider.settings()}
    return Settings(port=0, metrics_port=0, providers=providers, provider_redirect_uris=(REDIRECT_URI,))


@pytest.fixture
def providers(gateway_settings: Settings, database: Database) -> Providers:
    return Providers(
        gateway_settings.provider_settings(),
        redirect_uris=frozenset({REDIRECT_URI}),
        database=database,
        keys=keyring(gateway_settings, SECRET_KEY),
        insecure_loopback=True,
    )


async def sign_in(client: Client, provider: Provider) -> CompleteProviderSignInResponse:
    stub = ProviderServiceStub(client.channel)
    begun = await stub.BeginProviderSignIn(BeginProviderSignInRequest(provider="corp", redirect_uri=REDIRECT_URI))
    back = provider.sign_in(begun.authorization_url)
    request = CompleteProviderSignInRequest(provider_sign_in_token=begun.provider_sign_in_token, **back)
    return await stub.CompleteProviderSignIn(request)


def claims(provider: Provider, **changes: object) -> None:
    provider.claims = lambda honest: {**honest, **changes}


def tokens(provider: Provider, **changes: object) -> None:
    provider.token_response = lambda honest: HttpResponse({**honest, **changes})


def refreshed(provider: Provider, **changes: object) -> None:
    provider.refresh_response = lambda honest: HttpResponse({**honest, **changes})


async def account(client: Client, headers: Headers) -> Account:
    return (await client.accounts.GetAccount(GetAccountRequest(), metadata=headers)).account


async def linked(client: Client, headers: Headers) -> LinkedProvider:
    stub = ProviderServiceStub(client.channel)
    [found] = (await stub.ListLinkedProviders(ListLinkedProvidersRequest(), metadata=headers)).linked_providers
    return found


# --- the picture ------------------------------------------------------------------------------------------------------
async def test_first_sign_in_takes_the_picture_and_later_ones_leave_it(client: Client, provider: Provider) -> None:
    claims(provider, picture=PICTURE)
    headers = bearer((await sign_in(client, provider)).session_token)
    assert (await account(client, headers)).image_url == PICTURE
    claims(provider, picture="https://corp.example/another.png")
    await sign_in(client, provider)
    assert (await account(client, headers)).image_url == PICTURE
    request = UpdateAccountRequest(account=Account(), update_mask=FieldMask(paths=["image_url"]))
    await client.accounts.UpdateAccount(request, metadata=headers)
    await sign_in(client, provider)
    assert not (await account(client, headers)).HasField("image_url")


@pytest.mark.parametrize(
    "picture", [None, 1, "", {"url": PICTURE}, "http://corp.example/ada.png", "javascript:alert(1)", f"{PICTURE}?\n"]
)
async def test_sign_in_with_another_picture_creates_an_account_without(
    client: Client, provider: Provider, picture: object
) -> None:
    claims(provider, picture=picture)
    completed = await sign_in(client, provider)
    assert completed.account_created
    assert not (await account(client, bearer(completed.session_token))).HasField("image_url")


_characters = st.text("".join(map(chr, range(0x20, 0x7F))) + "ü\n", max_size=20)


@given(st.one_of(_characters.map("https://example.com".__add__), _characters.map("https://".__add__), st.text()))
def test_picture_of_a_provider_is_one_that_the_contract_accepts(url: str) -> None:
    taken = Identity.from_claims({"picture": url}, issuer="i", subject="s").image_url
    assert taken in (None, url)
    if taken is not None:
        assert _validator.collect_violations(Account(image_url=taken)) == []


_validator = Validator()


# --- the provider of sessions -----------------------------------------------------------------------------------------
async def test_session_names_its_provider(client: Client, provider: Provider) -> None:
    completed = await sign_in(client, provider)
    assert completed.session.provider == "corp"


async def test_session_names_its_provider_after_a_second_step(client: Client, provider: Provider) -> None:
    app, _ = await add_second_factor(client, bearer((await sign_in(client, provider)).session_token))
    waiting = await sign_in(client, provider)
    request = CompleteSignInRequest(second_step_token=waiting.second_step_token, code=app.code(1))
    assert (await client.accounts.CompleteSignIn(request)).session.provider == "corp"


# --- the tokens -------------------------------------------------------------------------------------------------------
async def test_linked_provider_shows_the_granted_scopes(client: Client, provider: Provider) -> None:
    headers = bearer((await sign_in(client, provider)).session_token)
    assert list((await linked(client, headers)).scopes) == ["openid", "email", "profile"]  # those that were requested
    tokens(provider, scope="email  calendar.read email")
    await sign_in(client, provider)
    assert list((await linked(client, headers)).scopes) == ["email", "calendar.read"]


@pytest.mark.parametrize("scope", ["", "a" * 256, 7, "ü", 'quo"te'])
async def test_scopes_that_cannot_be_shown_are_left_out(client: Client, provider: Provider, scope: object) -> None:
    tokens(provider, scope=scope)
    completed = await sign_in(client, provider)
    shown = list((await linked(client, bearer(completed.session_token))).scopes)
    assert shown == (["openid", "email", "profile"] if scope == 7 else [])


@pytest.mark.parametrize("name", ["refresh_expires_in", "refresh_token_expires_in"])
async def test_linked_provider_shows_when_the_refresh_token_expires(
    client: Client, provider: Provider, name: str
) -> None:
    tokens(provider, refresh_token="refresh", **{name: 3600})
    headers = bearer((await sign_in(client, provider)).session_token)
    found = await linked(client, headers)
    assert found.refresh_token_expires_at.seconds - found.last_used_at.seconds in (3600, 3601)
    tokens(provider, refresh_token="another")  # whose lifetime is unknown
    await sign_in(client, provider)
    assert not (await linked(client, headers)).HasField("refresh_token_expires_at")


async def signed_in_with_refresh_token(
    client: Client, provider: Provider, dsn: str, **response: object
) -> tuple[UUID, Headers]:
    """The access token has expired."""
    tokens(provider, **{"refresh_token": "refresh"} | response)
    completed = await sign_in(client, provider)
    change(dsn, "UPDATE linked_providers SET access_token_expires_at = now()")
    return UUID(completed.session.account_id), bearer(completed.session_token)


async def test_refresh_keeps_scopes_and_expiry_that_the_response_lacks(
    client: Client, provider: Provider, providers: Providers, dsn: str
) -> None:
    me, headers = await signed_in_with_refresh_token(client, provider, dsn, scope="email", refresh_expires_in=3600)
    before = await linked(client, headers)
    assert await providers.access_token(me, "corp") == "a newer one"
    after = await linked(client, headers)
    assert (after.scopes, after.refresh_token_expires_at) == (before.scopes, before.refresh_token_expires_at)


async def test_refresh_stores_new_scopes_and_the_expiry_of_a_new_refresh_token(
    client: Client, provider: Provider, providers: Providers, dsn: str
) -> None:
    me, headers = await signed_in_with_refresh_token(client, provider, dsn, scope="email a", refresh_expires_in=3600)
    before = await linked(client, headers)
    refreshed(provider, refresh_token="second", scope="email", refresh_expires_in=7200)
    await providers.access_token(me, "corp")
    after = await linked(client, headers)
    assert list(after.scopes) == ["email"]
    assert after.refresh_token_expires_at.seconds - before.refresh_token_expires_at.seconds >= 3600
    refreshed(provider, refresh_token="third")
    change(dsn, "UPDATE linked_providers SET access_token_expires_at = now()")
    await providers.access_token(me, "corp")
    assert not (await linked(client, headers)).HasField("refresh_token_expires_at")


async def test_access_token_that_is_about_to_expire_is_refreshed_before_use(
    client: Client, provider: Provider, providers: Providers, dsn: str
) -> None:
    me, _ = await signed_in_with_refresh_token(client, provider, dsn)
    change(dsn, "UPDATE linked_providers SET access_token_expires_at = now() + interval '40 s'")
    assert await providers.access_token(me, "corp") == "an access token of the provider"
    change(dsn, "UPDATE linked_providers SET access_token_expires_at = now() + interval '20 s'")
    assert await providers.access_token(me, "corp") == "a newer one"


Fail = Callable[[Provider, str], None]


def without_refresh_token(_: Provider, dsn: str) -> None:
    change(dsn, "UPDATE linked_providers SET refresh_token = NULL")


def expired(_: Provider, dsn: str) -> None:
    change(dsn, "UPDATE linked_providers SET refresh_token_expires_at = now()")


def refused(provider: Provider, _: str) -> None:
    provider.refresh_response = lambda _: HttpResponse({"error": "invalid_grant"}, 400)


def invalid(provider: Provider, _: str) -> None:
    refreshed(provider, token_type="mac")


@pytest.mark.parametrize(
    ("fail", "reason", "requests", "keeps"),
    [
        (without_refresh_token, "no_refresh_token", 0, False),
        (expired, "expired", 0, False),
        (refused, "refused", 1, False),
        (invalid, "invalid_response", 2, True),
    ],
)
async def test_failed_refresh_leaves_its_reason(
    client: Client,
    provider: Provider,
    providers: Providers,
    dsn: str,
    fail: Fail,
    reason: str,
    requests: int,
    keeps: bool,
) -> None:
    me, headers = await signed_in_with_refresh_token(client, provider, dsn)
    fail(provider, dsn)
    sent = provider.requests.count("/token")
    for _ in range(2):
        with pytest.raises(AccessTokenUnavailable) as raised:
            await providers.access_token(me, "corp")
        assert raised.value.reason == reason
    assert provider.requests.count("/token") - sent == requests
    shown = (await linked(client, headers)).refresh_failure
    assert RefreshFailure.Name(shown) == f"REFRESH_FAILURE_{reason.upper()}"
    assert has_refresh_token(dsn) == keeps
    provider.refresh_response = HttpResponse
    await signed_in_with_refresh_token(client, provider, dsn)  # the user signs in again
    assert not (await linked(client, headers)).HasField("refresh_failure")
    assert await providers.access_token(me, "corp") == "a newer one"


async def test_of_ten_concurrent_uses_one_asks_the_provider_which_refuses(
    client: Client, provider: Provider, providers: Providers, dsn: str
) -> None:
    me, _ = await signed_in_with_refresh_token(client, provider, dsn)
    refused(provider, dsn)
    sent = provider.requests.count("/token")
    uses = [providers.access_token(me, "corp") for _ in range(10)]
    results = await asyncio.gather(*uses, return_exceptions=True)
    assert {getattr(result, "reason", None) for result in results} == {"refused"}
    assert provider.requests.count("/token") - sent == 1


async def test_unavailable_provider_leaves_no_failure(
    client: Client, provider: Provider, providers: Providers, dsn: str
) -> None:
    me, headers = await signed_in_with_refresh_token(client, provider, dsn)
    provider.refresh_response = lambda _: HttpResponse({}, 503)
    with pytest.raises(ProviderUnreachable):
        await providers.access_token(me, "corp")
    assert not (await linked(client, headers)).HasField("refresh_failure")
    assert has_refresh_token(dsn)


def has_refresh_token(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT refresh_token IS NOT NULL FROM linked_providers").fetchone()
    return row == (True,)
