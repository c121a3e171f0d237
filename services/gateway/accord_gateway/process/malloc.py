"""Keeps what hashing a password takes from staying with the process."""

import ctypes
import sys

M_MMAP_THRESHOLD = -3  # of malloc.h
FOUR_MIB = 4 * 1024 * 1024


def return_large_blocks() -> None:
    """Has glibc give blocks of 4 MiB and more back when they are freed.

    It would raise that limit by itself after the first of the 19 MiB blocks that argon2 asks for, and keep some 38 MiB
    for good. Costs 2 ms more a hash.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, FOUR_MIB)
