"""Standard output and standard error whose writes never fail: text that cannot be written is lost, and the process continues."""

import io
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

WAIT_MILLISECONDS = 100
"""How long a write waits for a reader that has stopped reading, such as a suspended pager. Until it reads again, later writes
do not wait."""


def tolerate_failures() -> None:
    """Replaces sys.stdout and sys.stderr. Call it before opening or printing anything."""
    _open_missing_descriptors()
    sys.stdout = _stream(1, sys.stdout, line_buffering=os.isatty(1))
    sys.stderr = _stream(2, sys.stderr, line_buffering=True)


def _open_missing_descriptors() -> None:
    """Otherwise, after `>&-`, the next file or socket gets the descriptor of standard output and receives every line."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor, which is this one
            os.set_inheritable(descriptor, True)


def _stream(descriptor: int, former: TextIO | None, *, line_buffering: bool) -> TextIO:
    """`former` is None if the process was started without this descriptor."""
    encoding = former.encoding if former else "utf-8"
    buffer = io.BufferedWriter(_LossyFile(descriptor))
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=line_buffering)


class _LossyFile(io.FileIO):
    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        # A write to a file is atomic, so that lines of several workers do not mix, and never blocks.
        self._may_block = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._timeout = WAIT_MILLISECONDS

    def write(self, data: "ReadableBuffer") -> int:
        view = memoryview(data)
        try:
            if not self._may_block:
                return super().write(view)
            if self._is_ready():
                return super().write(view[: select.PIPE_BUF]) or len(view)  # None if the descriptor does not block
        except OSError:
            pass
        return len(view)

    def _is_ready(self) -> bool:
        """Whether PIPE_BUF bytes can be written without waiting for the reader, or writing fails at once."""
        ready = bool(self._poll.poll(self._timeout))
        self._timeout = WAIT_MILLISECONDS if ready else 0
        return ready
