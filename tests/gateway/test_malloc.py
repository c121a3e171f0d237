"""Memory that was freed returns to the operating system."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and needs glibc's malloc_trim")

# In a process of its own: in one that has run other tests, new objects may use memory that those have freed.
PROGRAM = """
import asyncio
from accord_gateway.process.malloc import _resident_bytes, return_free_memory

MIB = 1024 * 1024

def keep_freed_memory(mib):
    "Frees memory below a block that is still in use, so that glibc keeps it. Returns the block."
    blocks = [bytes(1000) for _ in range(mib * 1024)]
    return blocks[-1]

async def main():
    before = _resident_bytes()
    block = keep_freed_memory(100)
    grown = _resident_bytes() - before
    assert grown > 50 * MIB, grown
    trimming = asyncio.create_task(return_free_memory(interval=0.01, growth=20 * MIB))
    await asyncio.sleep(0.05)
    assert _resident_bytes() - before > 50 * MIB  # the process has not grown since the task began
    block = keep_freed_memory(150)
    while _resident_bytes() - before > 30 * MIB:
        await asyncio.sleep(0.01)
    assert not trimming.done()

asyncio.run(asyncio.wait_for(main(), 50))
"""


def test_process_that_has_grown_returns_what_was_freed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
