"""Functions that wait, written once for blocking callers and for asyncio: a generator yields the seconds to wait."""

import asyncio
import time
from collections.abc import Generator
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[float, None, T]


def run(steps: Steps[T]) -> T:
    with closing(steps):
        while True:
            try:
                seconds = next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # typeshed has no type for it
            time.sleep(seconds)


async def run_async(steps: Steps[T]) -> T:
    with closing(steps):
        while True:
            try:
                seconds = next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # typeshed has no type for it
            await asyncio.sleep(seconds)
