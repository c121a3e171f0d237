from collections.abc import Awaitable, Callable
from typing import TypeVar

import stamina

from accord_db.engine.errors import Conflict
from accord_db.engine.scope import remaining

T = TypeVar("T")

_ATTEMPTS = 5
_FIRST_WAIT, _LAST_WAIT, _JITTER = 0.01, 0.5, 0.05  # seconds


async def retry_conflicts(attempt: Callable[[], Awaitable[T]]) -> T:
    """Runs an attempt, and repeats it after a Conflict with another transaction.

    An attempt is one whole transaction without other effects: use this outside the outermost transaction. Raises the last
    Conflict after too many attempts, or if the deadline leaves no time for another.
    """
    caller = stamina.AsyncRetryingCaller(
        attempts=_ATTEMPTS,
        timeout=remaining(),
        wait_initial=_FIRST_WAIT,
        wait_max=_LAST_WAIT,
        wait_jitter=_JITTER,
    )
    return await caller(Conflict, attempt)
