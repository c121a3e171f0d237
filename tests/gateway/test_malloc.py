"""Memory that was freed returns to the operating system."""

import asyncio
import sys
from contextlib import suppress

import pytest

from accord_gateway.process.malloc import _resident_bytes, return_free_memory

MIB = 1024 * 1024

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and needs glibc's malloc_trim")


def keep_freed_memory() -> bytes:
    """Frees 100 MiB below a block that is still in use, so that glibc keeps them. Returns the block."""
    blocks = [bytes(1000) for _ in range(100 * MIB // 1024)]
    return blocks[-1]


async def test_process_that_has_grown_returns_what_was_freed() -> None:
    before = _resident_bytes()
    block = keep_freed_memory()
    assert _resident_bytes() - before > 50 * MIB
    trimming = asyncio.create_task(return_free_memory(interval=0.01, growth=20 * MIB))
    await asyncio.sleep(0.05)
    assert _resident_bytes() - before > 50 * MIB  # the process has not grown since the task began
    blocks = [bytes(1000) for _ in range(150 * MIB // 1024)]
    block = blocks[-1]
    blocks.clear()
    async with asyncio.timeout(10):
        while _resident_bytes() - before > 30 * MIB:
            await asyncio.sleep(0.01)
    trimming.cancel()
    with suppress(asyncio.CancelledError):
        await trimming
    assert len(block) == 1000
