"""Counters of rate limits in a Redis that several gateways share. Imported only if RATE_LIMIT_STORAGE names one."""

import time

from limits import RateLimitItemPerSecond
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string

from accord.policy.v1.policy_pb2 import RateLimit
from accord_rpc.pipeline.counters import Counter, NotCounted


class SharedCounters:
    """Raises ValueError if the URL names no asynchronous storage."""

    def __init__(self, url: str) -> None:
        try:
            storage = storage_from_string(url, wrap_exceptions=True, implementation="redispy")
        except ConfigurationError as error:  # the package of the storage is not installed
            raise ValueError(str(error)) from None
        if not isinstance(storage, Storage):
            raise ValueError(f"{url!r} is not an asynchronous storage; its name must begin with 'async+'")
        self.storage = storage

    def counter(self, path: str, limit: RateLimit) -> Counter:
        return _SharedCounter(FixedWindowRateLimiter(self.storage), path, limit)


class _SharedCounter:
    def __init__(self, limiter: FixedWindowRateLimiter, path: str, limit: RateLimit) -> None:
        self._limiter = limiter
        self._path = path
        self._item = RateLimitItemPerSecond(limit.count, limit.window.seconds)

    async def hit(self, subject: str, most: int | None = None) -> float | None:
        item = self._item if most is None else RateLimitItemPerSecond(most, self._item.multiples)
        try:
            if await self._limiter.hit(item, self._path, subject):
                return None
            reset_at, _ = await self._limiter.get_window_stats(item, self._path, subject)
        except StorageError as error:
            raise NotCounted from error
        return reset_at - time.time()
