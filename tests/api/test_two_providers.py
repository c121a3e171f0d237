"""Two providers of one installation: neither can sign in users of the other."""

from collections.abc import Awaitable, Iterator
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from accord.accounts.v1.accounts_pb2 import (
    RequestPasswordResetRequest,
    ResetPasswordRequest,
    Session,
    VerifyEmailRequest,
)
from accord.providers.v1.providers_pb2 import (
    BeginLinkProviderRequest,
    BeginProviderSignInRequest,
    BeginProviderSignInResponse,
    CompleteProviderSignInRequest,
    CompleteProviderSignInResponse,
    LinkProviderRequest,
)
from accord.providers.v1.providers_pb2_grpc import ProviderServiceStub
from accord_api.outbox import Mail
from accord_auth.providers.providers import SignInSecrets
from accord_auth.tokens import PROVIDER_SIGN_IN_PREFIX
from accord_gateway.settings import Settings
from tests.api.conftest import Client, refusal
from tests.api.forged_tokens import flipped
from tests.api.hostile_provider import REDIRECT_URI, Provider, serving
from tests.api.mailbox import mailed_token
from tests.api.signing_in import EMAIL, OTHER_EMAIL, OTHER_PASSWORD, sign_in, sign_up, signed_in
from tests.factories import Headers


@pytest.fixture
def one() -> Iterator[Provider]:
    with serving(Provider()) as provider:
        yield provider


@pytest.fixture
def other() -> Iterator[Provider]:
    with serving(Provider()) as provider:
        yield provider


@pytest.fixture
def gateway_settings(one: Provider, other: Provider) -> Settings:
    providers = {"one": one.settings(), "other": other.settings()}
    return Settings(port=0, metrics_port=0, providers=providers, provider_redirect_uris=(REDIRECT_URI,))


async def begin(client: Client, name: str) -> BeginProviderSignInResponse:
    request = BeginProviderSignInRequest(provider=name, redirect_uri=REDIRECT_URI)
    return await ProviderServiceStub(client.channel).BeginProviderSignIn(request)


def complete(client: Client, token: str, response: dict[str, str]) -> Awaitable[CompleteProviderSignInResponse]:
    request = CompleteProviderSignInRequest(provider_sign_in_token=token, **response)
    return ProviderServiceStub(client.channel).CompleteProviderSignIn(request)


async def test_one_subject_at_two_providers_gets_two_accounts(client: Client, one: Provider, other: Provider) -> None:
    assert one.subject == other.subject
    one.email, other.email = "one@example.com", "other@example.com"
    accounts = set()
    for name, provider in (("one", one), ("other", other)):
        begun = await begin(client, name)
        response = provider.sign_in(begun.authorization_url)
        completed = await complete(client, begun.provider_sign_in_token, response)
        assert completed.account_created
        accounts.add(completed.session.account_id)
    assert len(accounts) == 2


async def test_response_of_one_provider_cannot_complete_a_sign_in_at_another(
    client: Client, one: Provider, other: Provider
) -> None:
    """Mix-up attack (RFC 9207): the user is redirected to the wrong provider and returns with its response."""
    begun = await begin(client, "other")
    mixed_up = begun.authorization_url.replace(other.issuer, one.issuer)
    assert parse_qs(urlsplit(mixed_up).query)["state"] == [SignInSecrets.of(begun.provider_sign_in_token).state]
    refused = await refusal(complete(client, begun.provider_sign_in_token, one.sign_in(mixed_up)))
    assert refused.reason == "PROVIDER_SIGN_IN_FAILED"
    assert "/token" not in other.requests  # the code was not sent to the other provider


async def test_token_with_one_byte_changed_is_rejected(client: Client, one: Provider) -> None:
    """The state is the one derived from the changed token."""
    begun = await begin(client, "one")
    response = one.sign_in(begun.authorization_url)
    for forged in flipped(begun.provider_sign_in_token, PROVIDER_SIGN_IN_PREFIX):
        refused = await refusal(complete(client, forged, {**response, "state": SignInSecrets.of(forged).state}))
        assert refused.reason == "PROVIDER_SIGN_IN_FAILED"
    assert (await complete(client, begun.provider_sign_in_token, response)).session_token


@pytest.mark.parametrize("verified", [False, True], ids=["unverified", "verified"])
async def test_password_reset_unlinks_identities_that_were_linked_before_the_address_was_verified(
    client: Client, one: Provider, verified: bool
) -> None:
    """An attacker who signs up with the address of a user and links an identity loses access when that user resets the
    password. Identities of an account with a verified address stay linked."""
    headers = await signed_in(client, EMAIL)
    if verified:
        token = await mailed_token(client.database, EMAIL, Mail.VERIFY_EMAIL)
        await client.accounts.VerifyEmail(VerifyEmailRequest(token=token))
    one.email = OTHER_EMAIL
    await link(client, headers, one)
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    await client.accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=OTHER_PASSWORD))
    begun = await begin(client, "one")
    completed = await complete(client, begun.provider_sign_in_token, one.sign_in(begun.authorization_url))
    owner = (await sign_in(client, EMAIL, OTHER_PASSWORD)).session
    assert (completed.session.account_id == owner.account_id) == verified
    assert completed.account_created != verified


async def link(client: Client, headers: Headers, provider: Provider) -> None:
    stub = ProviderServiceStub(client.channel)
    begun = await stub.BeginLinkProvider(
        BeginLinkProviderRequest(provider="one", redirect_uri=REDIRECT_URI), metadata=headers
    )
    response = provider.sign_in(begun.authorization_url)
    request = LinkProviderRequest(provider_sign_in_token=begun.provider_sign_in_token, **response)
    await stub.LinkProvider(request, metadata=headers)


async def test_session_of_a_provider_sign_in_has_the_usual_lifetime(client: Client, one: Provider) -> None:
    """The lifetime of the provider's tokens, here five minutes, does not matter."""
    begun = await begin(client, "one")
    completed = await complete(client, begun.provider_sign_in_token, one.sign_in(begun.authorization_url))
    await sign_up(client)
    other = (await sign_in(client)).session
    assert lifetimes(completed.session) == lifetimes(other) == (timedelta(days=30), timedelta(days=14))


def lifetimes(session: Session) -> tuple[timedelta, timedelta]:
    since = session.created_at.ToDatetime()
    return session.expires_at.ToDatetime() - since, session.idle_expires_at.ToDatetime() - since
