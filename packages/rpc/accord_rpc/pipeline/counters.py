"""Counters of rate limits in the memory of this process."""

from time import monotonic
from typing import Protocol

from accord.policy.v1.policy_pb2 import RateLimit


class NotCounted(Exception):
    """The storage of the counters cannot be reached."""


class Counter(Protocol):
    """Counts each subject's calls against one limit, in fixed windows that begin with a subject's first call."""

    async def hit(self, subject: str, most: int | None = None) -> float | None:
        """None if the call is allowed, else the seconds until the window ends. `most` replaces the limit's count for this
        subject. Raises NotCounted."""


class Counters(Protocol):
    def counter(self, path: str, limit: RateLimit) -> Counter: ...


class LocalCounters:
    """Instead of the in-memory storage of `limits`, which scans all counters at each call."""

    def counter(self, path: str, limit: RateLimit) -> Counter:
        return _LocalCounter(limit.count, limit.window.seconds)


class _LocalCounter:
    def __init__(self, count: int, seconds: int) -> None:
        self._count = count
        self._seconds = seconds
        self._windows: dict[str, _Window] = {}  # ordered by end

    async def hit(self, subject: str, most: int | None = None) -> float | None:
        now = monotonic()
        window = self._windows.get(subject)
        if window is None or now >= window.end:
            window = self._begin(subject, now)
        window.calls += 1
        return None if window.calls <= (most or self._count) else window.end - now

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
