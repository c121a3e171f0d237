"""Counts calls against a limit, in this process."""

from time import monotonic
from typing import Protocol

from accord.policy.v1.policy_pb2 import RateLimit


class NotCounted(Exception):
    """The counters could not be reached."""


class Counter(Protocol):
    """Counts the calls of each subject against one limit: so many in a window, which begins with the first of them."""

    async def hit(self, subject: str, most: int | None = None) -> float | None:
        """`most` is for a subject whose limit is another. None if the limit allows the call; if not, in how many seconds it will. Raises NotCounted."""


class Counters(Protocol):
    def counter(self, path: str, limit: RateLimit) -> Counter: ...


class OwnCounters:
    """The `limits` library has such counters too, and looks through all of them at every call."""

    def counter(self, path: str, limit: RateLimit) -> Counter:
        return _OwnCounter(limit.count, limit.window.seconds)


class _OwnCounter:
    def __init__(self, count: int, seconds: int) -> None:
        self._count = count
        self._seconds = seconds
        self._windows: dict[str, _Window] = {}  # in the order in which they end

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
