"""Sign-in with a provider, and linking of identities, against npm's oidc-provider."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest

from accord.accounts.v1.accounts_pb2 import CompleteSignInRequest, DeleteAccountRequest, GetSessionRequest
from accord.providers.v1.providers_pb2 import (
    BeginLinkProviderRequest,
    BeginProviderSignInRequest,
    BeginProviderSignInResponse,
    CompleteProviderSignInRequest,
    CompleteProviderSignInResponse,
    LinkedProvider,
    LinkProviderRequest,
    LinkProviderResponse,
    ListLinkedProvidersRequest,
    ListProvidersRequest,
    UnlinkProviderRequest,
    UnlinkProviderResponse,
)
from accord.providers.v1.providers_pb2_grpc import ProviderServiceStub
from accord_api.outbox import Mail
from accord_auth.second_factors import SecondFactors
from accord_db.queries import second_factors
from accord_gateway.secret_key import keyring
from accord_gateway.settings import Settings
from tests.api.conftest import SECRET_KEY, Client, outcome, refusal
from tests.api.mailbox import mailed
from tests.api.oidc_provider import REDIRECT_URIS, AuthorizationResponse, OidcProvider, sign_in_at_provider
from tests.api.signing_in import ban, signed_in
from tests.authenticator import Authenticator
from tests.conftest import change, count
from tests.factories import Headers, Person, bearer

if TYPE_CHECKING:
    from accord.providers.v1.providers_pb2_grpc import ProviderServiceAsyncStub

EMAIL = "ada@example.com"


@pytest.fixture
def link_by_email() -> bool:
    return False


@pytest.fixture
def gateway_settings(corp: OidcProvider, link_by_email: bool) -> Settings:
    return Settings(
        port=0,
        metrics_port=0,
        providers={name: corp.settings(name) for name in ("rsa", "pss", "ec", "ed")},
        provider_redirect_uris=REDIRECT_URIS,
        link_providers_by_email=link_by_email,
    )


@dataclass(frozen=True)
class App:
    """An application that signs users in with providers. It keeps the sign-in token and forwards the authorization response."""

    stub: "ProviderServiceAsyncStub"

    async def begin(self, provider: str = "rsa", redirect_uri: str = REDIRECT_URIS[0]) -> BeginProviderSignInResponse:
        return await self.stub.BeginProviderSignIn(
            BeginProviderSignInRequest(provider=provider, redirect_uri=redirect_uri)
        )

    def complete(self, token: str, response: AuthorizationResponse) -> Awaitable[CompleteProviderSignInResponse]:
        return self.stub.CompleteProviderSignIn(
            CompleteProviderSignInRequest(
                provider_sign_in_token=token, state=response.state, code=response.code, issuer=response.issuer
            )
        )

    async def sign_in(self, name: str, provider: str = "rsa") -> CompleteProviderSignInResponse:
        begun = await self.begin(provider)
        return await self.complete(
            begun.provider_sign_in_token, await sign_in_at_provider(begun.authorization_url, name)
        )

    async def begin_link(self, headers: Headers, provider: str = "rsa") -> BeginProviderSignInResponse:
        begun = await self.stub.BeginLinkProvider(
            BeginLinkProviderRequest(provider=provider, redirect_uri=REDIRECT_URIS[1]), metadata=headers
        )
        return BeginProviderSignInResponse(
            authorization_url=begun.authorization_url, provider_sign_in_token=begun.provider_sign_in_token
        )

    def complete_link(
        self, headers: Headers, token: str, response: AuthorizationResponse
    ) -> Awaitable[LinkProviderResponse]:
        request = LinkProviderRequest(
            provider_sign_in_token=token, state=response.state, code=response.code, issuer=response.issuer
        )
        return self.stub.LinkProvider(request, metadata=headers)

    async def link(self, headers: Headers, name: str, provider: str = "rsa") -> LinkedProvider:
        begun = await self.begin_link(headers, provider)
        response = await sign_in_at_provider(begun.authorization_url, name)
        return (await self.complete_link(headers, begun.provider_sign_in_token, response)).linked_provider

    async def linked(self, headers: Headers) -> list[LinkedProvider]:
        response = await self.stub.ListLinkedProviders(ListLinkedProvidersRequest(), metadata=headers)
        return list(response.linked_providers)

    def unlink(self, headers: Headers, linked: LinkedProvider) -> Awaitable[UnlinkProviderResponse]:
        return self.stub.UnlinkProvider(UnlinkProviderRequest(linked_provider_id=linked.id), metadata=headers)


@pytest.fixture
def app(client: Client) -> App:
    return App(ProviderServiceStub(client.channel))


async def reason(call: Awaitable[object]) -> str:
    return (await refusal(call)).reason


# --- sign-up and sign-in ----------------------------------------------------------------------------------------------
async def test_providers_are_listed_in_their_order(app: App) -> None:
    listed = (await app.stub.ListProviders(ListProvidersRequest())).providers
    assert [(provider.name, provider.display_name) for provider in listed] == [
        (name, "Corp") for name in ("rsa", "pss", "ec", "ed")
    ]


async def test_first_sign_in_creates_an_account_with_a_verified_address(client: Client, app: App) -> None:
    completed = await app.sign_in("ada")
    assert completed.account_created
    assert not completed.second_step_token
    current = await client.accounts.GetSession(GetSessionRequest(), metadata=bearer(completed.session_token))
    assert (current.account.email, current.account.display_name) == (EMAIL, "ada of the provider")
    assert current.account.HasField("email_verified_at")
    assert current.session.id == completed.session.id


@pytest.mark.parametrize("provider", ["rsa", "pss", "ec", "ed"])
async def test_second_sign_in_finds_the_same_account_with_every_signature_algorithm(app: App, provider: str) -> None:
    first, second = await app.sign_in("ada", provider), await app.sign_in("ada", provider)
    assert not second.account_created
    assert second.session.account_id == first.session.account_id
    assert second.session_token != first.session_token


async def test_two_clients_of_one_issuer_share_identities(app: App) -> None:
    first, second = await app.sign_in("ada", "rsa"), await app.sign_in("ada", "ec")
    assert second.session.account_id == first.session.account_id
    assert [linked.provider for linked in await app.linked(bearer(second.session_token))] == ["ec"]


async def test_identity_keeps_its_account_when_the_address_changes(client: Client, app: App, dsn: str) -> None:
    first = await app.sign_in("ada")
    change(dsn, "UPDATE accounts SET email = 'lovelace@example.com' WHERE email = %s", EMAIL)
    assert (await app.sign_in("ada")).session.account_id == first.session.account_id


async def test_another_identity_gets_another_account(app: App) -> None:
    first, second = await app.sign_in("ada"), await app.sign_in("grace")
    assert second.account_created
    assert second.session.account_id != first.session.account_id


async def test_address_that_the_provider_has_not_verified_creates_no_account(app: App, dsn: str) -> None:
    refused = await refusal(app.sign_in("unverified-ada"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_EMAIL_NOT_VERIFIED")
    assert count(dsn, "accounts") == 0


async def test_address_of_an_account_does_not_sign_in_to_it(client: Client, app: App, dsn: str) -> None:
    await signed_in(client, EMAIL)
    change(dsn, "UPDATE accounts SET email_verified_at = now() WHERE email = %s", EMAIL)
    refused = await refusal(app.sign_in("ada"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "PROVIDER_EMAIL_IN_USE")
    assert count(dsn, "linked_providers") == 0


@pytest.mark.parametrize("link_by_email", [True])
async def test_address_that_is_verified_on_both_sides_signs_in_with_the_setting(
    client: Client, app: App, dsn: str
) -> None:
    headers = await signed_in(client, EMAIL)
    change(dsn, "UPDATE accounts SET email_verified_at = now() WHERE email = %s", EMAIL)
    completed = await app.sign_in("ada")
    assert not completed.account_created
    current = await client.accounts.GetSession(GetSessionRequest(), metadata=headers)
    assert completed.session.account_id == current.account.id
    assert [email.template for email in await mailed(client.database, EMAIL)][-1] == Mail.PROVIDER_LINKED


@pytest.mark.parametrize("link_by_email", [True])
async def test_address_that_is_not_verified_at_accord_does_not_sign_in_with_the_setting(
    client: Client, app: App, dsn: str
) -> None:
    """Otherwise an attacker who signs up with the address of a user would share the account with that user."""
    await signed_in(client, EMAIL)
    assert await reason(app.sign_in("ada")) == "PROVIDER_EMAIL_IN_USE"
    assert count(dsn, "linked_providers") == 0


@pytest.mark.parametrize("link_by_email", [True])
async def test_address_that_the_provider_has_not_verified_does_not_sign_in_with_the_setting(
    client: Client, app: App, dsn: str
) -> None:
    await signed_in(client, "unverified-ada@example.com")
    change(dsn, "UPDATE accounts SET email_verified_at = now() WHERE email LIKE %s", "unverified%")
    assert await reason(app.sign_in("unverified-ada")) == "PROVIDER_EMAIL_NOT_VERIFIED"


@pytest.mark.parametrize("link_by_email", [False, True])
async def test_banned_account_cannot_sign_in_with_a_provider(app: App, dsn: str, link_by_email: bool) -> None:
    await app.sign_in("ada")
    ban(dsn, EMAIL)
    refused = await refusal(app.sign_in("ada"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGN_IN_REFUSED")


async def test_identity_of_a_deleted_account_can_sign_up_again(client: Client, app: App, dsn: str) -> None:
    first = await app.sign_in("ada")
    await client.accounts.DeleteAccount(DeleteAccountRequest(), metadata=bearer(first.session_token))
    assert count(dsn, "linked_providers") == 0
    second = await app.sign_in("ada")
    assert second.account_created
    assert second.session.account_id != first.session.account_id


async def test_account_with_a_second_factor_requires_the_second_step(client: Client, app: App, dsn: str) -> None:
    account_id = UUID((await app.sign_in("ada")).session.account_id)
    factors = SecondFactors(keyring(Settings(port=0, metrics_port=0), SECRET_KEY))
    async with client.database.transaction() as tx:
        factor_id, secret = await factors.create(tx, account_id)
        await second_factors.confirm_second_factor(tx, second_factor_id=factor_id, step=0)
    sessions = count(dsn, "sessions")
    waiting = await app.sign_in("ada")
    assert not waiting.session_token
    assert not waiting.HasField("session")
    assert count(dsn, "sessions") == sessions
    code = (await Authenticator.enrolled(client.database, secret)).code()
    completed = await client.accounts.CompleteSignIn(
        CompleteSignInRequest(second_step_token=waiting.second_step_token, code=code)
    )
    assert UUID(completed.session.account_id) == account_id


async def test_concurrent_first_sign_ins_of_one_identity_create_one_account(app: App, dsn: str) -> None:
    begun = [await app.begin() for _ in range(5)]
    responses = [await sign_in_at_provider(each.authorization_url, "ada") for each in begun]
    calls = zip((each.provider_sign_in_token for each in begun), responses, strict=True)
    completed = await asyncio.gather(*(app.complete(token, response) for token, response in calls))
    assert sorted(each.account_created for each in completed) == [False] * 4 + [True]
    assert len({each.session.account_id for each in completed}) == 1
    assert (count(dsn, "accounts"), count(dsn, "linked_providers")) == (1, 1)


# --- state, code and redirect URI -------------------------------------------------------------------------------------
async def test_authorization_url_has_all_required_parameters(app: App, corp: OidcProvider) -> None:
    begun, other = await app.begin(), await app.begin()
    url = urlsplit(begun.authorization_url)
    parameters = {name: values[0] for name, values in parse_qs(url.query, strict_parsing=True).items()}
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{corp.issuer}/auth"
    secrets = {parameters.pop(name) for name in ("state", "nonce", "code_challenge")}
    assert {len(secret) for secret in secrets} == {43}
    assert len(secrets) == 3
    assert not any(secret in other.authorization_url or secret in begun.provider_sign_in_token for secret in secrets)
    assert parameters == {
        "response_type": "code",
        "client_id": "rsa",
        "redirect_uri": REDIRECT_URIS[0],
        "scope": "openid email profile",
        "code_challenge_method": "S256",
    }


async def test_only_the_hash_of_the_token_of_a_pending_sign_in_is_stored(app: App, dsn: str) -> None:
    begun = await app.begin()
    with psycopg.connect(dsn) as connection:
        stored = repr(connection.execute("SELECT * FROM provider_sign_ins").fetchall())
    secrets = parse_qs(urlsplit(begun.authorization_url).query)
    for secret in (begun.provider_sign_in_token, *(secrets[name][0] for name in ("state", "nonce", "code_challenge"))):
        assert secret not in stored


async def test_unknown_provider_is_not_found(app: App) -> None:
    refused = await refusal(app.begin("google"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "PROVIDER_NOT_FOUND")


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:3000/signed-in/", "http://127.0.0.1:3000/Signed-in", "http://evil.example.com/", "x"]
)
async def test_redirect_uri_that_is_not_configured_is_invalid(app: App, me: Person, uri: str) -> None:
    refused = await refusal(app.begin(redirect_uri=uri))
    assert (refused.reason, list(refused.violations)) == ("INVALID_MESSAGE", ["redirect_uri"])
    request = BeginLinkProviderRequest(provider="rsa", redirect_uri=uri)
    assert await reason(app.stub.BeginLinkProvider(request, metadata=me.headers)) == "INVALID_MESSAGE"


async def test_one_of_fifty_concurrent_completions_of_a_sign_in_succeeds(app: App, dsn: str) -> None:
    begun = await app.begin()
    response = await sign_in_at_provider(begun.authorization_url, "ada")
    calls = [app.complete(begun.provider_sign_in_token, response) for _ in range(50)]
    outcomes = await asyncio.gather(*(outcome(call) for call in calls))
    assert sorted(outcomes) == ["OK"] + ["PROVIDER_SIGN_IN_FAILED"] * 49
    assert (count(dsn, "accounts"), count(dsn, "sessions")) == (1, 1)


async def test_authorization_response_can_be_used_once(app: App) -> None:
    begun = await app.begin()
    response = await sign_in_at_provider(begun.authorization_url, "ada")
    await app.complete(begun.provider_sign_in_token, response)
    refused = await refusal(app.complete(begun.provider_sign_in_token, response))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "PROVIDER_SIGN_IN_FAILED")


async def test_failed_completion_uses_up_the_sign_in(app: App) -> None:
    begun = await app.begin()
    response = await sign_in_at_provider(begun.authorization_url, "ada")
    wrong = replace(response, code="another")
    assert await reason(app.complete(begun.provider_sign_in_token, wrong)) == "PROVIDER_SIGN_IN_FAILED"
    assert await reason(app.complete(begun.provider_sign_in_token, response)) == "PROVIDER_SIGN_IN_FAILED"


async def test_completion_with_a_wrong_state_does_not_use_up_the_sign_in(app: App) -> None:
    begun = await app.begin()
    response = await sign_in_at_provider(begun.authorization_url, "ada")
    for state in ("x", response.state[:-1], response.state.swapcase(), "ü" * 43):
        wrong = replace(response, state=state)
        assert await reason(app.complete(begun.provider_sign_in_token, wrong)) == "PROVIDER_SIGN_IN_FAILED"
    await app.complete(begun.provider_sign_in_token, response)


async def test_token_of_one_sign_in_does_not_match_the_response_of_another(app: App) -> None:
    mine, theirs = await app.begin(), await app.begin()
    response = await sign_in_at_provider(theirs.authorization_url, "ada")
    assert await reason(app.complete(mine.provider_sign_in_token, response)) == "PROVIDER_SIGN_IN_FAILED"


async def test_code_of_one_sign_in_is_invalid_for_another(app: App) -> None:
    """The provider requires the code verifier (RFC 7636) of the sign-in that the code belongs to."""
    mine, theirs = await app.begin(), await app.begin()
    response = await sign_in_at_provider(mine.authorization_url, "ada")
    stolen = (await sign_in_at_provider(theirs.authorization_url, "grace")).code
    wrong = replace(response, code=stolen)
    assert await reason(app.complete(mine.provider_sign_in_token, wrong)) == "PROVIDER_SIGN_IN_FAILED"


@pytest.mark.parametrize("issuer", ["", "https://accounts.google.com"])
async def test_response_with_another_issuer_or_none_is_rejected(app: App, issuer: str) -> None:
    begun = await app.begin()
    response = replace(await sign_in_at_provider(begun.authorization_url, "ada"), issuer=issuer)
    assert await reason(app.complete(begun.provider_sign_in_token, response)) == "PROVIDER_SIGN_IN_FAILED"


async def test_expired_sign_in_is_rejected(app: App, dsn: str) -> None:
    begun = await app.begin()
    response = await sign_in_at_provider(begun.authorization_url, "ada")
    change(dsn, "UPDATE provider_sign_ins SET expires_at = now()")
    assert await reason(app.complete(begun.provider_sign_in_token, response)) == "PROVIDER_SIGN_IN_FAILED"


async def test_cause_of_a_failed_sign_in_is_only_logged(app: App, log: list[dict[str, object]]) -> None:
    begun = await app.begin()
    response = replace(await sign_in_at_provider(begun.authorization_url, "ada"), code="another")
    refused = await refusal(app.complete(begun.provider_sign_in_token, response))
    (line,) = [line for line in log if line["event"] == "provider_failed"]
    assert line["provider"] == "rsa"
    assert "grant" in str(line["reason"])
    assert "grant" not in repr(refused)
    for secret in (begun.provider_sign_in_token, response.state):
        assert secret not in repr(log)


# --- linking ----------------------------------------------------------------------------------------------------------
async def test_identity_is_linked_listed_and_signs_in(client: Client, app: App, me: Person) -> None:
    linked = await app.link(me.headers, "ada")
    assert (linked.provider, linked.email) == ("rsa", EMAIL)
    assert await app.linked(me.headers) == [linked]
    assert UUID((await app.sign_in("ada")).session.account_id) == me.account_id
    (email,) = await mailed(client.database, me.email)
    assert (email.template, email.values["provider"]) == (Mail.PROVIDER_LINKED, "Corp")


async def test_identity_without_a_verified_address_can_be_linked(app: App, me: Person) -> None:
    await app.link(me.headers, "unverified-ada")
    assert UUID((await app.sign_in("unverified-ada")).session.account_id) == me.account_id


async def test_linking_an_identity_again_returns_it_unchanged(client: Client, app: App, me: Person) -> None:
    first, second = await app.link(me.headers, "ada"), await app.link(me.headers, "ada")
    assert (second.id, second.created_at) == (first.id, first.created_at)
    assert len(await mailed(client.database, me.email)) == 1


async def test_identity_of_another_account_is_not_linked(client: Client, app: App, me: Person) -> None:
    other = await client.new_user()
    await app.link(other.headers, "ada")
    refused = await refusal(app.link(me.headers, "ada"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "PROVIDER_LINKED_ELSEWHERE")
    assert await app.linked(me.headers) == []


async def test_link_can_be_completed_only_by_the_user_who_began_it(client: Client, app: App, me: Person) -> None:
    """Otherwise an attacker could link their identity to the account of a user who opens the attacker's redirect URI."""
    begun = await app.begin_link(me.headers)
    response = await sign_in_at_provider(begun.authorization_url, "ada")
    other = await client.new_user()
    assert (
        await reason(app.complete_link(other.headers, begun.provider_sign_in_token, response))
        == "PROVIDER_SIGN_IN_FAILED"
    )
    await app.complete_link(me.headers, begun.provider_sign_in_token, response)


async def test_sign_in_cannot_complete_a_link_and_link_cannot_complete_a_sign_in(app: App, me: Person) -> None:
    begun = await app.begin()
    response = await sign_in_at_provider(begun.authorization_url, "ada")
    assert (
        await reason(app.complete_link(me.headers, begun.provider_sign_in_token, response)) == "PROVIDER_SIGN_IN_FAILED"
    )
    begun = await app.begin_link(me.headers)
    response = await sign_in_at_provider(begun.authorization_url, "ada")
    assert await reason(app.complete(begun.provider_sign_in_token, response)) == "PROVIDER_SIGN_IN_FAILED"


async def test_identity_that_two_accounts_link_concurrently_is_linked_to_one(
    client: Client, app: App, me: Person, dsn: str
) -> None:
    people = [me, await client.new_user()]
    begun = [await app.begin_link(person.headers) for person in people]
    responses = [await sign_in_at_provider(each.authorization_url, "ada") for each in begun]
    calls = [
        app.complete_link(person.headers, each.provider_sign_in_token, response)
        for person, each, response in zip(people, begun, responses, strict=True)
    ]
    assert sorted(await asyncio.gather(*map(outcome, calls))) == ["OK", "PROVIDER_LINKED_ELSEWHERE"]
    assert count(dsn, "linked_providers") == 1


async def test_identities_of_another_account_are_not_found(client: Client, app: App, me: Person) -> None:
    theirs = await app.link((await client.new_user()).headers, "ada")
    assert await app.linked(me.headers) == []
    refused = await refusal(app.unlink(me.headers, theirs))
    absent = LinkedProvider(id=str(uuid4()))
    assert refused.metadata == {"linked_provider_id": theirs.id}
    assert replace(await refusal(app.unlink(me.headers, absent)), metadata={}) == replace(refused, metadata={})
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "LINKED_PROVIDER_NOT_FOUND")


async def test_unlinked_identity_no_longer_signs_in_and_its_tokens_are_deleted(
    client: Client, app: App, me: Person, dsn: str
) -> None:
    linked = await app.link(me.headers, "ada")
    await app.unlink(me.headers, linked)
    assert count(dsn, "linked_providers") == 0
    assert (await app.sign_in("ada")).account_created
    templates = [email.template for email in await mailed(client.database, me.email)]
    assert templates == [Mail.PROVIDER_LINKED, Mail.PROVIDER_UNLINKED]


async def test_last_way_in_cannot_be_unlinked(app: App) -> None:
    headers = bearer((await app.sign_in("ada")).session_token)
    (only,) = await app.linked(headers)
    refused = await refusal(app.unlink(headers, only))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_WAY_IN")
    assert await app.linked(headers) == [only]


async def test_one_of_two_identities_can_be_unlinked(app: App) -> None:
    headers = bearer((await app.sign_in("ada")).session_token)
    await app.link(headers, "grace")
    first, second = await app.linked(headers)
    await app.unlink(headers, first)
    assert await reason(app.unlink(headers, second)) == "LAST_WAY_IN"


async def test_identity_of_a_provider_that_is_no_longer_configured_is_not_a_way_in(app: App, dsn: str) -> None:
    headers = bearer((await app.sign_in("ada")).session_token)
    await app.link(headers, "grace")
    first, second = await app.linked(headers)
    change(dsn, "UPDATE linked_providers SET provider = 'gone' WHERE id = %s", first.id)
    assert await reason(app.unlink(headers, second)) == "LAST_WAY_IN"
    await app.unlink(headers, first)


async def test_one_of_two_identities_that_are_unlinked_concurrently_remains(app: App, dsn: str) -> None:
    headers = bearer((await app.sign_in("ada")).session_token)
    await app.link(headers, "grace")
    calls = [app.unlink(headers, each) for each in await app.linked(headers)]
    with psycopg.connect(dsn) as connection:
        # Neither call can delete an identity before both wait for the lock.
        connection.execute("SELECT id FROM linked_providers FOR UPDATE")
        outcomes = asyncio.gather(*map(outcome, calls))
        async with asyncio.timeout(10):
            while count(dsn, "pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") < 2:
                await asyncio.sleep(0.01)
    assert sorted(await outcomes) == ["LAST_WAY_IN", "OK"]
    assert count(dsn, "linked_providers") == 1


# --- audit ------------------------------------------------------------------------------------------------------------
async def test_every_event_is_audited_with_its_account(app: App, dsn: str) -> None:
    completed = await app.sign_in("ada")
    headers, account_id = bearer(completed.session_token), UUID(completed.session.account_id)
    linked = await app.link(headers, "grace")
    await app.unlink(headers, linked)
    ban(dsn, EMAIL)
    await refusal(app.sign_in("ada"))
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT split_part(method, '/', 3), account_id, target, code, reason FROM audit_events ORDER BY id"
        ).fetchall()
    assert rows == [
        ("CompleteProviderSignIn", account_id, completed.session.id, "OK", None),
        ("LinkProvider", account_id, linked.id, "OK", None),
        ("UnlinkProvider", account_id, linked.id, "OK", None),
        ("CompleteProviderSignIn", account_id, str(account_id), "UNAUTHENTICATED", "SIGN_IN_REFUSED"),
    ]
