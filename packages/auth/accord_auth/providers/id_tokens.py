"""ID tokens: verified by joserfc, and believed only if every claim holds (OpenID Connect Core 1.0, 3.1.3.7; RFC 8725)."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from accord_auth.providers.encodings import StrictDecoder, base64url, from_base64url, read_object
from accord_auth.providers.faults import SignInFailed
from accord_auth.providers.signing_keys import ALGORITHMS

# How far the provider's clock may be from ours, in seconds.
LEEWAY: Final = 60
# How long ago, in seconds, a token that was just handed out may have been made.
OLDEST: Final = 600

_LONGEST_SUBJECT: Final = 255
_LAST_TIME: Final = 253_402_300_799  # the end of the year 9999


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a token has to say to be meant for us, now."""

    issuer: str
    client_id: str
    # None where there was no sign-in: then no nonce is looked at.
    nonce: str | None
    access_token: str


@dataclass(frozen=True, slots=True)
class Header:
    algorithm: str
    kid: str | None


def read_header(token: str, algorithms: frozenset[str]) -> Header:
    """Before anything is verified: by whom it says to be signed. Raises SignInFailed."""
    try:
        head, payload, signature = token.split(".")
        header = read_object(from_base64url(head))
        from_base64url(payload)
        from_base64url(signature)
    except ValueError:
        raise SignInFailed("the ID token is no JWT") from None
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise SignInFailed("the ID token is signed with an algorithm that is not accepted")
    if "crit" in header or "b64" in header or not _is_jwt(header.get("typ", "JWT")):
        raise SignInFailed("the ID token's header asks for what is not an ID token")
    if kid is not None and not isinstance(kid, str):
        raise SignInFailed("the ID token's kid is no text")
    return Header(algorithm, kid)


def verify(token: str, key: Key, header: Header, expected: Expected) -> dict[str, Any]:
    """The claims. Raises SignInFailed."""
    try:
        claims = jwt.decode(token, key, registry=_Accepted(), decoder_cls=StrictDecoder).claims
    except (JoseError, ValueError, RecursionError) as error:
        raise SignInFailed(f"the ID token does not verify: {type(error).__name__}") from None
    _check_parties(claims, expected)
    _check_times(claims, time())
    if expected.nonce is not None and not _is_equal(claims.get("nonce"), expected.nonce):
        raise SignInFailed("the ID token has another nonce")
    if "at_hash" in claims and not _is_equal(claims["at_hash"], _half_hash(header, expected.access_token)):
        raise SignInFailed("the ID token belongs to another access token")
    return claims


def _check_parties(claims: Mapping[str, Any], expected: Expected) -> None:
    if claims.get("iss") != expected.issuer:
        raise SignInFailed("the ID token is from another issuer")
    # No other audience is one that we trust, so there may be none.
    if claims.get("aud") not in (expected.client_id, [expected.client_id]):
        raise SignInFailed("the ID token is for another audience")
    if claims.get("azp", expected.client_id) != expected.client_id:
        raise SignInFailed("the ID token was made for another client")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= _LONGEST_SUBJECT:
        raise SignInFailed("the ID token has no subject")
    if not subject.isascii() or not subject.isprintable():
        raise SignInFailed("the ID token has a subject that is no printable ASCII")


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    if _time(claims, "exp") <= now - LEEWAY:
        raise SignInFailed("the ID token has expired")
    if not now - OLDEST - LEEWAY <= _time(claims, "iat") <= now + LEEWAY:
        raise SignInFailed("the ID token was not made just now")
    if "nbf" in claims and _time(claims, "nbf") > now + LEEWAY:
        raise SignInFailed("the ID token is not good yet")


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_TIME:
        raise SignInFailed(f"the ID token's {name} is no time")
    return value


def _is_equal(value: object, expected: str) -> bool:
    return isinstance(value, str) and value.isascii() and hmac.compare_digest(value, expected)


def _half_hash(header: Header, access_token: str) -> str:
    """OpenID Connect Core 1.0, 3.1.3.6."""
    digest = ALGORITHMS[header.algorithm].hash(access_token.encode()).digest()
    return base64url(digest[: len(digest) // 2])


def _is_jwt(kind: object) -> bool:
    return isinstance(kind, str) and kind.lower() in ("jwt", "application/jwt")


class _Accepted(JWSRegistry):
    """The algorithms of ours. Unknown headers are ignored (RFC 7515, 4), those that are critical were refused before."""

    def __init__(self) -> None:
        super().__init__(strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        # joserfc's own warns of EdDSA on each use, since RFC 9864 has a new name for it: providers have not.
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]
