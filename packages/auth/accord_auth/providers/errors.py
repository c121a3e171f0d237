"""Errors of providers. Their messages go to the log, and contain no token, code or e-mail address."""

from collections.abc import Iterator
from contextlib import contextmanager


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
    """There is no access token for the account. It must sign in with the provider again."""


@contextmanager
def errors_of(provider: str) -> Iterator[None]:
    """Sets `provider` on the errors that the block raises."""
    try:
        yield
    except (SignInFailed, ProviderUnreachable) as error:
        error.provider = provider
        raise
