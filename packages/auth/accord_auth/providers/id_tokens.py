"""Verification of ID tokens (OpenID Connect Core 1.0, section 3.1.3.7; RFC 8725). joserfc verifies the signature."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from accord_auth.providers.encodings import StrictDecoder, base64url, from_base64url, read_object
from accord_auth.providers.errors import SignInFailed
from accord_auth.providers.provider_keys import ALGORITHMS

# The accepted difference between the clocks, in seconds.
LEEWAY: Final = 60
# The accepted age of a new token, in seconds. Microsoft sets `iat` five minutes into the past.
MAX_AGE: Final = 600

_MAX_SUBJECT: Final = 255
_MAX_TIME: Final = 253_402_300_799  # the end of the year 9999

# Google documents that its ID tokens may omit the scheme (OpenID Connect Core 1.0, section 15.6.2).
_ISSUER_ALIASES: Final = {"accounts.google.com": "https://accounts.google.com"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The values that a token must have."""

    issuer: str
    client_id: str
    trusted_audiences: frozenset[str]
    # None for a refreshed token, which has none.
    nonce: str | None
    access_token: str


@dataclass(frozen=True, slots=True)
class Header:
    algorithm: str
    kid: str | None


def read_header(token: str, algorithms: frozenset[str]) -> Header:
    """The unverified header, which selects the key. Raises SignInFailed."""
    try:
        head, payload, signature = token.split(".")
        header = read_object(from_base64url(head))
        from_base64url(payload)
        from_base64url(signature)
    except ValueError:
        raise SignInFailed("the ID token is not a JWT") from None
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise SignInFailed("the ID token is signed with an algorithm that is not accepted")
    if "crit" in header or "b64" in header or not _is_jwt(header.get("typ", "JWT")):
        raise SignInFailed("the ID token has the header of another kind of token")
    if kid is not None and not isinstance(kid, str):
        raise SignInFailed("the ID token's kid is not a string")
    return Header(algorithm, kid)


def verify(token: str, key: Key, header: Header, expected: Expected, *, now: float) -> dict[str, Any]:
    """Returns the claims. `now` is in seconds since 1970. Raises SignInFailed."""
    try:
        claims = jwt.decode(token, key, registry=_Accepted(), decoder_cls=StrictDecoder).claims
    except (JoseError, ValueError, RecursionError) as error:
        raise SignInFailed(f"the ID token does not verify: {type(error).__name__}") from None
    _check_issuer(claims.get("iss"), expected)
    _check_audience(claims, expected)
    _check_subject(claims.get("sub"))
    _check_times(claims, now)
    if expected.nonce is not None and not _is_equal(claims.get("nonce"), expected.nonce):
        raise SignInFailed("the ID token has another nonce")
    if "at_hash" in claims and not _is_equal(claims["at_hash"], _half_hash(header, expected.access_token)):
        raise SignInFailed("the ID token belongs to another access token")
    return claims


def _check_issuer(issuer: object, expected: Expected) -> None:
    if not isinstance(issuer, str) or _ISSUER_ALIASES.get(issuer, issuer) != expected.issuer:
        raise SignInFailed("the ID token is from another issuer")


def _check_audience(claims: Mapping[str, Any], expected: Expected) -> None:
    """ZITADEL lists every client of a project as an audience, so `azp` is required where there are several: it alone names
    the client that the token was issued to."""
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(each, str) for each in audiences) or expected.client_id not in audiences:
        raise SignInFailed("the ID token is for another audience")
    others = set(audiences) - {expected.client_id}
    if not others <= expected.trusted_audiences:
        raise SignInFailed("the ID token has an audience that is not in trusted_audiences")
    if claims.get("azp", None if others else expected.client_id) != expected.client_id:
        raise SignInFailed("the ID token was issued to another client")


def _check_subject(subject: object) -> None:
    if not isinstance(subject, str) or not 1 <= len(subject) <= _MAX_SUBJECT:
        raise SignInFailed("the ID token has no subject")
    if not subject.isascii() or not subject.isprintable():
        raise SignInFailed("the ID token's subject is not printable ASCII")


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    if _time(claims, "exp") <= now - LEEWAY:
        raise SignInFailed("the ID token has expired")
    if not now - MAX_AGE - LEEWAY <= _time(claims, "iat") <= now + LEEWAY:
        raise SignInFailed("the ID token is not new")
    if "nbf" in claims and _time(claims, "nbf") > now + LEEWAY:
        raise SignInFailed("the ID token is not valid yet")


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TIME:
        raise SignInFailed(f"the ID token's {name} is not a time")
    return value


def _is_equal(value: object, expected: str) -> bool:
    return isinstance(value, str) and value.isascii() and hmac.compare_digest(value, expected)


def _half_hash(header: Header, access_token: str) -> str:
    """OpenID Connect Core 1.0, section 3.1.3.6."""
    digest = ALGORITHMS[header.algorithm].hash(access_token.encode()).digest()
    return base64url(digest[: len(digest) // 2])


def _is_jwt(kind: object) -> bool:
    return isinstance(kind, str) and kind.lower() in ("jwt", "application/jwt")


class _Accepted(JWSRegistry):
    """Ignores unknown headers (RFC 7515, section 4). `read_header` has refused critical ones."""

    def __init__(self) -> None:
        super().__init__(strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        # joserfc's own logs a warning for every EdDSA signature: RFC 9864 renames the algorithm, but providers have not.
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]
