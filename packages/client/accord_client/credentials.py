"""The ways to say who calls. None of them shows its secret when it is printed."""

from dataclasses import dataclass, field

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SessionToken:
    """What sign-in answers."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of an organization."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """The token of a service, as it is: one that acts for a person, say, from TokenService.ExchangeToken. It is not renewed."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """The account of a service. Its tokens come from TokenService.IssueToken, over the same channel, and are renewed."""

    client_id: str
    client_secret: str = field(repr=False)
    audience: str = "accord"


Credentials = SessionToken | ApiKey | ServiceToken | ServiceAccount


def bearer(token: str) -> Header:
    return ("authorization", f"Bearer {token}")


def fixed_header(credentials: Credentials | None) -> Header | None:
    """What goes with each call. None if nothing does, or not always the same."""
    match credentials:
        case ApiKey():
            return ("x-api-key", credentials.key)
        case SessionToken() | ServiceToken():
            return bearer(credentials.token)
        case _:
            return None
