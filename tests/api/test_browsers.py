"""What browsers need: cross-origin requests, and sessions in cookies."""

from dataclasses import dataclass, field

import pytest
from google.protobuf.message import Message

from accord.accounts.v1.accounts_pb2 import GetSessionRequest, SignInRequest, SignOutRequest
from accord_gateway.server.gateway import Gateway
from accord_gateway.settings import Settings
from tests.api.conftest import Client
from tests.api.signing_in import EMAIL, PASSWORD, sign_in, sign_up
from tests.api.web import Response, fetch
from tests.factories import Person

APP = "https://app.example.com"
EVIL = "https://evil.example.com"
COOKIE = "__Host-session"
OWN_SITE = {"sec-fetch-site": "same-origin"}


def settings(*, origins: tuple[str, ...] = (), cookies: bool = False) -> Settings:
    return Settings(port=0, metrics_port=0, server="accord", allowed_origins=origins, session_cookies=cookies)


DENIED = settings()
LISTED = settings(origins=(APP,))
COOKIES = settings(origins=(APP,), cookies=True)

denied_by_default = pytest.mark.parametrize("gateway_settings", [DENIED])
with_a_listed_origin = pytest.mark.parametrize("gateway_settings", [LISTED])
with_cookies = pytest.mark.parametrize("gateway_settings", [COOKIES])


@dataclass
class Browser:
    """A page of `site`'s, and the session cookie."""

    address: str
    site: dict[str, str] = field(default_factory=lambda: dict(OWN_SITE))
    token: str = ""

    async def __call__(self, method: str, target: str, body: object = None, **headers: str) -> Response:
        own = self.site | {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            own["cookie"] = f"theme=dark; {COOKIE}={self.token}"
        return await fetch(self.address, method, target, body, own)

    async def sign_in(self) -> Response:
        response = await self("POST", "/v1/sessions", {"email": EMAIL, "password": PASSWORD})
        assert response.status == 200, response
        self.token = cookie_of(response) or ""
        return response


def cookie_of(response: Response) -> str | None:
    """The value that the response sets. None if it sets none."""
    if (cookie := response.header("set-cookie")) is None:
        return None
    name, _, value = cookie.partition(";")[0].partition("=")
    assert name == COOKIE
    return value


@pytest.fixture
async def browser(client: Client, gateway: tuple[Gateway, str]) -> Browser:
    """The user EMAIL has an account."""
    await sign_up(client)
    return Browser(gateway[1])


def cors(response: Response) -> dict[str, str]:
    return {
        name.removeprefix("access-control-"): value for name, value in response.headers if name.startswith("access-")
    }


# --- cross-origin requests --------------------------------------------------------------------------------------------
@denied_by_default
async def test_no_origin_is_allowed_by_default(gateway: tuple[Gateway, str], me: Person) -> None:
    asks = {"origin": APP, "access-control-request-method": "GET"}
    for response in (
        await fetch(gateway[1], "OPTIONS", "/v1/tasks", None, asks),
        await fetch(gateway[1], "GET", "/v1/tasks", None, {"origin": APP} | dict(me.headers)),
    ):
        assert cors(response) == {}


@with_a_listed_origin
async def test_preflight_of_a_listed_origin_says_what_pages_may_send(gateway: tuple[Gateway, str]) -> None:
    for path in ("/v1/tasks", "/accord.tasks.v1.TaskService/GetTask", "/anything"):
        asks = {"origin": APP, "access-control-request-method": "PATCH"}
        response = await fetch(gateway[1], "OPTIONS", path, None, asks)
        assert (response.status, response.header("vary"), response.body) == (204, "origin", b"")
        allowed = cors(response)
        assert (allowed["allow-origin"], allowed["max-age"]) == (APP, "7200")
        assert {"PATCH", "DELETE"} <= set(allowed["allow-methods"].split(", "))
        assert {"authorization", "content-type", "if-match", "connect-protocol-version", "x-grpc-web"} <= set(
            allowed["allow-headers"].split(", ")
        )
        assert "allow-credentials" not in allowed


@with_a_listed_origin
@pytest.mark.parametrize("origin", [EVIL, "null", f"{APP}.evil.example", f"{APP}:8443", "http://app.example.com", "*"])
async def test_other_origins_are_not_allowed(gateway: tuple[Gateway, str], me: Person, origin: str) -> None:
    asks = {"origin": origin, "access-control-request-method": "GET"}
    preflight = await fetch(gateway[1], "OPTIONS", "/v1/tasks", None, asks)
    assert (preflight.status, cors(preflight)) == (403, {})
    response = await fetch(gateway[1], "GET", "/v1/tasks", None, {"origin": origin} | dict(me.headers))
    assert (cors(response), response.header("vary")) == ({}, "origin")


@with_a_listed_origin
async def test_pages_of_a_listed_origin_read_responses_and_errors(gateway: tuple[Gateway, str], me: Person) -> None:
    for headers, status in ((dict(me.headers), 200), ({}, 401)):
        response = await fetch(gateway[1], "GET", "/v1/tasks", None, {"origin": APP} | headers)
        assert (response.status, response.header("vary")) == (status, "origin")
        assert cors(response)["allow-origin"] == APP
        assert {"etag", "x-request-id", "retry-after", "grpc-status"} <= set(
            cors(response)["expose-headers"].split(", ")
        )


@with_cookies
async def test_credentials_are_allowed_with_cookies_alone(gateway: tuple[Gateway, str]) -> None:
    asks = {"origin": APP, "access-control-request-method": "GET"}
    assert cors(await fetch(gateway[1], "OPTIONS", "/v1/tasks", None, asks))["allow-credentials"] == "true"


# --- sessions in cookies ----------------------------------------------------------------------------------------------
@denied_by_default
async def test_cookies_have_no_meaning_by_default(browser: Browser) -> None:
    response = await browser("POST", "/v1/sessions", {"email": EMAIL, "password": PASSWORD})
    assert cookie_of(response) is None
    browser.token = response.json["sessionToken"]
    assert (await browser("GET", "/v1/session")).reason == "CREDENTIAL_MISSING"


@with_cookies
async def test_sign_in_sets_the_cookie_and_leaves_the_token_out(browser: Browser) -> None:
    response = await browser.sign_in()
    assert response.json["sessionToken"] == ""
    cookie = str(response.header("set-cookie"))
    assert browser.token
    assert browser.token.encode() not in response.body
    assert cookie.startswith(f"{COOKIE}={browser.token}; Path=/; Secure; HttpOnly; SameSite=Lax; Expires=")
    assert (await browser("GET", "/v1/session")).json["session"]["id"] == response.json["session"]["id"]


@pytest.mark.grpc
@with_cookies
async def test_grpc_returns_the_token(browser: Browser, client: Client) -> None:
    assert (await sign_in(client)).session_token


@with_cookies
async def test_sign_out_ends_the_session_and_clears_the_cookie(browser: Browser) -> None:
    await browser.sign_in()
    response = await browser("DELETE", "/v1/session")
    assert (response.status, cookie_of(response)) == (200, "")
    assert "Max-Age=0" in str(response.header("set-cookie"))
    assert (await browser("GET", "/v1/session")).reason == "CREDENTIAL_INVALID"


@with_cookies
async def test_refused_sign_in_sets_no_cookie(browser: Browser) -> None:
    response = await browser("POST", "/v1/sessions", {"email": EMAIL, "password": "wrong horse battery"})
    assert (response.reason, cookie_of(response)) == ("SIGN_IN_REFUSED", None)


@with_cookies
async def test_new_token_of_a_session_replaces_the_cookie(browser: Browser) -> None:
    await browser.sign_in()
    old = browser.token
    response = await browser("POST", "/v1/session:reauthenticate", {"password": PASSWORD})
    assert (response.status, response.json["sessionToken"]) == (200, "")
    browser.token = cookie_of(response) or ""
    assert browser.token not in ("", old)
    assert (await browser("GET", "/v1/session")).status == 200


@with_cookies
async def test_cookie_together_with_another_credential_is_ambiguous(browser: Browser, me: Person) -> None:
    await browser.sign_in()
    for credential in ({"authorization": me.headers[0][1]}, {"x_api_key": "a"}):
        assert (await browser("GET", "/v1/session", **credential)).reason == "CREDENTIAL_AMBIGUOUS"
    browser.token += f"; {COOKIE}={browser.token}"
    assert (await browser("GET", "/v1/session")).reason == "CREDENTIAL_AMBIGUOUS"


@with_cookies
@pytest.mark.parametrize(
    "site",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": EVIL},
        {"origin": EVIL},
        {"origin": "null"},
    ],
)
async def test_other_sites_cannot_use_the_cookie(browser: Browser, site: dict[str, str]) -> None:
    await browser.sign_in()
    browser.site = site
    for method, target in (("GET", "/v1/session"), ("DELETE", "/v1/session"), ("POST", "/v1/tasks")):
        body = {"title": "a"} if method == "POST" else None
        response = await browser(method, target, body)
        assert (response.status, response.reason) == (403, "CROSS_SITE_REQUEST")
    browser.site = OWN_SITE
    assert (await browser("GET", "/v1/tasks")).json["tasks"] == []


@with_cookies
@pytest.mark.parametrize(
    "site", [{"sec-fetch-site": "none"}, {"origin": APP}, {"sec-fetch-site": "same-site", "origin": APP}]
)
async def test_own_and_listed_pages_use_the_cookie(browser: Browser, site: dict[str, str]) -> None:
    await browser.sign_in()
    browser.site = site
    assert (await browser("POST", "/v1/tasks", {"title": "a"})).status == 200


@with_cookies
async def test_cookie_without_a_word_about_the_site_only_reads(browser: Browser) -> None:
    await browser.sign_in()
    browser.site = {}
    assert (await browser("GET", "/v1/session")).status == 200
    assert (await browser("POST", "/v1/tasks", {"title": "a"})).reason == "CROSS_SITE_REQUEST"


@with_cookies
async def test_other_sites_cannot_sign_the_user_in(browser: Browser) -> None:
    """They would make the user work in the attacker's account."""
    browser.site = {"sec-fetch-site": "cross-site", "origin": EVIL}
    response = await browser("POST", "/v1/sessions", {"email": EMAIL, "password": PASSWORD})
    assert (response.reason, cookie_of(response)) == ("CROSS_SITE_REQUEST", None)


@with_cookies
async def test_calls_with_a_token_need_no_site(browser: Browser, me: Person) -> None:
    browser.site = {"sec-fetch-site": "cross-site", "origin": EVIL}
    assert (await browser("POST", "/v1/tasks", {"title": "a"}, **dict(me.headers))).status == 200


@with_cookies
async def test_broken_cookie_does_not_keep_the_user_from_signing_in(browser: Browser) -> None:
    browser.token = "acs_unknown"
    await browser.sign_in()
    assert (await browser("GET", "/v1/session")).status == 200


# --- the other protocols of browsers ----------------------------------------------------------------------------------
CONNECT = "/accord.accounts.v1.AccountService/"


@with_cookies
async def test_connect_keeps_the_session_in_the_cookie(browser: Browser) -> None:
    signed_in = await browser("POST", f"{CONNECT}SignIn", {"email": EMAIL, "password": PASSWORD})
    assert signed_in.json["sessionToken"] == ""
    browser.token = cookie_of(signed_in) or ""
    assert (await browser("POST", f"{CONNECT}GetSession", {})).status == 200
    assert (await browser("GET", f"{CONNECT}GetSession?encoding=json&message=%7B%7D")).status == 200
    browser.site = {"sec-fetch-site": "cross-site", "origin": EVIL}
    for method, target, body in (
        ("POST", f"{CONNECT}GetSession", {}),
        ("GET", f"{CONNECT}GetSession?encoding=json&message=%7B%7D", None),
    ):
        response = await browser(method, target, body)
        assert (response.status, response.json["code"]) == (403, "permission_denied")
    browser.site = OWN_SITE
    assert cookie_of(await browser("POST", f"{CONNECT}SignOut", {})) == ""


@with_cookies
async def test_grpc_web_keeps_the_session_in_the_cookie(browser: Browser) -> None:
    async def call(method: str, request: Message) -> Response:
        data = request.SerializeToString()
        body = b"\0" + len(data).to_bytes(4, "big") + data
        return await browser("POST", f"{CONNECT}{method}", body, content_type="application/grpc-web+proto")

    signed_in = await call("SignIn", SignInRequest(email=EMAIL, password=PASSWORD))
    browser.token = cookie_of(signed_in) or ""
    assert browser.token.startswith("acs_")
    assert browser.token.encode() not in signed_in.body
    assert b"grpc-status: 0" in (await call("GetSession", GetSessionRequest())).body
    assert cookie_of(await call("SignOut", SignOutRequest())) == ""
