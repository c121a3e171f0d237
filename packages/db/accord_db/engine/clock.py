"""The database's clock, by which all gateways compare times in rows: the database wrote them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic


class DatabaseClock:
    """The time on the database's clock without a query: the last measurement plus the time on the process's monotonic clock.

    It does not use the time of day of this machine. `now` is never behind the database's clock, and ahead of it by at most the
    round trip of the last measurement, which the gateway repeats every second.
    """

    def __init__(self, elapsed: Callable[[], float] = monotonic) -> None:
        self._elapsed = elapsed
        self._zero: datetime | None = None  # the time at which `elapsed` was 0

    def set(self, time: datetime, *, sent_at: float) -> None:
        """`time` is the result of a statement that was sent when `time.monotonic` was `sent_at`."""
        self._zero = time - timedelta(seconds=sent_at)

    def now(self) -> datetime:
        if self._zero is None:
            raise RuntimeError("the database's clock has not been measured: Database.connect measures it")
        return self._zero + timedelta(seconds=self._elapsed())

    def until(self, time: datetime) -> float:
        """Seconds; negative if the time has passed."""
        return (time - self.now()).total_seconds()

    def offset(self) -> timedelta:
        """How far the time of day of this machine is ahead of the database's clock."""
        return datetime.now(UTC) - self.now()
