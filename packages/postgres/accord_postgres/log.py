"""The file that PostgreSQL writes to, and what to quote of it."""

import os
from pathlib import Path
from typing import IO

LARGE = 10_000_000
"""Bytes after which the next start begins a new file and keeps this one under the name `….1`."""


class ServerLog:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = 0

    def open(self) -> IO[bytes]:
        if self.path.exists() and self.path.stat().st_size > LARGE:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        file = self.path.open("ab")
        self._mark = file.tell()
        return file

    def last_lines(self, count: int = 10) -> list[str]:
        """What was written since it was opened, the end of it."""
        with self.path.open("rb") as file:
            file.seek(max(self._mark, file.seek(0, os.SEEK_END) - 8192))
            return file.read().decode(errors="replace").splitlines()[-count:]
