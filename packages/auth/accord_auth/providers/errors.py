"""Errors of providers. Their messages go to the log, and contain no token, code or e-mail address."""

from collections.abc import Iterator
from contextlib import contextmanager

from accord_db.schema.providers import RefreshFailure


class SignInFailed(Exception):
    """The sign-in is invalid. Clients do not learn the reason."""

    provider: str | None = None


class GrantRefused(SignInFailed):
    """The provider refuses a code or a refresh token."""


class ProviderUnreachable(Exception):
    """The provider did not respond in time, or responded that it is unavailable. `retry_after` is in seconds."""

    provider: str | None = None
    retry_after = 5.0


class AccessTokenUnavailable(Exception):
    """There is no access token for the account. `reason` is that of the linked provider; None if the account has no linked
    identity of the provider, or no such provider is configured. For every reason but `invalid_response`, the user must sign in
    with the provider again."""

    def __init__(self, message: str, reason: RefreshFailure | None = None) -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def errors_of(provider: str) -> Iterator[None]:
    """Sets `provider` on the errors that the block raises."""
    try:
        yield
    except (SignInFailed, ProviderUnreachable) as error:
        error.provider = provider
        raise
