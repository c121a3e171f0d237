"""Errors of the embedded server, with a remedy."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOW_SPACE = 100_000_000
"""Free bytes below which a full disk is the likely cause of an error: a new cluster takes 40 MB, a WAL file 16 MB."""


class EmbeddedPostgresError(Exception):
    """The message states the cause and the remedy, for display without a traceback."""


@contextmanager
def plain_os_errors(folder: Path) -> Iterator[None]:
    """Raises EmbeddedPostgresError for an OSError of the block."""
    try:
        yield
    except OSError as error:
        raise EmbeddedPostgresError(
            f"Embedded PostgreSQL cannot use {folder}: {error}.{space_hint(folder)} "
            "Make it accessible to this user, or set DATABASE_URL."
        ) from error


def space_hint(folder: Path) -> str:
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110 - Path's raises
    free = shutil.disk_usage(existing).free
    if free > LOW_SPACE:
        return ""
    return f" Its disk has only {free // 1_000_000} MB left, which is the likely cause: free some space."
