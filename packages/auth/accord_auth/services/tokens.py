"""Tokens of services: JWTs (RFC 9068), signed and verified by this installation (RFC 8725)."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from joserfc import jws, jwt
from joserfc.errors import JoseError

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.services.signing_keys import ALGORITHM, Signer, SigningKeys
from accord_auth.tokens import token_hash
from accord_db.engine.clock import DatabaseClock
from accord_db.engine.ids import uuid7
from accord_db.queries.services import Client
from accord_rpc.errors import RpcError

LIFETIME: Final = timedelta(minutes=5)
# The type of access tokens (RFC 9068, section 2.1). JWTs of other kinds are refused.
_TYPE: Final = "at+jwt"
_MAX_LENGTH: Final = 2048
# Compared in place of a secret that does not exist, so that the time does not depend on whether it does.
_NO_HASH: Final = bytes(32)


def require_client(client: Client | None, *, secret: str, audience: str) -> None:
    """Raises CLIENT_INVALID unless the secret is one of the client's, and AUDIENCE_NOT_ALLOWED unless the client may have
    tokens for the audience (RFC 6749, section 4.4)."""
    hashed = token_hash(secret)
    current = hmac.compare_digest(hashed, (client and client.secret_hash) or _NO_HASH)
    previous = hmac.compare_digest(hashed, (client and client.previous_secret_hash) or _NO_HASH)
    if client is None or not current | previous:
        raise RpcError(Reason.REASON_CLIENT_INVALID)
    if audience not in client.audiences:
        raise RpcError(Reason.REASON_AUDIENCE_NOT_ALLOWED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActingFor:
    """The account that a service acts for, and the session that it exchanged for its token."""

    account_id: UUID
    session_id: UUID
    organization_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceToken:
    """The claims of a token. Without `acting_for` the service acts for itself."""

    service_account_id: UUID
    acting_for: ActingFor | None
    issued_at: datetime
    expires_at: datetime


class ServiceTokens:
    """Signs tokens for any audience. Verifies tokens for `audience`, which is this installation. `iat` and `exp` are on the
    database's clock, so that all gateways agree."""

    def __init__(self, keys: SigningKeys, clock: DatabaseClock, *, issuer: str, audience: str) -> None:
        self.keys = keys
        self._clock = clock
        self._issuer = issuer
        self._audience = audience

    def sign(
        self, signer: Signer, *, service_account_id: UUID, audience: str, acting_for: ActingFor | None = None
    ) -> str:
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": self._issuer,
            "aud": audience,
            "iat": now,
            "exp": now + int(LIFETIME.total_seconds()),
            "jti": str(uuid7()),
            "client_id": str(service_account_id),
            **_parties(service_account_id, acting_for),
        }
        return jwt.encode({"alg": ALGORITHM, "kid": signer.kid, "typ": _TYPE}, claims, signer.key, [ALGORITHM])

    async def verify(self, token: str) -> ServiceToken | None:
        """None if the token is invalid, expired or for another audience. Does not check whether the service and the session
        still exist."""
        kid = _kid(token)
        key = await self.keys.find(kid) if kid else None
        if key is None:
            return None
        try:
            claims = jwt.decode(token, key, [ALGORITHM]).claims
            return _read(claims) if self._is_current(claims) else None
        except (JoseError, ValueError, TypeError, KeyError, OverflowError):
            return None

    def _is_current(self, claims: Mapping[str, Any]) -> bool:
        now = self._clock.now().timestamp()
        return (claims["iss"], claims["aud"]) == (self._issuer, self._audience) and now < float(claims["exp"])


def _parties(service_account_id: UUID, acting_for: ActingFor | None) -> dict[str, Any]:
    """The subject, and the actor if it is another party (RFC 8693, section 4.1)."""
    if acting_for is None:
        return {"sub": str(service_account_id)}
    return {
        "sub": str(acting_for.account_id),
        "act": {"sub": str(service_account_id)},
        "sid": str(acting_for.session_id),
        **({"org": str(acting_for.organization_id)} if acting_for.organization_id else {}),
    }


def _kid(token: str) -> str | None:
    """The unverified id of the signing key. None if the token cannot be one of this installation."""
    if len(token) > _MAX_LENGTH or not token.isascii():
        return None
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError):
        return None
    kid = header.get("kid")
    return kid if header.get("alg") == ALGORITHM and header.get("typ") == _TYPE and isinstance(kid, str) else None


def _read(claims: Mapping[str, Any]) -> ServiceToken:
    """Raises ValueError, TypeError or KeyError unless the parties are well-formed."""
    client, subject = UUID(claims["client_id"]), UUID(claims["sub"])
    actor = UUID(claims["act"]["sub"]) if "act" in claims else subject
    if actor != client:
        raise ValueError("the client is not the actor")
    return ServiceToken(
        service_account_id=client,
        acting_for=_acting_for(claims) if "act" in claims else None,
        issued_at=datetime.fromtimestamp(claims["iat"], UTC),
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
    )


def _acting_for(claims: Mapping[str, Any]) -> ActingFor:
    return ActingFor(
        account_id=UUID(claims["sub"]),
        session_id=UUID(claims["sid"]),
        organization_id=UUID(claims["org"]) if "org" in claims else None,
    )
