"""Counts calls against the limits of a method's policy.

The counters live in whatever storage the `limits` library is given: this process, or a Redis that many share.
"""

import time

from limits import RateLimitItemPerSecond
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import RateLimitKey
from accord_api.pipeline.peer import peer_network
from accord_auth.caller import caller
from accord_auth.gate import Context, Gate
from accord_auth.policy import Method
from accord_auth.refused import Refused


def rate_limiter(storage: str) -> FixedWindowRateLimiter:
    """Counters in the storage that a URL names: `async+memory://`, or `async+redis://host:port/0`."""
    options = {"implementation": "redispy"} if "redis" in storage.partition(":")[0] else {}
    found = storage_from_string(storage, wrap_exceptions=True, **options)
    if not isinstance(found, Storage):
        raise ValueError(f"{storage!r} is not an asynchronous storage; its name must begin with 'async+'")
    return FixedWindowRateLimiter(found)


class RateLimitInterceptor(Gate):
    """Every limit of the policy counts every call that reached it; the first one that is used up refuses."""

    def __init__(self, method: Method, limiter: FixedWindowRateLimiter) -> None:
        self._limiter = limiter
        self._path = method.path
        self._limits = [
            (RateLimitItemPerSecond(limit.count, limit.window.seconds), limit.key)
            for limit in method.policy.rate_limits
        ]

    async def admit(self, context: Context) -> None:
        for item, key in self._limits:
            subject = _subject(key, context)
            try:
                if not await self._limiter.hit(item, self._path, subject):
                    await self._refuse(item, subject)
            except StorageError as error:
                # Fail closed: a limit that cannot be counted may be the one that protects a password.
                raise Refused(Reason.REASON_UNAVAILABLE, retry_after=1) from error

    async def _refuse(self, item: RateLimitItemPerSecond, subject: str) -> None:
        reset_at, _ = await self._limiter.get_window_stats(item, self._path, subject)
        raise Refused(
            Reason.REASON_RATE_LIMITED,
            retry_after=max(0.1, reset_at - time.time()),
            quota=subject,
        )


def _subject(key: RateLimitKey.ValueType, context: Context) -> str:
    if key == RateLimitKey.RATE_LIMIT_KEY_CALLER:
        return f"account:{caller().account_id}"
    return f"peer:{peer_network(context.peer())}"
