"""Sign-in with a provider by links alone: the pages that lead a browser there and back to the app."""

from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from accord_gateway.server.gateway import Gateway
from accord_gateway.settings import Settings
from tests.api.conftest import Client
from tests.api.hostile_provider import Provider
from tests.api.web import Response, fetch

REDIRECT_URI = "https://api.example.com/sign-in/callback"
APP = "https://app.example.com"
SESSION, PENDING = "__Host-session", "__Host-provider-sign-in"
NAVIGATION = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}


@pytest.fixture
def gateway_settings(provider: Provider) -> Settings:
    return Settings(
        port=0,
        metrics_port=0,
        server="accord",
        app_url=APP,
        session_cookies=True,
        providers={"corp": provider.settings()},
        provider_redirect_uris=(REDIRECT_URI, f"{APP}/signed-in"),
    )


@dataclass
class Browser:
    """Follows links from other sites, and keeps cookies."""

    address: str
    cookies: dict[str, str] = field(default_factory=dict)

    async def open(self, target: str, **headers: str) -> Response:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        own = (
            NAVIGATION
            | ({"cookie": cookie} if cookie else {})
            | {name.replace("_", "-"): v for name, v in headers.items()}
        )
        response = await fetch(self.address, "GET", target, None, own)
        for name, value in response.headers:
            if name == "set-cookie":
                key, _, content = value.partition(";")[0].partition("=")
                assert value.endswith(("Max-Age=600", "Max-Age=0")) or key == SESSION
                assert "; Path=/; Secure; HttpOnly; SameSite=Lax" in value
                if content:
                    self.cookies[key] = content
                else:
                    self.cookies.pop(key, None)
        return response

    async def begin(self, provider: Provider, query: str = "") -> str:
        """Signs in at the provider, and returns where it leads back to."""
        response = await self.open(f"/sign-in/with/corp{query}")
        assert response.status == 303
        url = str(response.header("location"))
        assert parse_qs(urlsplit(url).query)["redirect_uri"] == [REDIRECT_URI]
        back = provider.sign_in(url)
        return "/sign-in/callback?" + urlencode({"code": back["code"], "state": back["state"], "iss": back["issuer"]})


@pytest.fixture
def browser(client: Client, gateway: tuple[Gateway, str]) -> Browser:
    return Browser(gateway[1])


async def test_user_lands_on_the_app_with_a_session(browser: Browser, provider: Provider) -> None:
    back = await browser.begin(provider, "?return_to=/tasks%3Fmine%3D1")
    response = await browser.open(back)
    assert (response.status, response.header("location")) == (303, f"{APP}/tasks?mine=1")
    assert response.header("referrer-policy") == "no-referrer"
    assert browser.cookies.keys() == {SESSION}
    own = {"cookie": f"{SESSION}={browser.cookies[SESSION]}", "sec-fetch-site": "same-origin"}
    account = (await fetch(browser.address, "GET", "/v1/session", None, own)).json["account"]
    assert account["email"] == provider.email


async def test_user_lands_on_the_first_page_by_default(browser: Browser, provider: Provider) -> None:
    response = await browser.open(await browser.begin(provider))
    assert response.header("location") == f"{APP}/"


@pytest.mark.parametrize(
    "return_to", ["https://evil.example", "//evil.example", "/\\evil.example", "tasks", "", "/a\tb", "/" + "x" * 1000]
)
async def test_user_never_lands_elsewhere(browser: Browser, return_to: str) -> None:
    response = await browser.open("/sign-in/with/corp?" + urlencode({"return_to": return_to}))
    assert response.header("location") == f"{APP}/sign-in#error=INVALID_MESSAGE"
    assert browser.cookies == {}


async def test_sign_in_is_completed_by_the_browser_that_began_it(browser: Browser, provider: Provider) -> None:
    """Otherwise an attacker could sign a victim in to the attacker's account."""
    back = await browser.begin(provider)
    for victim in (Browser(browser.address), Browser(browser.address, {PENDING: "x.Lw"})):
        response = await victim.open(back)
        assert str(response.header("location")).startswith(f"{APP}/sign-in#error=")
        assert SESSION not in victim.cookies
    assert (await browser.open(back)).header("location") == f"{APP}/"


async def test_sign_in_is_completed_once(browser: Browser, provider: Provider) -> None:
    back = await browser.begin(provider)
    pending = dict(browser.cookies)
    await browser.open(back)
    replay = Browser(browser.address, pending)
    assert str((await replay.open(back)).header("location")).startswith(f"{APP}/sign-in#error=")
    assert SESSION not in replay.cookies


@pytest.mark.parametrize("query", ["", "?error=access_denied&state=x", "?code=a&code=b&state=x", "?code=%ff&state=x"])
async def test_sign_in_that_the_provider_did_not_grant_leads_to_the_sign_in_page(
    browser: Browser, provider: Provider, query: str
) -> None:
    await browser.begin(provider)
    response = await browser.open(f"/sign-in/callback{query}")
    assert str(response.header("location")).startswith(f"{APP}/sign-in#error=")
    assert browser.cookies == {}


async def test_provider_that_is_not_configured_has_no_page(browser: Browser) -> None:
    assert (await browser.open("/sign-in/with/other")).status == 404
