"""The tokens that a provider gives us to speak to it for an account."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Self

from accord_auth.providers.faults import SignInFailed

_LONGEST: Final = 16 * 1024
_LONGEST_LIFETIME: Final = timedelta(days=3650)


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


def _token(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST or not value.isascii() or not value.isprintable():
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
