"""An independent OpenID Connect provider (npm's oidc-provider) on its own port, and a browser that signs in at it."""

import html
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx2
from pydantic import SecretStr

from accord_gateway.setting_values import ProviderEntry
from tests.npm import installed

FOLDER = Path(__file__).parents[1] / "oidc"
REDIRECT_URIS = ("http://127.0.0.1:3000/signed-in", "http://127.0.0.1:3000/linked")


@dataclass(frozen=True)
class OidcProvider:
    issuer: str

    def settings(
        self, client_id: str = "rsa", *, scopes: Sequence[str] = ("openid", "email", "profile")
    ) -> ProviderEntry:
        """Settings for one of the provider's clients, which are named after their signing key."""
        return ProviderEntry(
            issuer=self.issuer,
            client_id=client_id,
            client_secret=SecretStr(f"secret of {client_id}: +/%&="),
            display_name="Corp",
            scopes=tuple(scopes),
        )


@dataclass(frozen=True)
class AuthorizationResponse:
    """The parameters of the redirect URI (RFC 6749, section 4.1.2)."""

    redirect_uri: str
    state: str
    code: str
    issuer: str


@contextmanager
def oidc_provider(*, claims_in_id_token: bool = True, access_token_seconds: int = 600) -> Iterator[OidcProvider]:
    """Claims that are not in the ID token are at the userinfo endpoint (OpenID Connect Core, section 5.4)."""
    node = installed(FOLDER)
    options = {
        "redirectUris": REDIRECT_URIS,
        "claimsInIdToken": claims_in_id_token,
        "accessTokenSeconds": access_token_seconds,
    }
    with subprocess.Popen(
        [node, "server.js", json.dumps(options)],
        cwd=FOLDER,
        text=True,
        stdin=subprocess.PIPE,  # the provider exits when this pipe closes, also if the tests are killed
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        issuer = process.stdout.readline().strip()
        assert issuer, "the provider did not start"
        yield OidcProvider(issuer)
        process.terminate()


async def sign_in_at_provider(authorization_url: str, name: str) -> AuthorizationResponse:
    """Opens the URL, signs in as `name`, consents, and follows the redirects back to the client."""
    async with httpx2.AsyncClient(trust_env=False, verify=False) as browser:
        response = await browser.get(authorization_url)
        while True:
            if response.is_redirect:
                location = response.headers["location"]
                if location.startswith(REDIRECT_URIS):
                    return _parse_redirect(location)
                response = await browser.get(response.url.join(location))
                continue
            assert response.status_code == 200, response.text
            form = re.search(r'<form[^>]* action="([^"]+)"[^>]*>(.*?)</form>', response.text, re.DOTALL)
            assert form is not None, response.text
            fields = dict(re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form[2]))
            if 'name="login"' in form[2]:
                fields |= {"login": name, "password": "any will do"}
            response = await browser.post(response.url.join(html.unescape(form[1])), data=fields)


def _parse_redirect(location: str) -> AuthorizationResponse:
    address, query = location.partition("?")[0], dict(parse_qsl(urlsplit(location).query))
    return AuthorizationResponse(address, query["state"], query["code"], query["iss"])
