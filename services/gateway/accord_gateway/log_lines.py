"""Log lines, with one write for those of one turn of the event loop: a write for each takes longer than making the line."""

import asyncio
import atexit
from collections.abc import Callable
from select import PIPE_BUF
from threading import Lock
from typing import BinaryIO


class LogLines:
    """Writes whole lines in pieces of at most PIPE_BUF bytes, which do not mix with those of other processes. Holds no more than
    one piece, and for no longer than until the next turn. Outside of an event loop it writes each line at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting = bytearray()
        self._lock = Lock()  # other threads log too
        self._will_flush = False
        atexit.register(self.flush)  # an event loop that ends with an error has no next turn

    def add(self, line: bytes) -> None:
        """A line includes its line break."""
        with self._lock:
            if len(self._waiting) + len(line) > PIPE_BUF:
                self._write()
            self._waiting += line
            if self._will_flush:
                return
            self._will_flush = _call_next_turn(self.flush)
            if not self._will_flush:
                self._write()

    def flush(self) -> None:
        with self._lock:
            self._will_flush = False
            self._write()

    def _write(self) -> None:
        if self._waiting:
            piece = bytes(self._waiting)
            self._waiting.clear()
            self._file.write(piece)
            self._file.flush()


def _call_next_turn(flush: Callable[[], None]) -> bool:
    """False outside of an event loop."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return False
    loop.call_soon(flush)
    return True
