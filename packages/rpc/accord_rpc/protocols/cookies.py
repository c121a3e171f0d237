"""The session cookie, for browsers whose scripts must not hold the session token (OWASP ASVS 5.0, 3.3).

The prefix `__Host-` makes browsers refuse a cookie from another host, without Secure, or for a part of the site."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Final

SESSION_COOKIE: Final = "__Host-session"
_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Lax"
_OWN_SITE: Final = frozenset({"same-origin", "none"})
"""`none`: the user entered the address."""


def session_tokens(cookie: str) -> list[str]:
    """The values of the session cookie in a `Cookie` header. A browser sends one."""
    pairs = (pair.strip().partition("=") for pair in cookie.split(";"))
    return [value for name, _, value in pairs if name == SESSION_COOKIE and value]


def set_cookie(token: str, expires_at: datetime) -> tuple[bytes, bytes]:
    """The header that stores a session. `expires_at` is in UTC."""
    value = f"{SESSION_COOKIE}={token}; {_ATTRIBUTES}; Expires={format_datetime(expires_at, usegmt=True)}"
    return b"set-cookie", value.encode()


def clear_cookie() -> tuple[bytes, bytes]:
    return b"set-cookie", f"{SESSION_COOKIE}=; {_ATTRIBUTES}; Max-Age=0".encode()


def is_from_another_site(headers: Iterable[tuple[str, str | bytes]], allowed_origins: Collection[str]) -> bool | None:
    """Whether a page of another site made the browser send a request (Fetch Metadata, RFC 6454). None if neither header says it:
    the client is no browser, or an old one that sent a GET."""
    sent: Mapping[str, set[str]] = {"sec-fetch-site": set(), "origin": set()}
    for name, value in headers:
        if name in sent:
            sent[name].add(str(value))
    sites, origins = sent["sec-fetch-site"], sent["origin"]
    if not sites and not origins:
        return None
    if len(origins) == 1 and origins <= set(allowed_origins):
        return False
    return not (len(sites) == 1 and sites <= _OWN_SITE)
