"""How much time the work of this task has left.

Whoever receives a call says so once; the database reads it, so that no query has to pass it on.
"""

from contextvars import ContextVar
from time import monotonic

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def set_deadline(at: float | None) -> None:
    """`at` is on the clock of `time.monotonic`; None means that there is no hurry."""
    _deadline.set(at)


def remaining() -> float | None:
    """Seconds left, negative when the deadline has passed; None without a deadline."""
    at = _deadline.get()
    return None if at is None else at - monotonic()
