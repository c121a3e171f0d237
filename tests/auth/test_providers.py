"""What providers are made of: addresses, metadata, identities, what is remembered, and how they are spoken to."""

import asyncio
import gzip
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from accord_auth.providers import Identity, ProviderSettings, ProviderUnreachable, SignInFailed
from accord_auth.providers import http as http_module
from accord_auth.providers import remembered as remembered_module
from accord_auth.providers.http import Http
from accord_auth.providers.metadata import is_secure, metadata_address, read_metadata
from accord_auth.providers.proofs import Tokens
from accord_auth.providers.provider import Provider
from accord_auth.providers.remembered import Remembered
from accord_auth.providers.sign_in_secrets import is_state, secrets_of

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
def test_installation_without_providers_loads_nothing_that_only_they_need() -> None:
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
def test_plain_http_is_enough_on_this_machine_in_development_alone(address: str) -> None:
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


def test_metadata_of_google_hold() -> None:
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


async def test_google_is_asked_for_what_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from accord_gateway.settings import Settings

    chosen = Settings(google_client_id="1.apps.googleusercontent.com", google_client_secret=SecretStr("secret"))
    (settings,) = chosen.provider_settings()
    provider = Provider(settings, Http(), insecure_loopback=False)

    async def recorded(*_: object, **__: object) -> dict[str, Any]:
        return GOOGLE

    monkeypatch.setattr(Http, "get_object", recorded)
    url = urlsplit(await provider.authorization_url(secrets_of("token"), "https://app.example.com/signed-in"))
    assert f"{url.scheme}://{url.netloc}{url.path}" == GOOGLE["authorization_endpoint"]
    asked = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert (asked["access_type"], asked["scope"]) == ("offline", "openid email profile")
    assert asked["client_id"] == "1.apps.googleusercontent.com"
    assert "secret" not in asked


# --- secrets, identities, tokens --------------------------------------------------------------------------------------
def test_secrets_of_a_sign_in_are_its_own_and_each_another() -> None:
    first, second = secrets_of("token"), secrets_of("tokeN")
    assert len({"token", *first, *second}) == 7
    assert secrets_of("token") == first
    assert all(secret not in repr(first) for secret in first)
    assert is_state(first.state, first)
    assert not is_state(first.nonce, first)
    assert not is_state("ü", first)


@pytest.mark.parametrize("verified", [False, None, "true", "True", 1, 1.0, [True]])
def test_only_the_truth_itself_verifies_an_address(verified: object) -> None:
    claims = {"email": "ada@example.com", "email_verified": verified}
    assert not Identity.told_by(claims, issuer="i", subject="s").email_verified


@pytest.mark.parametrize("email", [None, 7, "", "ada", "a@b@c.de", "ada@example.com\n", "a b@c.de", "ädä@example.com"])
def test_what_is_no_address_is_none_and_not_verified(email: object) -> None:
    identity = Identity.told_by({"email": email, "email_verified": True}, issuer="i", subject="s")
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
def test_name_is_what_a_display_name_may_be(told: object, name: str | None) -> None:
    assert Identity.told_by({"name": told}, issuer="i", subject="s").name == name


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
def test_tokens_that_cannot_be_used_are_refused(changes: dict[str, object]) -> None:
    answer = {"token_type": "Bearer", "access_token": "token", "expires_in": 60}
    with pytest.raises(SignInFailed):
        Tokens.answered({**answer, **changes})


def test_tokens_are_not_shown() -> None:
    answer = {"token_type": "Bearer", "access_token": "hunter2", "refresh_token": "hunter3"}
    assert "hunter" not in repr(Tokens.answered(answer))
    assert "hunter" not in repr(ProviderSettings("corp", "Corp", "https://corp.example.com", "client", "hunter2"))


@pytest.mark.parametrize(("told", "seconds"), [(60, 60), ("60", 60), (0, 0), (10**18, 3650 * 86_400)])
def test_lifetime_is_bounded(told: object, seconds: int) -> None:
    tokens = Tokens.answered({"token_type": "bearer", "access_token": "token", "expires_in": told})
    assert tokens.lifetime is not None
    assert tokens.lifetime.total_seconds() == seconds


# --- what is remembered -----------------------------------------------------------------------------------------------
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


async def test_many_who_want_it_at_once_have_it_fetched_once() -> None:
    source = Source()
    remembered = Remembered(source.fetch, seconds=60)
    asking = [asyncio.create_task(remembered.get()) for _ in range(20)]
    await asyncio.sleep(0)
    source.goes_on.set()
    assert await asyncio.gather(*asking) == [1] * 20
    assert await remembered.get() == 1


async def test_whoever_waited_for_a_fetch_that_failed_shares_its_failure_and_later_ones_try_again() -> None:
    source = Source()
    source.fails = ProviderUnreachable
    remembered = Remembered(source.fetch, seconds=60)
    asking = [asyncio.create_task(remembered.get()) for _ in range(20)]
    await asyncio.sleep(0)
    source.goes_on.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ProviderUnreachable}
    assert source.asked == 1
    source.fails = None
    assert await remembered.get() == 2


async def test_whoever_is_cancelled_while_fetching_leaves_it_to_the_next() -> None:
    source = Source()
    remembered = Remembered(source.fetch, seconds=60)
    first, second = (asyncio.create_task(remembered.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    source.goes_on.set()
    assert await second == 2


async def test_it_is_fetched_again_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(remembered_module, "monotonic", lambda: now)
    source = Source()
    source.goes_on.set()
    remembered = Remembered(source.fetch, seconds=60)
    assert await remembered.get() == 1
    now += 59
    assert await remembered.get() == 1
    now += 1
    assert await remembered.get() == 2


async def test_renewals_are_apart_whether_or_not_they_bring_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or anybody could have the keys fetched as often as they like, by naming one that there is not."""
    now = 1000.0
    monkeypatch.setattr(remembered_module, "monotonic", lambda: now)
    source = Source()
    source.goes_on.set()
    remembered = Remembered(source.fetch, seconds=3600, renewals_apart=60)
    first = await remembered.get()
    assert await asyncio.gather(*(remembered.renewed(first) for _ in range(5))) == [2] * 5
    assert await remembered.renewed(2) == 2
    now += 61
    source.fails = SignInFailed
    with pytest.raises(SignInFailed):
        await remembered.renewed(2)
    assert await remembered.renewed(2) == 2
    assert source.asked == 3


# --- HTTP -------------------------------------------------------------------------------------------------------------
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "SECONDS", 0.3)


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
async def test_answer_that_never_comes_is_given_up() -> None:
    with pytest.raises(ProviderUnreachable):
        await fetched(answering(b"HTTP/1.1 200 OK", b"", pause=5))


@pytest.mark.usefixtures("quick")
async def test_answer_that_drips_is_given_up() -> None:
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
async def test_provider_that_cannot_now_is_unreachable(answer: bytes) -> None:
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
async def test_other_answers_are_refused(head: bytes) -> None:
    with pytest.raises(SignInFailed):
        await fetched(answering(head, b'{"a": 1}'))


async def test_answer_that_is_compressed_is_refused_before_it_is_unpacked() -> None:
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
async def test_what_is_no_json_object_of_moderate_size_is_refused(body: bytes) -> None:
    with pytest.raises(SignInFailed):
        await fetched(answering(OK, body))
