from collections.abc import Awaitable, Callable
from typing import TypeVar

import stamina

from accord_db.engine.errors import Conflict
from accord_db.engine.scope import remaining

T = TypeVar("T")

_ATTEMPTS = 5
_FIRST_WAIT, _LAST_WAIT, _JITTER = 0.01, 0.5, 0.05  # seconds


async def retry_conflicts(attempt: Callable[[], Awaitable[T]]) -> T:
    """Make an attempt again, from its beginning, when it lost against another transaction.

    An attempt is a whole transaction and nothing that could not happen twice; so this goes around the outermost one.
    Raises the last Conflict when there were too many, or when the deadline leaves no time for another.
    """
    caller = stamina.AsyncRetryingCaller(
        attempts=_ATTEMPTS,
        timeout=remaining(),
        wait_initial=_FIRST_WAIT,
        wait_max=_LAST_WAIT,
        wait_jitter=_JITTER,
    )
    return await caller(Conflict, attempt)
