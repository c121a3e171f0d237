"""Returns memory that was freed to the operating system."""

import asyncio
import ctypes
import sys
from pathlib import Path
from resource import getpagesize
from typing import Final

M_MMAP_THRESHOLD = -3  # of malloc.h
FOUR_MIB = 4 * 1024 * 1024
_STATM: Final = Path("/proc/self/statm")
_CHECK_SECONDS: Final = 30.0
_GROWTH_BYTES: Final = 64 * 1024 * 1024


def return_large_blocks() -> None:
    """Makes glibc return freed blocks of 4 MiB and more to the operating system.

    By default glibc raises its threshold after the first 19 MiB block of argon2, and then keeps about 38 MiB. This costs 2 ms
    per hash.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, FOUR_MIB)


async def return_free_memory(*, interval: float = _CHECK_SECONDS, growth: int = _GROWTH_BYTES) -> None:
    """Trims the heap whenever the process has grown by so many bytes since it was last trimmed.

    glibc keeps what was freed below a block that is still in use: 250 MiB after 6,600 TLS handshakes that were broken off. Trimming
    them takes 29 ms, in a thread, and a third of a millisecond if there is nothing to return."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # musl has none
    if trim is None:
        return
    trimmed = _resident_bytes()
    while True:
        await asyncio.sleep(interval)
        resident = _resident_bytes()
        if resident - trimmed >= growth:
            await asyncio.to_thread(trim, 0)
            trimmed = _resident_bytes()
        trimmed = min(trimmed, resident)


def _resident_bytes() -> int:
    return int(_STATM.read_text().split()[1]) * getpagesize()
