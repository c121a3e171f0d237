"""Counts calls against the limits of a method's policy.

The counters live in this process, or in a Redis that several share, which the `limits` library talks to.
"""

import time
from typing import Final, Protocol

from limits import RateLimitItemPerSecond
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import RATE_LIMIT_KEY_CALLER, RateLimit
from accord_api.pipeline.peer import peer_network
from accord_auth.caller import caller
from accord_auth.gate import Context, Gate
from accord_auth.policy import Method
from accord_auth.refused import Refused

_IN_PROCESS: Final = "async+memory:"


class Counter(Protocol):
    """Counts the calls of each subject against one limit: so many in a window, which begins with the first of them."""

    async def hit(self, subject: str) -> float | None:
        """None if the limit allows the call; if not, in how many seconds it will. Raises StorageError."""


class Counters(Protocol):
    def counter(self, path: str, limit: RateLimit) -> Counter: ...


def rate_limiter(storage: str) -> Counters:
    """Counters in the storage that a URL names: `async+memory://`, or `async+redis://host:port/0`."""
    if storage.startswith(_IN_PROCESS):
        return OwnCounters()
    found = storage_from_string(storage, wrap_exceptions=True, implementation="redispy")
    if not isinstance(found, Storage):
        raise ValueError(f"{storage!r} is not an asynchronous storage; its name must begin with 'async+'")
    return SharedCounters(found)


class OwnCounters:
    def counter(self, path: str, limit: RateLimit) -> Counter:
        return _OwnCounter(limit.count, limit.window.seconds)


class _OwnCounter:
    """The library's own storage in memory looks through all of its counters at every call."""

    def __init__(self, count: int, seconds: int) -> None:
        self._count = count
        self._seconds = seconds
        self._windows: dict[str, _Window] = {}  # in the order in which they end

    async def hit(self, subject: str) -> float | None:
        now = time.monotonic()
        window = self._windows.get(subject)
        if window is None or now >= window.end:
            window = self._begin(subject, now)
        window.calls += 1
        return None if window.calls <= self._count else window.end - now

    def _begin(self, subject: str, now: float) -> "_Window":
        while self._windows and now >= self._windows[oldest := next(iter(self._windows))].end:
            del self._windows[oldest]
        window = self._windows[subject] = _Window(now + self._seconds)
        return window


class _Window:
    __slots__ = ("calls", "end")

    def __init__(self, end: float) -> None:
        self.end = end
        self.calls = 0


class SharedCounters:
    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def counter(self, path: str, limit: RateLimit) -> Counter:
        return _SharedCounter(FixedWindowRateLimiter(self.storage), path, limit)


class _SharedCounter:
    def __init__(self, limiter: FixedWindowRateLimiter, path: str, limit: RateLimit) -> None:
        self._limiter = limiter
        self._path = path
        self._item = RateLimitItemPerSecond(limit.count, limit.window.seconds)

    async def hit(self, subject: str) -> float | None:
        if await self._limiter.hit(self._item, self._path, subject):
            return None
        reset_at, _ = await self._limiter.get_window_stats(self._item, self._path, subject)
        return reset_at - time.time()


class RateLimitInterceptor(Gate):
    """Every limit of the policy counts every call that reached it; the first one that is used up refuses."""

    def __init__(self, method: Method, counters: Counters) -> None:
        self._limits = [
            (counters.counter(method.path, limit), limit.key == RATE_LIMIT_KEY_CALLER)
            for limit in method.policy.rate_limits
        ]

    async def admit(self, context: Context) -> None:
        for counter, by_caller in self._limits:
            subject = f"account:{caller().account_id}" if by_caller else f"peer:{peer_network(context.peer())}"
            try:
                wait = await counter.hit(subject)
            except StorageError as error:
                # Fail closed: a limit that cannot be counted may be the one that protects a password.
                raise Refused(Reason.REASON_UNAVAILABLE, retry_after=1) from error
            if wait is not None:
                raise Refused(Reason.REASON_RATE_LIMITED, retry_after=max(0.1, wait), quota=subject)
