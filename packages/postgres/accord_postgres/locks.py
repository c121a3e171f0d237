"""One owner per folder and never two servers, ensured by locks that the kernel releases when their holders end.

`owner.lock` is held by the process that started PostgreSQL. PostgreSQL and all of its processes inherit `server.lock`, which
is released when the last of them ends. A process that holds both knows that no server runs on the folder. A postmaster.pid proves
nothing: after a power cut, another process may have that pid.
"""

import fcntl
import os
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accord_postgres.errors import EmbeddedPostgresError
from accord_postgres.steps import Steps

GRACE = 3.0
"""Seconds in which processes of PostgreSQL notice that their owner or their postmaster was killed, and end."""
LIMIT = 30.0


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Holds owner.lock. Raises EmbeddedPostgresError if another process does."""
    with opened(folder / "owner.lock") as owner:
        if not locked(owner):
            raise EmbeddedPostgresError(in_use(folder, os.pread(owner, 20, 0).decode()))
        os.ftruncate(owner, 0)
        os.pwrite(owner, str(os.getpid()).encode(), 0)
        yield


def lock_server(folder: Path, descriptor: int) -> Steps[None]:
    """Locks server.lock, which is open as `descriptor`, once the processes of an earlier server have ended."""
    if not (yield from locked_within(GRACE, descriptor)):
        stop_orphan(folder / "data")
        if not (yield from locked_within(LIMIT, descriptor)):
            raise EmbeddedPostgresError(orphaned(folder))


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def locked_within(seconds: float, descriptor: int) -> Steps[bool]:
    end = time.monotonic() + seconds
    while not locked(descriptor):
        if time.monotonic() > end:
            return False
        yield 0.02
    return True


def stop_orphan(data: Path) -> None:
    """For systems whose kernel does not end a server with its owner (macOS)."""
    with suppress(OSError, ValueError, IndexError):
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        # A killed postmaster leaves its pid behind, and another process may have it by now. A postmaster works in `data`.
        if sys.platform != "linux" or Path(f"/proc/{pid}/cwd").samefile(data):
            os.kill(pid, signal.SIGINT)


def in_use(folder: Path, pid: str) -> str:
    return (
        f"{folder} is in use by process {pid}{command_of(pid)}: stop that one first, "
        "or use another folder for this one, or set DATABASE_URL."
    )


def command_of(pid: str) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return f" ({textwrap.shorten(' '.join(words), 80, placeholder='…')})"
    return ""


def orphaned(folder: Path) -> str:
    return (
        f"Processes of an earlier PostgreSQL still run on {folder} and do not end. "
        f"The pid of their server is the first line of {folder / 'data' / 'postmaster.pid'}: inspect them, then end them "
        "with `kill -INT`."
    )
