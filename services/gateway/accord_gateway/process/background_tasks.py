import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

RECANCEL_SECONDS = 30.0


@asynccontextmanager
async def running(*tasks: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs the tasks until the block ends, and then cancels them. Each task handles its own errors; others are lost."""
    started = [asyncio.create_task(task) for task in tasks]
    try:
        yield
    finally:
        pending = set(started)
        while pending:
            for task in pending:
                task.cancel()
            # A library can lose a cancellation, and the task would run for ever. Longer than any task needs to end.
            _, pending = await asyncio.wait(pending, timeout=RECANCEL_SECONDS)
        await asyncio.gather(*started, return_exceptions=True)
