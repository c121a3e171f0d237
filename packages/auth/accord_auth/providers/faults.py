"""What can go wrong with a provider. The texts are for the log: no token, code or address is in them."""

from collections.abc import Iterator
from contextlib import contextmanager


class SignInFailed(Exception):
    """What came back does not hold, whoever is to blame. Callers are not told why."""

    provider: str | None = None


class GrantRefused(SignInFailed):
    """The provider does not take a code or a refresh token (any more)."""


class ProviderUnreachable(Exception):
    """It did not answer, or not in time, or that it cannot at the moment. `retry_after` is in seconds."""

    provider: str | None = None
    retry_after = 5.0


class AccessTokenUnavailable(Exception):
    """There is no access token to be had for the account: it has to sign in with the provider again."""


@contextmanager
def about(provider: str) -> Iterator[None]:
    """Whatever goes wrong in the block went wrong with this provider."""
    try:
        yield
    except (SignInFailed, ProviderUnreachable) as fault:
        fault.provider = provider
        raise
