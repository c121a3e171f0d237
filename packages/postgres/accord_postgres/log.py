"""PostgreSQL's log file, and its last lines for error messages."""

import os
from pathlib import Path
from typing import IO

MAX_SIZE = 10_000_000
"""Bytes. A start renames a larger file to `….1` and begins another."""


class ServerLog:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = 0

    def open(self) -> IO[bytes]:
        if self.path.exists() and self.path.stat().st_size > MAX_SIZE:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        file = self.path.open("ab")
        self._mark = file.tell()
        return file

    def last_lines(self, count: int = 10) -> list[str]:
        """The last lines that were written since the file was opened."""
        with self.path.open("rb") as file:
            file.seek(max(self._mark, file.seek(0, os.SEEK_END) - 8192))
            return file.read().decode(errors="replace").splitlines()[-count:]
