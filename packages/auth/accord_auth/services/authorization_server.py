"""OAuth 2.0 for services: authlib's authorization server, without a web framework around it.

Its callbacks are synchronous: what they would have to ask the database for is fetched before, and handed in. It says every
token it issues to its own logger, at the level of DEBUG, which no logger of ours hands on.
"""

import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final

from authlib.oauth2.rfc6749 import (  # type: ignore[import-untyped]  # it has no annotations
    AuthorizationServer,
    ClientCredentialsGrant,
    ClientMixin,
    OAuth2Error,
    OAuth2Request,
)
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload  # type: ignore[import-untyped]  # … nor here

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.tokens import token_hash
from accord_db.queries.services import Client
from accord_rpc.errors import RpcError

# What it would be called over HTTP: authlib wants to know, and refuses what is not https.
_ENDPOINT: Final = "https://accord.invalid/token"
_GRANT: Final = ClientCredentialsGrant.GRANT_TYPE
_AUTHENTICATION: Final = "client_secret_post"
_REASONS: Final = {
    "invalid_client": Reason.REASON_CLIENT_INVALID,
    "invalid_target": Reason.REASON_AUDIENCE_NOT_ALLOWED,
}


def client_credentials(
    client: Client | None, *, client_id: str, client_secret: str, audience: str, sign: Callable[[], str]
) -> str:
    """The token that `sign` makes, for a client that proves to be the one that was found, and has the audience (RFC 6749,
    4.4). Raises Refused."""
    form = {
        "grant_type": _GRANT,
        "client_id": client_id,
        "client_secret": client_secret,
        "audience": audience,
    }
    answer = _Server(client, sign).create_token_response(form)
    if "access_token" not in answer:
        raise RpcError(_REASONS[answer["error"]])
    return str(answer["access_token"])


class _Server(AuthorizationServer):  # type: ignore[misc]  # of no type, as all that is inherited here
    """For one request of one client."""

    def __init__(self, client: Client | None, sign: Callable[[], str]) -> None:
        super().__init__()
        self._client = client
        self.register_grant(_Grant)
        self.register_token_generator(_GRANT, lambda **_: {"token_type": "Bearer", "access_token": sign()})

    def query_client(self, client_id: str) -> "_Service | None":
        return _Service(self._client) if self._client and str(self._client.id) == client_id else None

    def create_oauth2_request(self, request: Mapping[str, str]) -> "_Request":
        return _Request(request)

    def save_token(self, token: Mapping[str, str], request: OAuth2Request) -> None:
        """Nowhere: whoever verifies it needs our public key alone."""

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Nobody listens."""

    def handle_response(self, status: int, body: Any, headers: object) -> dict[str, str]:
        return dict(body)


class _Request(OAuth2Request):  # type: ignore[misc]  # … nor has this one
    def __init__(self, form: Mapping[str, str]) -> None:
        super().__init__("POST", _ENDPOINT)
        self.payload = BasicOAuth2Payload(form)
        self._form = form

    @property
    def form(self) -> Mapping[str, str]:
        return self._form


class _Grant(ClientCredentialsGrant):  # type: ignore[misc]  # … nor has this one
    TOKEN_ENDPOINT_AUTH_METHODS = (_AUTHENTICATION,)

    def validate_token_request(self) -> None:
        super().validate_token_request()
        if self.request.payload.data["audience"] not in self.client.audiences:
            raise OAuth2Error(error="invalid_target")  # RFC 8693, 2.2.2


class _Service(ClientMixin):  # type: ignore[misc]  # … nor has this one
    def __init__(self, client: Client) -> None:
        self.audiences = client.audiences
        self._secret_hashes = [each for each in (client.secret_hash, client.previous_secret_hash) if each]

    def check_client_secret(self, client_secret: str) -> bool:
        shown = token_hash(client_secret)
        return any(hmac.compare_digest(shown, each) for each in self._secret_hashes)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == _AUTHENTICATION

    def check_grant_type(self, grant_type: str) -> bool:
        return bool(grant_type == _GRANT)
