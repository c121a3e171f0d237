"""One provider: where to send people, and what to make of what they come back with."""

import re
from typing import Any, Final
from urllib.parse import quote_plus

import httpx2

from accord_auth.providers import id_tokens
from accord_auth.providers.faults import GrantRefused, SignInFailed
from accord_auth.providers.http import Http, OAuthError, answered_object, json_object
from accord_auth.providers.id_tokens import Expected
from accord_auth.providers.metadata import Metadata, metadata_address, read_metadata
from accord_auth.providers.proofs import Identity, Proof, Tokens
from accord_auth.providers.remembered import Remembered
from accord_auth.providers.settings import ProviderSettings
from accord_auth.providers.sign_in_secrets import SignInSecrets
from accord_auth.providers.signing_keys import SigningKeys

_REMEMBERED: Final = 3600.0  # seconds, for metadata and keys
_RENEWED_AT_MOST_EVERY: Final = 60.0  # seconds, for keys that an unknown kid asks for


class Provider:
    """One per process and provider: its metadata and keys are remembered."""

    def __init__(self, settings: ProviderSettings, http: Http, *, insecure_loopback: bool) -> None:
        self.settings = settings
        self._http = http
        self._insecure_loopback = insecure_loopback
        self._metadata = Remembered(self._fetch_metadata, seconds=_REMEMBERED)
        self._keys = Remembered(self._fetch_keys, seconds=_REMEMBERED, renewals_apart=_RENEWED_AT_MOST_EVERY)

    async def prepare(self) -> None:
        """Fetches what can be known before a code is spent, so that a provider that is away spends none."""
        await self._metadata.get()
        await self._keys.get()

    async def authorization_url(self, secrets: SignInSecrets, redirect_uri: str) -> str:
        metadata = await self._metadata.get()
        # Without being asked once more, nobody's provider has to give a refresh token (OpenID Connect Core 1.0, 11).
        parameters = {"prompt": "consent"} if "offline_access" in self.settings.scopes else {}
        async with self._http.client(self.settings) as client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint,
                state=secrets.state,
                nonce=secrets.nonce,
                code_verifier=secrets.code_verifier,
                redirect_uri=redirect_uri,
                scope=list(self.settings.scopes),
                **{**parameters, **self.settings.parameters},
            )
        return str(url)

    async def check_sender(self, issuer: str | None) -> None:
        """Whether the answer at the redirect URI is this provider's and not another's (RFC 9207, 2.4)."""
        metadata = await self._metadata.get()
        if issuer is None and metadata.names_itself:
            raise SignInFailed("its answer does not name the issuer, as it always does")
        if issuer not in (None, metadata.issuer):
            raise SignInFailed("its answer names another issuer")

    async def redeem(self, code: str, secrets: SignInSecrets, redirect_uri: str) -> Proof:
        """Raises SignInFailed, ProviderUnreachable."""
        metadata = await self._metadata.get()
        answer = await self._ask_for_tokens(
            metadata,
            grant_type="authorization_code",
            code=code,
            redirect_uri=redirect_uri,
            code_verifier=secrets.code_verifier,
        )
        tokens = Tokens.answered(answer)
        claims = await self._verified(metadata, answer.get("id_token"), tokens, secrets.nonce)
        subject = claims["sub"]
        if claims.get("email") is None and metadata.userinfo_endpoint:
            claims = await self._user_info(metadata.userinfo_endpoint, tokens, subject)
        identity = Identity.told_by(claims, issuer=metadata.issuer, subject=subject)
        return Proof(self.settings, identity, tokens)

    async def refresh(self, refresh_token: str, *, issuer: str, subject: str) -> Tokens:
        """Raises GrantRefused, SignInFailed, ProviderUnreachable."""
        metadata = await self._metadata.get()
        if metadata.issuer != issuer:
            raise SignInFailed("the refresh token is another issuer's")
        answer = await self._ask_for_tokens(metadata, grant_type="refresh_token", refresh_token=refresh_token)
        tokens = Tokens.answered(answer)
        if (id_token := answer.get("id_token")) is not None:  # OpenID Connect Core 1.0, 12.2
            claims = await self._verified(metadata, id_token, tokens, None)
            if claims["sub"] != subject:
                raise SignInFailed("the refreshed ID token is of another subject")
        return tokens

    async def _ask_for_tokens(self, metadata: Metadata, **grant: str) -> dict[str, Any]:
        async with self._http.client(self.settings) as client:
            client.register_compliance_hook("access_token_response", _check_answer)
            try:
                answer: dict[str, Any] = await client.fetch_token(
                    metadata.token_endpoint, auth=self._client_auth(metadata, client), **grant
                )
            except OAuthError as error:
                if error.error == "invalid_grant":
                    raise GrantRefused("its token endpoint takes the grant no more") from None
                raise SignInFailed(f"its token endpoint answered {_shown(error.error)}") from None
            except (TypeError, ValueError, OverflowError):  # what authlib makes of an odd expires_in
                raise SignInFailed("its token endpoint's answer cannot be used") from None
        return answer

    def _client_auth(self, metadata: Metadata, client: Any) -> httpx2.Auth:
        method = metadata.client_authentication
        if method != "client_secret_basic":
            auth: httpx2.Auth = client.client_auth(method)
            return auth
        # authlib's own leaves out the encoding that both must have before they are joined (RFC 6749, 2.3.1).
        return httpx2.BasicAuth(quote_plus(self.settings.client_id), quote_plus(self.settings.client_secret))

    async def _verified(
        self, metadata: Metadata, id_token: object, tokens: Tokens, nonce: str | None
    ) -> dict[str, Any]:
        if not isinstance(id_token, str):
            raise SignInFailed("there is no ID token in its answer")
        header = id_tokens.read_header(id_token, metadata.algorithms)
        keys = await self._keys.get()
        key = keys.find(header.algorithm, header.kid)
        if key is None:
            keys = await self._keys.renewed(keys)
            key = keys.find(header.algorithm, header.kid)
        if key is None:
            raise SignInFailed("none of its keys can have signed the ID token")
        expected = Expected(
            issuer=metadata.issuer,
            client_id=self.settings.client_id,
            nonce=nonce,
            access_token=tokens.access_token,
        )
        return id_tokens.verify(id_token, key, header, expected)

    async def _user_info(self, endpoint: str, tokens: Tokens, subject: str) -> dict[str, Any]:
        """What the ID token did not say. The subject must be the same: OpenID Connect Core 1.0, 5.3.2."""
        claims = await self._http.get_object(self.settings, endpoint, access_token=tokens.access_token)
        if claims.get("sub") != subject:
            raise SignInFailed("its user info is of another subject")
        return claims

    async def _fetch_metadata(self) -> Metadata:
        document = await self._http.get_object(self.settings, metadata_address(self.settings.issuer))
        return read_metadata(document, issuer=self.settings.issuer, insecure_loopback=self._insecure_loopback)

    async def _fetch_keys(self) -> SigningKeys:
        metadata = await self._metadata.get()
        return SigningKeys(await self._http.get_object(self.settings, metadata.jwks_uri))


def _check_answer(response: httpx2.Response) -> httpx2.Response:
    """Before authlib, which reads more loosely. An error of OAuth is an answer, too, and says what was wrong."""
    if response.status_code in (400, 401):
        error = json_object(response).get("error")
        raise OAuthError(error if isinstance(error, str) else "no error code")
    answered_object(response)
    return response


def _shown(error: str) -> str:
    return error if re.fullmatch(r"[a-z_]{1,50}", error) else "an error"
