"""What is said when PostgreSQL cannot be run here."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LITTLE_SPACE = 100_000_000
"""Free bytes under which a full disk is the likely reason of a failure: a new cluster takes 40 MB, one WAL file 16."""


class EmbeddedPostgresError(Exception):
    """The message says what is wrong and what to do, and is meant to be shown as it is."""


@contextmanager
def in_plain_words(folder: Path) -> Iterator[None]:
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
    if free > LITTLE_SPACE:
        return ""
    return f" Its disk has only {free // 1_000_000} MB left, which may well be the reason: make room on it."
