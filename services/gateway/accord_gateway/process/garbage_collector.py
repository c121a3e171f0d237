"""Python's garbage collector in a serving process."""

import gc


def keep_what_started() -> None:
    """Excludes everything that exists now from later collections. It stays until the process ends, and to look through its 300,000
    objects stops all calls for 70 ms, several times a minute under load."""
    gc.collect()
    gc.freeze()
