"""The tokens of services: JWTs (RFC 9068), signed by us, and believed only if every claim holds (RFC 8725)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from joserfc import jws, jwt
from joserfc.errors import JoseError

from accord_auth.services.signing_keys import ALGORITHM, Signer, SigningKeys
from accord_db.engine.ids import uuid7

LIFETIME: Final = timedelta(minutes=5)
# That of an access token (RFC 9068, 2.1), so that no other JWT is taken for one.
_TYPE: Final = "at+jwt"
_LONGEST: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class ActingFor:
    """The person for whom a service acts, and the session in which they asked it to."""

    account_id: UUID
    session_id: UUID
    organization_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceToken:
    """What a token says. The service acts for itself where it acts for nobody."""

    service_account_id: UUID
    acting_for: ActingFor | None
    issued_at: datetime
    expires_at: datetime


class ServiceTokens:
    """Signs tokens for anybody, and verifies those that are for `audience`: this installation."""

    def __init__(self, keys: SigningKeys, *, issuer: str, audience: str) -> None:
        self.keys = keys
        self._issuer = issuer
        self._audience = audience

    def sign(
        self, signer: Signer, *, service_account_id: UUID, audience: str, acting_for: ActingFor | None = None
    ) -> str:
        now = int(datetime.now(UTC).timestamp())
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
        """None if it is not one of ours, not for us, or expired. Whether those that it names are still good is another
        question."""
        kid = _kid(token)
        key = await self.keys.find(kid) if kid else None
        if key is None:
            return None
        try:
            claims = jwt.decode(token, key, [ALGORITHM]).claims
            return _read(claims) if self._is_for_us(claims) else None
        except (JoseError, ValueError, TypeError, KeyError, OverflowError):
            return None

    def _is_for_us(self, claims: Mapping[str, Any]) -> bool:
        now = datetime.now(UTC).timestamp()
        return (claims["iss"], claims["aud"]) == (self._issuer, self._audience) and now < float(claims["exp"])


def _parties(service_account_id: UUID, acting_for: ActingFor | None) -> dict[str, Any]:
    """Who is acted for, and who acts (RFC 8693, 4.1)."""
    if acting_for is None:
        return {"sub": str(service_account_id)}
    return {
        "sub": str(acting_for.account_id),
        "act": {"sub": str(service_account_id)},
        "sid": str(acting_for.session_id),
        **({"org": str(acting_for.organization_id)} if acting_for.organization_id else {}),
    }


def _kid(token: str) -> str | None:
    """By whom it says to be signed, before anything is verified. None if it is no token that we could have made."""
    if len(token) > _LONGEST or not token.isascii():
        return None
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError):
        return None
    kid = header.get("kid")
    return kid if header.get("alg") == ALGORITHM and header.get("typ") == _TYPE and isinstance(kid, str) else None


def _read(claims: Mapping[str, Any]) -> ServiceToken:
    """Raises ValueError, TypeError or KeyError if it does not say who is meant."""
    client, subject = UUID(claims["client_id"]), UUID(claims["sub"])
    actor = UUID(claims["act"]["sub"]) if "act" in claims else subject
    if actor != client:
        raise ValueError("the client is not the one that acts")
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
