"""Returns the memory of password hashes to the operating system."""

import ctypes
import sys

M_MMAP_THRESHOLD = -3  # of malloc.h
FOUR_MIB = 4 * 1024 * 1024


def return_large_blocks() -> None:
    """Makes glibc return freed blocks of 4 MiB and more to the operating system.

    By default glibc raises its threshold after the first 19 MiB block of argon2, and then keeps about 38 MiB. This costs 2 ms
    per hash.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, FOUR_MIB)
