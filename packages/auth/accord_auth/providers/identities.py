"""Who somebody is at a provider."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from accord_auth.providers.settings import ProviderSettings
from accord_auth.providers.tokens import Tokens

# The form of an address in HTML, which is what the contract's rule takes.
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL: Final = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*")
_LONGEST_EMAIL: Final = 254
_LONGEST_NAME: Final = 100


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
