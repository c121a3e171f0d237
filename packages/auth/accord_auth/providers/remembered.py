"""What others publish, fetched once for all who want it and kept for a while."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

from accord_auth.providers.faults import ProviderUnreachable, SignInFailed

T = TypeVar("T")


class Remembered(Generic[T]):
    """Fetched by one caller at a time. Whoever waited for a fetch that failed shares its failure instead of trying the
    same once more; whoever comes later tries again."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], *, seconds: float, renewals_apart: float = 0.0) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._renewals_apart = renewals_apart
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._until = 0.0
        self._renewed = float("-inf")
        self._tries = 0
        self._failure: SignInFailed | ProviderUnreachable | None = None

    async def get(self) -> T:
        return await self._get(lambda: monotonic() < self._until)

    async def renewed(self, old: T) -> T:
        """A later value than `old`, which does not do any longer; `old` itself if another was asked for just before."""

        def is_good() -> bool:
            return self._value is not old or monotonic() - self._renewed < self._renewals_apart

        if not is_good():
            try:
                return await self._get(is_good)
            finally:
                self._renewed = monotonic()
        return await self._get(is_good)

    async def _get(self, is_good: Callable[[], bool]) -> T:
        tries = self._tries
        if not is_good():
            async with self._lock:
                if not is_good():
                    await self._try(joins=self._tries != tries)
        assert self._value is not None
        return self._value

    async def _try(self, *, joins: bool) -> None:
        if joins and self._failure is not None:
            raise type(self._failure)(*self._failure.args)
        try:
            value = await self._fetch()
        except (SignInFailed, ProviderUnreachable) as failure:
            self._tries, self._failure = self._tries + 1, failure
            raise
        self._value, self._until = value, monotonic() + self._seconds
        self._tries, self._failure = self._tries + 1, None
