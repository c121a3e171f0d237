"""What comes of a sign-in with a provider: who somebody is there, and the tokens to speak to it for them."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Self

from accord_auth.providers.faults import SignInFailed
from accord_auth.providers.settings import ProviderSettings

# The form of an address in HTML, which is what the contract's rule takes.
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL: Final = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*")
_LONGEST_EMAIL: Final = 254
_LONGEST_NAME: Final = 100
_LONGEST_TOKEN: Final = 16 * 1024
_LONGEST_LIFETIME: Final = timedelta(days=3650)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """It is issuer and subject. The rest is what the provider tells of it, and may change."""

    issuer: str
    subject: str
    email: str | None
    email_verified: bool
    name: str | None

    @classmethod
    def told_by(cls, claims: Mapping[str, Any], *, issuer: str, subject: str) -> Self:
        email = claims.get("email")
        is_email = isinstance(email, str) and len(email) <= _LONGEST_EMAIL and _EMAIL.fullmatch(email) is not None
        return cls(
            issuer=issuer,
            subject=subject,
            email=email if is_email else None,
            # The word of some, "true", is no truth value, and this decides who is let in.
            email_verified=is_email and claims.get("email_verified") is True,
            name=_name(claims.get("name")),
        )


@dataclass(frozen=True, slots=True)
class Tokens:
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    # None if the provider does not say how long it is good.
    lifetime: timedelta | None

    @classmethod
    def answered(cls, response: Mapping[str, Any]) -> Self:
        """Raises SignInFailed if they are of no kind that we can use (RFC 6749, 5.1)."""
        kind = response.get("token_type")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise SignInFailed("its access token is no bearer token")
        refresh_token = response.get("refresh_token")
        return cls(
            _token(response.get("access_token")),
            None if refresh_token is None else _token(refresh_token),
            _lifetime(response.get("expires_in")),
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """Who the provider says that it was, and the tokens that came with it."""

    settings: ProviderSettings
    identity: Identity
    tokens: Tokens = field(repr=False)


def _name(name: object) -> str | None:
    """As much of it as a display name may have."""
    if not isinstance(name, str):
        return None
    kept = (character for character in name if unicodedata.category(character) not in ("Cc", "Cs"))
    return "".join(kept).strip()[:_LONGEST_NAME].strip() or None


def _token(value: object) -> str:
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= _LONGEST_TOKEN
        or not value.isascii()
        or not value.isprintable()
    ):
        raise SignInFailed("a token that it has answered is no token")
    return value


def _lifetime(value: object) -> timedelta | None:
    """In seconds, which some providers write as text."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SignInFailed("its access token lasts for no number of seconds")
    return timedelta(seconds=min(value, int(_LONGEST_LIFETIME.total_seconds())))
