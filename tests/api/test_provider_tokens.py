"""Access and refresh tokens of providers: encrypted for their row and column, and refreshed on use."""

import asyncio
from collections.abc import Callable, Iterator
from uuid import UUID

import grpc
import httpx2
import psycopg
import pytest

from accord.providers.v1.providers_pb2 import BeginProviderSignInRequest, CompleteProviderSignInRequest
from accord.providers.v1.providers_pb2_grpc import ProviderServiceStub
from accord_auth.encryption import Place, Undecipherable
from accord_auth.providers import AccessTokenUnavailable, Providers, ProviderUnreachable
from accord_db.engine.database import Database
from accord_gateway.secret_key import keyring
from accord_gateway.settings import Settings
from tests.api.conftest import SECRET_KEY, Client, refusal
from tests.api.oidc_provider import REDIRECT_URIS, OidcProvider, oidc_provider, sign_in_at_provider
from tests.conftest import change

OFFLINE = ("openid", "email", "profile", "offline_access")


@pytest.fixture(scope="module")
def short_lived() -> Iterator[OidcProvider]:
    # Lifetimes are whole seconds: a token with a lifetime of 1 second can be expired when it arrives.
    with oidc_provider(claims_in_id_token=False, access_token_seconds=3) as provider:
        yield provider


@pytest.fixture
def gateway_settings(corp: OidcProvider, short_lived: OidcProvider) -> Settings:
    chosen = {
        "corp": corp.settings("rsa", scopes=OFFLINE),
        "online": corp.settings("ec"),
        "short": short_lived.settings("pss", scopes=OFFLINE),
        "gone": corp.settings("ec").model_copy(update={"issuer": "http://127.0.0.1:9"}),
    }
    return Settings(port=0, metrics_port=0, providers=chosen, provider_redirect_uris=REDIRECT_URIS)


@pytest.fixture
def process(gateway_settings: Settings, database: Database) -> Callable[[], Providers]:
    """Creates the Providers of another process of the gateway."""
    return lambda: Providers(
        gateway_settings.provider_settings(),
        redirect_uris=frozenset(REDIRECT_URIS),
        database=database,
        keys=keyring(gateway_settings, SECRET_KEY),
        insecure_loopback=True,
    )


@pytest.fixture
def providers(process: Callable[[], Providers]) -> Providers:
    return process()


async def signed_up(client: Client, name: str, provider: str = "corp") -> UUID:
    stub = ProviderServiceStub(client.channel)
    begun = await stub.BeginProviderSignIn(BeginProviderSignInRequest(provider=provider, redirect_uri=REDIRECT_URIS[0]))
    response = await sign_in_at_provider(begun.authorization_url, name)
    request = CompleteProviderSignInRequest(
        provider_sign_in_token=begun.provider_sign_in_token,
        state=response.state,
        code=response.code,
        issuer=response.issuer,
    )
    return UUID((await stub.CompleteProviderSignIn(request)).session.account_id)


@pytest.fixture
async def ada(client: Client) -> UUID:
    """The id of the account of a new user."""
    return await signed_up(client, "ada")


def expire(dsn: str) -> None:
    change(dsn, "UPDATE linked_providers SET access_token_expires_at = now()")


def stored(dsn: str) -> dict[str, bytes]:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT id, access_token, refresh_token FROM linked_providers ORDER BY id").fetchone()
    assert row is not None
    return dict(zip(("id", "access_token", "refresh_token"), row, strict=True))


async def subject_of(corp: OidcProvider, access_token: str) -> str:
    """The subject of the access token according to the provider, or the HTTP status if it is invalid."""
    async with httpx2.AsyncClient(trust_env=False, verify=False) as http:
        response = await http.get(f"{corp.issuer}/me", headers={"Authorization": f"Bearer {access_token}"})
    return str(response.json().get("sub", response.status_code))


async def test_valid_access_token_of_the_provider_is_returned_unchanged(
    providers: Providers, ada: UUID, corp: OidcProvider
) -> None:
    token = await providers.access_token(ada, "corp")
    assert await subject_of(corp, token) == "ada"
    assert await providers.access_token(ada, "corp") == token


async def test_tokens_are_stored_encrypted(providers: Providers, ada: UUID, dsn: str) -> None:
    token = await providers.access_token(ada, "corp")
    row = stored(dsn)
    assert token.encode() not in row["access_token"]
    assert row["refresh_token"] is not None


async def test_expired_access_token_is_refreshed_on_use_and_its_refresh_token_is_replaced(
    providers: Providers, ada: UUID, corp: OidcProvider, dsn: str
) -> None:
    first, before = await providers.access_token(ada, "corp"), stored(dsn)
    for _ in range(3):  # each refresh token can be used once
        expire(dsn)
        second, after = await providers.access_token(ada, "corp"), stored(dsn)
        assert second != first
        assert after["refresh_token"] != before["refresh_token"]
        assert await subject_of(corp, second) == "ada"
        assert await providers.access_token(ada, "corp") == second
        first, before = second, after


async def test_one_of_twenty_concurrent_uses_in_two_processes_refreshes_an_expired_access_token(
    process: Callable[[], Providers], ada: UUID, corp: OidcProvider, dsn: str
) -> None:
    """oidc-provider revokes all tokens if a refresh token is used twice."""
    here, there = process(), process()
    expire(dsn)
    tokens = await asyncio.gather(*(each.access_token(ada, "corp") for each in (here, there) for _ in range(10)))
    assert len(set(tokens)) == 1
    assert await subject_of(corp, tokens[0]) == "ada"
    expire(dsn)
    assert await subject_of(corp, await here.access_token(ada, "corp")) == "ada"


async def test_refresh_continues_when_its_caller_is_cancelled(
    providers: Providers, ada: UUID, corp: OidcProvider, dsn: str
) -> None:
    before = stored(dsn)
    expire(dsn)
    caller = asyncio.create_task(providers.access_token(ada, "corp"))
    await asyncio.sleep(0)
    caller.cancel()
    async with asyncio.timeout(10):
        while stored(dsn)["refresh_token"] == before["refresh_token"]:
            await asyncio.sleep(0.01)
    assert await subject_of(corp, await providers.access_token(ada, "corp")) == "ada"


async def test_expired_access_token_that_is_encrypted_again_during_a_refresh_is_not_returned(
    providers: Providers, ada: UUID, dsn: str, gateway_settings: Settings
) -> None:
    """`accord rotate-keys` changes the ciphertext but not the token."""
    keys, token = keyring(gateway_settings, SECRET_KEY), await providers.access_token(ada, "corp")
    place = Place("linked_providers", "access_token", UUID(str(stored(dsn)["id"])), ada)
    expire(dsn)
    change(dsn, "UPDATE linked_providers SET refreshing_until = now() + interval '1 minute'")  # by another process
    waiting = asyncio.ensure_future(providers.access_token(ada, "corp"))
    await asyncio.sleep(0.5)
    change(dsn, "UPDATE linked_providers SET access_token = %s", keys.encrypt(token.encode(), place))
    await asyncio.sleep(0.5)
    change(
        dsn,
        "UPDATE linked_providers SET access_token = %s, access_token_expires_at = now() + interval '1 hour'",
        keys.encrypt(b"new", place),
    )
    assert await waiting == "new"


async def test_access_token_is_refreshed_if_the_process_that_was_refreshing_it_ended(
    providers: Providers, ada: UUID, dsn: str
) -> None:
    expire(dsn)
    change(dsn, "UPDATE linked_providers SET refreshing_until = now() + interval '0.2 s'")
    assert await asyncio.wait_for(providers.access_token(ada, "corp"), 10)


async def test_expired_access_token_without_a_refresh_token_is_unavailable(
    client: Client, providers: Providers, dsn: str
) -> None:
    account_id = await signed_up(client, "grace", "online")
    assert await providers.access_token(account_id, "online")
    expire(dsn)
    with pytest.raises(AccessTokenUnavailable):
        await providers.access_token(account_id, "online")


async def test_revoked_refresh_token_is_deleted(
    providers: Providers, ada: UUID, gateway_settings: Settings, corp: OidcProvider, dsn: str
) -> None:
    row = stored(dsn)
    place = Place("linked_providers", "refresh_token", UUID(str(row["id"])), ada)
    token = keyring(gateway_settings, SECRET_KEY).decrypt(row["refresh_token"], place).decode()
    async with httpx2.AsyncClient(trust_env=False, verify=False) as http:
        form = {"token": token, "client_id": "rsa", "client_secret": "secret of rsa: +/%&="}
        assert (await http.post(f"{corp.issuer}/token/revocation", data=form)).status_code == 200
    expire(dsn)
    for _ in range(2):
        with pytest.raises(AccessTokenUnavailable):
            await providers.access_token(ada, "corp")
    assert stored(dsn)["refresh_token"] is None


async def test_next_sign_in_stores_new_tokens(client: Client, providers: Providers, ada: UUID, dsn: str) -> None:
    change(dsn, "UPDATE linked_providers SET refresh_token = NULL, access_token_expires_at = now()")
    with pytest.raises(AccessTokenUnavailable):
        await providers.access_token(ada, "corp")
    await signed_up(client, "ada")
    assert await providers.access_token(ada, "corp")


async def test_tokens_of_another_account_or_provider_are_unavailable(providers: Providers, ada: UUID) -> None:
    with pytest.raises(AccessTokenUnavailable):
        await providers.access_token(UUID(int=1), "corp")
    with pytest.raises(AccessTokenUnavailable):
        await providers.access_token(ada, "online")
    with pytest.raises(AccessTokenUnavailable):
        await providers.access_token(ada, "unknown")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE linked_providers SET access_token = refresh_token",
        "UPDATE linked_providers a SET access_token = b.access_token FROM linked_providers b WHERE a.id <> b.id",
        "UPDATE linked_providers a SET account_id = b.account_id FROM linked_providers b WHERE a.id <> b.id",
        "UPDATE linked_providers SET access_token = set_byte(access_token, 40, 255 - get_byte(access_token, 40))",
        "UPDATE linked_providers SET access_token = substr(access_token, 1, 20)",
    ],
    ids=["to another column", "to another row", "to another account", "changed", "truncated"],
)
async def test_moved_or_changed_ciphertext_does_not_decrypt(
    client: Client, providers: Providers, ada: UUID, dsn: str, statement: str
) -> None:
    grace = await signed_up(client, "grace")
    change(dsn, statement)
    for account_id in (ada, grace):
        with pytest.raises(Undecipherable):
            await providers.access_token(account_id, "corp")


async def test_access_token_that_expires_at_the_provider_is_refreshed(
    client: Client, providers: Providers, short_lived: OidcProvider
) -> None:
    """At a provider whose ID tokens lack the address, which is then fetched from the userinfo endpoint."""
    account_id = await signed_up(client, "ada", "short")
    first = await providers.access_token(account_id, "short")
    async with asyncio.timeout(10):
        while await subject_of(short_lived, first) == "ada":
            await asyncio.sleep(0.05)
    second = await providers.access_token(account_id, "short")
    assert await subject_of(short_lived, second) == "ada"


async def test_unreachable_provider_leaves_the_tokens_unchanged(
    client: Client, providers: Providers, ada: UUID, dsn: str
) -> None:
    expire(dsn)
    change(dsn, "UPDATE linked_providers SET provider = 'gone'")
    for _ in range(2):
        with pytest.raises(ProviderUnreachable):
            await providers.access_token(ada, "gone")
    change(dsn, "UPDATE linked_providers SET provider = 'corp'")
    assert await providers.access_token(ada, "corp")
    request = BeginProviderSignInRequest(provider="gone", redirect_uri=REDIRECT_URIS[0])
    refused = await refusal(ProviderServiceStub(client.channel).BeginProviderSignIn(request))
    assert (refused.code, refused.reason, refused.retry_after) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", 5.0)
