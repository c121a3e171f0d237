"""A cache of one value with a time to live."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

from accord_auth.providers.errors import ProviderUnreachable, SignInFailed

T = TypeVar("T")


class TtlCache(Generic[T]):
    """Runs one fetch at a time. All callers that wait for a fetch share its result or its error; the next caller after an
    error fetches again. Times are in seconds."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], *, ttl: float, min_refresh_interval: float = 0.0) -> None:
        self._fetch = fetch
        self._ttl = ttl
        self._min_refresh_interval = min_refresh_interval
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._expires_at = 0.0
        self._refreshed_at = float("-inf")
        self._fetches = 0
        self._error: SignInFailed | ProviderUnreachable | None = None

    async def get(self) -> T:
        return await self._get(lambda: monotonic() < self._expires_at)

    async def refresh(self, old: T) -> T:
        """Returns a newer value than `old`, or `old` within the minimum interval after another refresh."""

        def is_current() -> bool:
            return self._value is not old or monotonic() - self._refreshed_at < self._min_refresh_interval

        if not is_current():
            try:
                return await self._get(is_current)
            finally:
                self._refreshed_at = monotonic()
        return await self._get(is_current)

    async def _get(self, is_current: Callable[[], bool]) -> T:
        fetches = self._fetches
        if not is_current():
            async with self._lock:
                if not is_current():
                    await self._fetch_once(has_waited=self._fetches != fetches)
        assert self._value is not None
        return self._value

    async def _fetch_once(self, *, has_waited: bool) -> None:
        if has_waited and self._error is not None:
            raise type(self._error)(*self._error.args)
        try:
            value = await self._fetch()
        except (SignInFailed, ProviderUnreachable) as error:
            self._fetches, self._error = self._fetches + 1, error
            raise
        self._value, self._expires_at = value, monotonic() + self._ttl
        self._fetches, self._error = self._fetches + 1, None
