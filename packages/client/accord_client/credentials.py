"""The credentials of a channel. Their `repr` does not contain the secret."""

from dataclasses import dataclass, field

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SessionToken:
    """The token that sign-in returns."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key of an organization."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """A service token, for example one of TokenService.ExchangeToken that acts for a user. It is not renewed."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account. The channel gets its tokens from TokenService.IssueToken and renews them."""

    client_id: str
    client_secret: str = field(repr=False)
    audience: str = "accord"


Credentials = SessionToken | ApiKey | ServiceToken | ServiceAccount


def bearer(token: str) -> Header:
    return ("authorization", f"Bearer {token}")


def fixed_header(credentials: Credentials | None) -> Header | None:
    """The header of a credential that does not change. None without credentials and for a service account."""
    match credentials:
        case ApiKey():
            return ("x-api-key", credentials.key)
        case SessionToken() | ServiceToken():
            return bearer(credentials.token)
        case _:
            return None
