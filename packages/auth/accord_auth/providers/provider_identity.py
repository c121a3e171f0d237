"""A provider's settings, and the result of a sign-in with it: the identity and the tokens."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Self

from accord_auth.providers.errors import SignInFailed

# The format of HTML's e-mail input, which is also the contract's.
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL: Final = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*")
_MAX_EMAIL: Final = 254
# A URI (RFC 3986) that the rules of `Account.image_url` accept.
_CHARACTERS: Final = r"(?:[A-Za-z0-9._~:/@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
_IMAGE_URL: Final = re.compile(
    rf"https://[A-Za-z0-9.-]+(?::[0-9]{{1,5}})?(?:/{_CHARACTERS}*)?(?:\?(?:{_CHARACTERS}|\?)*)?(?:#(?:{_CHARACTERS}|\?)*)?"
)
_MAX_URL: Final = 2048
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,255}")
_MAX_SCOPES: Final = 100
_MAX_NAME: Final = 100
_MAX_TOKEN: Final = 16 * 1024
_MAX_LIFETIME: Final = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """`issuer` is the address of the provider's metadata, and the `iss` of its ID tokens."""

    name: str
    display_name: str
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    # Audiences of ID tokens that are accepted in addition to the client id.
    trusted_audiences: frozenset[str] = frozenset()
    # Additional parameters of the authorization request.
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Identified by issuer and subject. The provider may change the other fields."""

    issuer: str
    subject: str
    email: str | None
    email_verified: bool
    name: str | None
    image_url: str | None = None

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any], *, issuer: str, subject: str) -> Self:
        email = claims.get("email")
        is_email = isinstance(email, str) and len(email) <= _MAX_EMAIL and _EMAIL.fullmatch(email) is not None
        return cls(
            issuer=issuer,
            subject=subject,
            email=email if is_email else None,
            email_verified=is_email and _is_true(claims.get("email_verified")),
            name=_name(claims.get("name")),
            image_url=_image_url(claims.get("picture")),
        )


@dataclass(frozen=True, slots=True)
class Tokens:
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    # None if the provider does not specify it.
    lifetime: timedelta | None
    refresh_lifetime: timedelta | None = None
    # None if they are those that were requested (RFC 6749, section 5.1), or, after a refresh, granted before (section 6).
    scopes: tuple[str, ...] | None = None

    @classmethod
    def from_response(cls, response: Mapping[str, Any]) -> Self:
        """Raises SignInFailed unless the response has a bearer token (RFC 6749, section 5.1)."""
        kind = response.get("token_type")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise SignInFailed("its access token is not a bearer token")
        refresh_token = response.get("refresh_token")
        return cls(
            _token(response.get("access_token")),
            None if refresh_token is None else _token(refresh_token),
            _lifetime(response.get("expires_in")),
            None if refresh_token is None else _refresh_lifetime(response),
            _scopes(response.get("scope")),
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """A completed sign-in."""

    settings: ProviderSettings
    identity: Identity
    tokens: Tokens = field(repr=False)


def _is_true(value: object) -> bool:
    """Amazon Cognito and Apple send booleans as strings. Nothing else is accepted: a verified address can grant access to an
    account."""
    return value is True or (isinstance(value, str) and value == "true")


def _name(name: object) -> str | None:
    """Shortened to a valid display name."""
    if not isinstance(name, str):
        return None
    kept = (character for character in name if unicodedata.category(character) not in ("Cc", "Cs"))
    return "".join(kept).strip()[:_MAX_NAME].strip() or None


def _image_url(url: object) -> str | None:
    """None unless it is what the contract accepts as `image_url`: providers send other addresses too, and a sign-in must not fail
    for a picture."""
    return url if isinstance(url, str) and len(url) <= _MAX_URL and _IMAGE_URL.fullmatch(url) else None


def _scopes(value: object) -> tuple[str, ...] | None:
    """Separated by spaces (RFC 6749, section 3.3). A scope that is too long to be stored, or no scope, is left out: they are
    for display only."""
    if not isinstance(value, str):
        return None
    scopes = dict.fromkeys(scope for scope in value.split(" ") if _SCOPE.fullmatch(scope))
    return tuple(scopes)[:_MAX_SCOPES]


def _refresh_lifetime(response: Mapping[str, Any]) -> timedelta | None:
    """No standard has it: Keycloak and others send `refresh_expires_in`, GitHub and others `refresh_token_expires_in`. Keycloak
    sends 0 for a token that does not expire."""
    for name in ("refresh_token_expires_in", "refresh_expires_in"):
        if value := response.get(name):
            return _lifetime(value) or None
    return None


def _token(value: object) -> str:
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= _MAX_TOKEN
        or not value.isascii()
        or not value.isprintable()
    ):
        raise SignInFailed("its token endpoint returned an invalid token")
    return value


def _lifetime(value: object) -> timedelta | None:
    """In seconds, which some providers send as a string."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SignInFailed("its token endpoint returned an invalid expires_in")
    return timedelta(seconds=min(value, int(_MAX_LIFETIME.total_seconds())))
