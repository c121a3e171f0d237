"""The parts of providers: addresses, metadata, ID tokens, identities, the cache, and the HTTP client."""

import asyncio
import gzip
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from pydantic import SecretStr

from accord_auth.providers import Identity, ProviderSettings, ProviderUnreachable, SignInFailed, id_tokens
from accord_auth.providers import http as http_module
from accord_auth.providers import ttl_cache as ttl_cache_module
from accord_auth.providers.http import Http
from accord_auth.providers.id_tokens import Expected
from accord_auth.providers.metadata import is_secure, metadata_address, read_metadata
from accord_auth.providers.provider import Provider
from accord_auth.providers.provider_identity import Tokens
from accord_auth.providers.providers import SignInSecrets
from accord_auth.providers.ttl_cache import TtlCache
from accord_db.engine.clock import DatabaseClock

# As Google serves it at https://accounts.google.com/.well-known/openid-configuration.
GOOGLE: dict[str, Any] = {
    "issuer": "https://accounts.google.com",
    "authorization_endpoint": "https://accounts.google.com/o/oauth2/v2/auth",
    "device_authorization_endpoint": "https://oauth2.googleapis.com/device/code",
    "token_endpoint": "https://oauth2.googleapis.com/token",
    "userinfo_endpoint": "https://openidconnect.googleapis.com/v1/userinfo",
    "revocation_endpoint": "https://oauth2.googleapis.com/revoke",
    "jwks_uri": "https://www.googleapis.com/oauth2/v3/certs",
    "response_types_supported": [
        "code",
        "token",
        "id_token",
        "code token",
        "code id_token",
        "token id_token",
        "code token id_token",
        "none",
    ],
    "subject_types_supported": ["public"],
    "id_token_signing_alg_values_supported": ["RS256"],
    "scopes_supported": ["openid", "email", "profile"],
    "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
    "claims_supported": ["aud", "email", "email_verified", "exp", "iat", "iss", "name", "sub"],
    "code_challenge_methods_supported": ["plain", "S256"],
}
SETTINGS = ProviderSettings("corp", "Corp", "http://127.0.0.1:9", "client", "secret")


# --- what is loaded ---------------------------------------------------------------------------------------------------
def test_an_installation_without_providers_does_not_load_the_http_client() -> None:
    program = """
import sys
from accord_gateway import server
from accord_auth.providers import Providers
Providers([], redirect_uris=frozenset(), database=None, keys=None)
print(*({"httpx2", "authlib.integrations"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.split() == []


# --- addresses and metadata -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "address", ["https://login.example.com", "https://login.example.com:8443/a?b=c", "https://[2001:db8::1]/token"]
)
def test_https_is_secure(address: str) -> None:
    assert is_secure(address, insecure_loopback=False)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x", "http://[::1]/x", "http://localhost:80"])
def test_plain_http_is_secure_on_loopback_in_development_only(address: str) -> None:
    assert is_secure(address, insecure_loopback=True)
    assert not is_secure(address, insecure_loopback=False)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "https:",
        "https://",
        "//login.example.com",
        "http://login.example.com",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://2130706433",
        "ftp://login.example.com",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://user@login.example.com",
        "https://:secret@login.example.com",
        "https://login.example.com/#fragment",
        "https://login.example.com/#",
        "https://login.example.com\\@evil.example.com",
        "https://login.example.com/a b",
        "https://login.example.com/\n",
        "https://lögin.example.com",
        "https://login.example.com:99999",
        "https://[::1",
    ],
)
def test_other_addresses_are_not_secure(address: str) -> None:
    assert not is_secure(address, insecure_loopback=True)


@pytest.mark.parametrize("issuer", ["https://a.example.com/tenant", "https://a.example.com/tenant/"])
def test_metadata_are_where_the_standard_says(issuer: str) -> None:
    assert metadata_address(issuer) == "https://a.example.com/tenant/.well-known/openid-configuration"


def test_metadata_of_google_are_accepted() -> None:
    metadata = read_metadata(GOOGLE, issuer="https://accounts.google.com", insecure_loopback=False)
    assert metadata.token_endpoint == "https://oauth2.googleapis.com/token"
    assert metadata.algorithms == {"RS256"}
    assert metadata.client_authentication == "client_secret_basic"


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://accounts.google.com/"},
        {"token_endpoint": "http://oauth2.googleapis.com/token"},
        {"token_endpoint": "http://127.0.0.1/token"},
        {"userinfo_endpoint": None},
        {"jwks_uri": 7},
        {"code_challenge_methods_supported": ["plain"]},
        {"code_challenge_methods_supported": "S256"},
        {"token_endpoint_auth_methods_supported": ["private_key_jwt"]},
        {"id_token_signing_alg_values_supported": ["HS256", "none"]},
        {"authorization_response_iss_parameter_supported": "true"},
    ],
    ids=str,
)
def test_metadata_that_do_not_hold_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SignInFailed):
        read_metadata({**GOOGLE, **changes}, issuer="https://accounts.google.com", insecure_loopback=True)


@pytest.mark.parametrize("tenant", ["common", "organizations"])
def test_microsofts_addresses_for_several_tenants_are_refused_with_advice(tenant: str) -> None:
    document = {**GOOGLE, "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}
    with pytest.raises(SignInFailed, match="set the issuer of one tenant"):
        read_metadata(document, issuer=f"https://login.microsoftonline.com/{tenant}/v2.0", insecure_loopback=False)


async def test_google_receives_its_own_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    from accord_gateway.settings import Settings

    chosen = Settings(google_client_id="1.apps.googleusercontent.com", google_client_secret=SecretStr("secret"))
    (settings,) = chosen.provider_settings()
    provider = Provider(settings, Http(), DatabaseClock(), insecure_loopback=False)

    async def recorded(*_: object, **__: object) -> dict[str, Any]:
        return GOOGLE

    monkeypatch.setattr(Http, "get_object", recorded)
    secrets = SignInSecrets.of("token")._asdict()
    url = urlsplit(await provider.authorization_url(**secrets, redirect_uri="https://app.example.com/signed-in"))
    assert f"{url.scheme}://{url.netloc}{url.path}" == GOOGLE["authorization_endpoint"]
    asked = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert (asked["access_type"], asked["scope"]) == ("offline", "openid email profile")
    assert asked["client_id"] == "1.apps.googleusercontent.com"
    assert "secret" not in asked


# --- secrets, identities, tokens --------------------------------------------------------------------------------------
def test_secrets_of_a_sign_in_are_its_own_and_each_another() -> None:
    first, second = SignInSecrets.of("token"), SignInSecrets.of("tokeN")
    assert len({"token", *first, *second}) == 7
    assert SignInSecrets.of("token") == first
    assert all(secret not in repr(first) for secret in first)
    assert first.has_state(first.state)
    assert not first.has_state(first.nonce)
    assert not first.has_state("ü")


@pytest.mark.parametrize("verified", [True, "true"])
def test_true_as_a_boolean_or_a_string_verifies_an_address(verified: object) -> None:
    """Amazon Cognito and Apple send the string."""
    claims = {"email": "ada@example.com", "email_verified": verified}
    assert Identity.from_claims(claims, issuer="i", subject="s").email_verified


@pytest.mark.parametrize(
    "verified",
    [False, None, "false", "True", "TRUE", "true ", "yes", "1", "", 1, 1.0, [True], ["true"], {"true": True}],
    ids=repr,
)
def test_nothing_else_verifies_an_address(verified: object) -> None:
    claims = {"email": "ada@example.com", "email_verified": verified}
    assert not Identity.from_claims(claims, issuer="i", subject="s").email_verified


@pytest.mark.parametrize("email", [None, 7, "", "ada", "a@b@c.de", "ada@example.com\n", "a b@c.de", "ädä@example.com"])
def test_an_invalid_address_is_none_and_not_verified(email: object) -> None:
    identity = Identity.from_claims({"email": email, "email_verified": True}, issuer="i", subject="s")
    assert (identity.email, identity.email_verified) == (None, False)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("Ada", "Ada"),
        ("  Ada\nLovelace\x00\ud800 ", "AdaLovelace"),
        ("x" * 101, "x" * 100),
        ("x" * 99 + " y", "x" * 99),
        ("\n", None),
        ("", None),
        (7, None),
        (None, None),
    ],
)
def test_a_name_is_shortened_to_a_valid_display_name(told: object, name: str | None) -> None:
    assert Identity.from_claims({"name": told}, issuer="i", subject="s").name == name


@pytest.mark.parametrize(
    "changes",
    [
        {"token_type": "mac"},
        {"token_type": None},
        {"access_token": ""},
        {"access_token": "\x00"},
        {"access_token": "\ud800"},
        {"access_token": "x" * 20_000},
        {"refresh_token": ""},
        {"refresh_token": 7},
        {"expires_in": -1},
        {"expires_in": True},
        {"expires_in": 1.5},
        {"expires_in": "soon"},
        {"expires_in": "٣"},
    ],
    ids=str,
)
def test_invalid_tokens_are_refused(changes: dict[str, object]) -> None:
    answer = {"token_type": "Bearer", "access_token": "token", "expires_in": 60}
    with pytest.raises(SignInFailed):
        Tokens.from_response({**answer, **changes})


def test_tokens_are_not_shown() -> None:
    answer = {"token_type": "Bearer", "access_token": "hunter2", "refresh_token": "hunter3"}
    assert "hunter" not in repr(Tokens.from_response(answer))
    assert "hunter" not in repr(ProviderSettings("corp", "Corp", "https://corp.example.com", "client", "hunter2"))


@pytest.mark.parametrize(("told", "seconds"), [(60, 60), ("60", 60), (0, 0), (10**18, 3650 * 86_400)])
def test_lifetime_is_bounded(told: object, seconds: int) -> None:
    tokens = Tokens.from_response({"token_type": "bearer", "access_token": "token", "expires_in": told})
    assert tokens.lifetime is not None
    assert tokens.lifetime.total_seconds() == seconds


# --- ID tokens --------------------------------------------------------------------------------------------------------
KEY = ECKey.generate_key("P-256", parameters={"kid": "key"})


def verified(
    *, issuer: str = "https://login.example.com", trusted: Iterable[str] = (), **claims: object
) -> dict[str, Any]:
    """Verifies a token that is valid except for the given claims. None removes a claim."""
    now = int(time.time())
    valid = {"iss": issuer, "aud": "client", "sub": "subject", "exp": now + 60, "iat": now, "nonce": "nonce"}
    payload = {name: value for name, value in {**valid, **claims}.items() if value is not None}
    token = jwt.encode({"alg": "ES256", "kid": "key"}, payload, KEY, ["ES256"])
    expected = Expected(
        issuer=issuer,
        client_id="client",
        trusted_audiences=frozenset(trusted),
        nonce="nonce",
        access_token="token",
    )
    return id_tokens.verify(token, KEY, id_tokens.read_header(token, frozenset({"ES256"})), expected, now=now)


@pytest.mark.parametrize(
    ("claims", "trusted"),
    [
        ({"aud": "client"}, ()),
        ({"aud": ["client"]}, ()),
        ({"aud": ["client", "client"]}, ()),
        ({"aud": "client", "azp": "client"}, ()),
        ({"aud": ["client"], "azp": "client"}, ("project",)),
        ({"aud": ["client", "project"], "azp": "client"}, ("project",)),
        ({"aud": ["other client", "project", "client"], "azp": "client"}, ("project", "other client")),
    ],
    ids=str,
)
def test_an_audience_of_the_client_and_trusted_ones_is_accepted(
    claims: dict[str, Any], trusted: tuple[str, ...]
) -> None:
    """ZITADEL adds the project and its other clients to the audience."""
    assert verified(trusted=trusted, **claims)["sub"] == "subject"


@pytest.mark.parametrize(
    ("claims", "trusted"),
    [
        ({"aud": None}, ()),
        ({"aud": []}, ("project",)),
        ({"aud": 7}, ()),
        ({"aud": [["client"]]}, ()),
        ({"aud": {"client": True}}, ()),
        ({"aud": "other client"}, ()),
        ({"aud": "project"}, ("project",)),
        ({"aud": ["project"], "azp": "client"}, ("project",)),
        ({"aud": ["client", 7], "azp": "client"}, ("project",)),
        ({"aud": ["client", "project"], "azp": "client"}, ()),
        ({"aud": ["client", "project", "stranger"], "azp": "client"}, ("project",)),
        ({"aud": ["client", "Project"], "azp": "client"}, ("project",)),
        ({"aud": ["client", "project"]}, ("project",)),
        ({"aud": ["client", "project"], "azp": "other client"}, ("project",)),
        ({"aud": ["client", "project"], "azp": "project"}, ("project",)),
        ({"aud": ["client", "project"], "azp": ["client"]}, ("project",)),
        ({"aud": "client", "azp": "project"}, ("project",)),
    ],
    ids=str,
)
def test_other_audiences_are_refused(claims: dict[str, Any], trusted: tuple[str, ...]) -> None:
    with pytest.raises(SignInFailed, match=r"audience|another client"):
        verified(trusted=trusted, **claims)


def test_google_may_omit_the_scheme_of_its_issuer() -> None:
    assert verified(issuer="https://accounts.google.com", iss="accounts.google.com")["sub"] == "subject"


@pytest.mark.parametrize(
    ("issuer", "iss"),
    [
        ("https://login.example.com", "login.example.com"),
        ("https://login.example.com", "accounts.google.com"),
        ("https://accounts.google.com", "http://accounts.google.com"),
        ("https://accounts.google.com", "accounts.google.com/"),
        ("https://accounts.google.com", ["accounts.google.com"]),
    ],
)
def test_no_other_issuer_may_differ(issuer: str, iss: object) -> None:
    with pytest.raises(SignInFailed, match="another issuer"):
        verified(issuer=issuer, iss=iss)


# --- the cache ---------------------------------------------------------------------------------------------------------
class Source:
    """Counts how often it is asked, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.fails: type[SignInFailed | ProviderUnreachable] | None = None
        self.goes_on = asyncio.Event()

    async def fetch(self) -> int:
        self.asked += 1
        await self.goes_on.wait()
        if self.fails is not None:
            raise self.fails("it was told to")
        return self.asked


async def test_concurrent_callers_share_one_fetch() -> None:
    source = Source()
    cache = TtlCache(source.fetch, ttl=60)
    asking = [asyncio.create_task(cache.get()) for _ in range(20)]
    await asyncio.sleep(0)
    source.goes_on.set()
    assert await asyncio.gather(*asking) == [1] * 20
    assert await cache.get() == 1


async def test_callers_that_wait_share_an_error_and_the_next_caller_fetches_again() -> None:
    source = Source()
    source.fails = ProviderUnreachable
    cache = TtlCache(source.fetch, ttl=60)
    asking = [asyncio.create_task(cache.get()) for _ in range(20)]
    await asyncio.sleep(0)
    source.goes_on.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ProviderUnreachable}
    assert source.asked == 1
    source.fails = None
    assert await cache.get() == 2


async def test_the_next_caller_fetches_when_the_first_is_cancelled() -> None:
    source = Source()
    cache = TtlCache(source.fetch, ttl=60)
    first, second = (asyncio.create_task(cache.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    source.goes_on.set()
    assert await second == 2


async def test_the_value_is_fetched_again_after_its_ttl(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(ttl_cache_module, "monotonic", lambda: now)
    source = Source()
    source.goes_on.set()
    cache = TtlCache(source.fetch, ttl=60)
    assert await cache.get() == 1
    now += 59
    assert await cache.get() == 1
    now += 1
    assert await cache.get() == 2


async def test_refreshes_have_a_minimum_interval_even_if_they_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise tokens with unknown key ids could cause a request to the provider each."""
    now = 1000.0
    monkeypatch.setattr(ttl_cache_module, "monotonic", lambda: now)
    source = Source()
    source.goes_on.set()
    cache = TtlCache(source.fetch, ttl=3600, min_refresh_interval=60)
    first = await cache.get()
    assert await asyncio.gather(*(cache.refresh(first) for _ in range(5))) == [2] * 5
    assert await cache.refresh(2) == 2
    now += 61
    source.fails = SignInFailed
    with pytest.raises(SignInFailed):
        await cache.refresh(2)
    assert await cache.refresh(2) == 2
    assert source.asked == 3


# --- HTTP -------------------------------------------------------------------------------------------------------------
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "TIMEOUT_SECONDS", 0.3)


async def fetched(answer: Serve) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(await asyncio.start_server(answer, "127.0.0.1", 0))
        port = server.sockets[0].getsockname()[1]
        return await Http().get_object(SETTINGS, f"http://127.0.0.1:{port}/")


def answering(head: bytes, *parts: bytes, pause: float = 0.0) -> Serve:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return answer


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close"


@pytest.mark.parametrize("kind", [b"application/json", b"Application/JSON; charset=utf-8", b"application/jwk-set+json"])
async def test_json_object_is_read(kind: bytes) -> None:
    head = OK.replace(b"application/json", kind)
    assert await fetched(answering(head, b'{"a": 1}')) == {"a": 1}


@pytest.mark.usefixtures("quick")
async def test_a_response_that_never_arrives_times_out() -> None:
    with pytest.raises(ProviderUnreachable):
        await fetched(answering(b"HTTP/1.1 200 OK", b"", pause=5))


@pytest.mark.usefixtures("quick")
async def test_a_response_that_is_too_slow_times_out() -> None:
    with pytest.raises(ProviderUnreachable):
        await fetched(answering(OK, *[b" "] * 100, pause=0.05))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0",
        b"HTTP/1.1 503 Later\r\nContent-Length: 0",
        b"HTTP/1.1 429 Slowly\r\nContent-Length: 0",
        b"no HTTP",
    ],
)
async def test_a_provider_with_a_server_error_is_unreachable(answer: bytes) -> None:
    with pytest.raises(ProviderUnreachable):
        await fetched(answering(answer))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0",
        b"HTTP/1.1 204 No Content\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: https://example.com/",
        OK.replace(b"application/json", b"text/html"),
        OK.replace(b"application/json", b"application/jsonp"),
        OK.replace(b"Content-Type: application/json\r\n", b""),
        OK + b"\r\nContent-Encoding: gzip",
    ],
)
async def test_other_responses_are_refused(head: bytes) -> None:
    with pytest.raises(SignInFailed):
        await fetched(answering(head, b'{"a": 1}'))


async def test_a_compressed_response_is_refused_before_it_is_decompressed() -> None:
    with pytest.raises(SignInFailed):
        await fetched(answering(OK + b"\r\nContent-Encoding: gzip", gzip.compress(b'{"a": 1}')))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1} x',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": "\xff"}',
        b'{"a":' * 50_000,
        b'{"a": "' + b"x" * 300_000 + b'"}',
        b'{"a": ' + b"9" * 5_000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_a_body_that_is_not_a_small_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(SignInFailed):
        await fetched(answering(OK, body))
