"""One provider: the authorization request, and the exchange of codes and refresh tokens."""

import re
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote_plus

import httpx2

from accord_auth.providers import id_tokens
from accord_auth.providers.errors import GrantRefused, SignInFailed
from accord_auth.providers.http import Http, OAuthError, json_object, response_object
from accord_auth.providers.id_tokens import Expected
from accord_auth.providers.metadata import Metadata, metadata_address, read_metadata
from accord_auth.providers.provider_identity import Identity, Proof, ProviderSettings, Tokens
from accord_auth.providers.provider_keys import ProviderKeys
from accord_auth.providers.ttl_cache import TtlCache
from accord_db.engine.clock import DatabaseClock

_TTL: Final = 3600.0  # seconds, for metadata and keys
_MIN_REFRESH_INTERVAL: Final = 60.0  # seconds; any ID token with an unknown kid refreshes the keys


class Provider:
    """One per process and provider. Caches metadata and keys."""

    def __init__(
        self, settings: ProviderSettings, http: Http, clock: DatabaseClock, *, insecure_loopback: bool
    ) -> None:
        self.settings = settings
        self._http = http
        self._clock = clock
        self._insecure_loopback = insecure_loopback
        self._metadata = TtlCache(self._fetch_metadata, ttl=_TTL)
        self._keys = TtlCache(self._fetch_keys, ttl=_TTL, min_refresh_interval=_MIN_REFRESH_INTERVAL)

    async def prepare(self) -> None:
        """Fetches metadata and keys, so that an unreachable provider does not use up a code."""
        await self._metadata.get()
        await self._keys.get()

    async def authorization_url(self, *, state: str, nonce: str, code_verifier: str, redirect_uri: str) -> str:
        metadata = await self._metadata.get()
        # Required for a refresh token (OpenID Connect Core 1.0, section 11).
        parameters = {"prompt": "consent"} if "offline_access" in self.settings.scopes else {}
        async with self._http.client(self.settings) as client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint,
                state=state,
                nonce=nonce,
                code_verifier=code_verifier,
                redirect_uri=redirect_uri,
                scope=list(self.settings.scopes),
                **{**parameters, **self.settings.parameters},
            )
        return str(url)

    async def check_response_issuer(self, issuer: str | None) -> None:
        """Raises SignInFailed if the authorization response is from another provider (RFC 9207, section 2.4)."""
        metadata = await self._metadata.get()
        if issuer is None and metadata.sends_issuer:
            raise SignInFailed("the authorization response has no issuer")
        if issuer not in (None, metadata.issuer):
            raise SignInFailed("the authorization response is from another issuer")

    async def redeem(self, code: str, *, nonce: str, code_verifier: str, redirect_uri: str) -> Proof:
        """Raises SignInFailed, ProviderUnreachable."""
        metadata = await self._metadata.get()
        response = await self._request_tokens(
            metadata,
            grant_type="authorization_code",
            code=code,
            redirect_uri=redirect_uri,
            code_verifier=code_verifier,
        )
        tokens = Tokens.from_response(response)
        claims = await self._verify(metadata, response.get("id_token"), tokens, nonce)
        subject = claims["sub"]
        if claims.get("email") is None and metadata.userinfo_endpoint:
            claims = await self._user_info(metadata.userinfo_endpoint, tokens, subject)
        identity = Identity.from_claims(claims, issuer=metadata.issuer, subject=subject)
        if tokens.scopes is None:  # those that were requested (RFC 6749, section 5.1)
            tokens = replace(tokens, scopes=self.settings.scopes)
        return Proof(self.settings, identity, tokens)

    async def refresh(self, refresh_token: str, *, issuer: str, subject: str) -> Tokens:
        """Raises GrantRefused, SignInFailed, ProviderUnreachable."""
        metadata = await self._metadata.get()
        if metadata.issuer != issuer:
            raise SignInFailed("the refresh token is from another issuer")
        response = await self._request_tokens(metadata, grant_type="refresh_token", refresh_token=refresh_token)
        tokens = Tokens.from_response(response)
        if (id_token := response.get("id_token")) is not None:  # OpenID Connect Core 1.0, section 12.2
            claims = await self._verify(metadata, id_token, tokens, None)
            if claims["sub"] != subject:
                raise SignInFailed("the refreshed ID token has another subject")
        return tokens

    async def _request_tokens(self, metadata: Metadata, **grant: str) -> dict[str, Any]:
        async with self._http.client(self.settings) as client:
            client.register_compliance_hook("access_token_response", _check_response)
            try:
                response: dict[str, Any] = await client.fetch_token(
                    metadata.token_endpoint, auth=self._client_auth(metadata, client), **grant
                )
            except OAuthError as error:
                if error.error == "invalid_grant":
                    raise GrantRefused("its token endpoint responded invalid_grant") from None
                raise SignInFailed(f"its token endpoint responded {_printable(error.error)}") from None
            except (TypeError, ValueError, OverflowError):  # raised by authlib for an invalid expires_in
                raise SignInFailed("its token endpoint returned an invalid response") from None
        return response

    def _client_auth(self, metadata: Metadata, client: Any) -> httpx2.Auth:
        method = metadata.client_authentication
        if method != "client_secret_basic":
            auth: httpx2.Auth = client.client_auth(method)
            return auth
        # authlib's own does not form-encode the id and the secret (RFC 6749, section 2.3.1).
        return httpx2.BasicAuth(quote_plus(self.settings.client_id), quote_plus(self.settings.client_secret))

    async def _verify(self, metadata: Metadata, id_token: object, tokens: Tokens, nonce: str | None) -> dict[str, Any]:
        if not isinstance(id_token, str):
            raise SignInFailed("its token endpoint returned no ID token")
        header = id_tokens.read_header(id_token, metadata.algorithms)
        keys = await self._keys.get()
        key = keys.find(header.algorithm, header.kid)
        if key is None:
            keys = await self._keys.refresh(keys)
            key = keys.find(header.algorithm, header.kid)
        if key is None:
            raise SignInFailed("none of its keys fits the ID token")
        expected = Expected(
            issuer=metadata.issuer,
            client_id=self.settings.client_id,
            trusted_audiences=self.settings.trusted_audiences,
            nonce=nonce,
            access_token=tokens.access_token,
        )
        return id_tokens.verify(id_token, key, header, expected, now=self._clock.now().timestamp())

    async def _user_info(self, endpoint: str, tokens: Tokens, subject: str) -> dict[str, Any]:
        """The subject must be that of the ID token (OpenID Connect Core 1.0, section 5.3.2)."""
        claims = await self._http.get_object(self.settings, endpoint, access_token=tokens.access_token)
        if claims.get("sub") != subject:
            raise SignInFailed("its user info has another subject")
        return claims

    async def _fetch_metadata(self) -> Metadata:
        document = await self._http.get_object(self.settings, metadata_address(self.settings.issuer))
        return read_metadata(document, issuer=self.settings.issuer, insecure_loopback=self._insecure_loopback)

    async def _fetch_keys(self) -> ProviderKeys:
        metadata = await self._metadata.get()
        return ProviderKeys(await self._http.get_object(self.settings, metadata.jwks_uri))


def _check_response(response: httpx2.Response) -> httpx2.Response:
    """Runs before authlib's parser, which is less strict. 400 and 401 have an OAuth error code in the body."""
    if response.status_code in (400, 401):
        error = json_object(response).get("error")
        raise OAuthError(error if isinstance(error, str) else "no error code")
    response_object(response)
    return response


def _printable(error: str) -> str:
    return error if re.fullmatch(r"[a-z_]{1,50}", error) else "an error"
