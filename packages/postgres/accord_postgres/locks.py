"""One owner of a folder at a time, and never two servers, shown by locks that the kernel drops with their holder.

`owner.lock` is held by the process that started PostgreSQL. `server.lock` is handed down to PostgreSQL and everything
it forks, so it is held until the last of them is gone. Whoever has both knows that nothing runs on the folder,
whatever a postmaster.pid left behind by a power cut may say: a pid in a file proves nothing, it may be anyone's by now.
"""

import fcntl
import os
import signal
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accord_postgres.errors import EmbeddedPostgresError

GRACE = 3.0
"""Seconds for a server whose owner was killed to notice it and end by itself."""
LIMIT = 30.0


@contextmanager
def claimed(folder: Path) -> Iterator[int]:
    """Holds both locks; yields the descriptor of server.lock, for PostgreSQL to inherit."""
    with opened(folder / "owner.lock") as owner, opened(folder / "server.lock") as server:
        if not locked(owner):
            raise EmbeddedPostgresError(refusal(folder, os.pread(owner, 20, 0).decode()))
        os.ftruncate(owner, 0)
        os.pwrite(owner, str(os.getpid()).encode(), 0)
        if not locked_within(GRACE, server):
            stop_orphan(folder)
            if not locked_within(LIMIT, server):
                raise EmbeddedPostgresError(orphaned(folder))
        yield server


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


def locked_within(seconds: float, descriptor: int) -> bool:
    end = time.monotonic() + seconds
    while not locked(descriptor):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def stop_orphan(folder: Path) -> None:
    """Where the kernel does not end a server with its owner (macOS). The held lock vouches for the pid in the file."""
    with suppress(OSError, ValueError, IndexError):
        pid = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGINT)


def refusal(folder: Path, pid: str) -> str:
    return (
        f"{folder} is in use by process {pid}{command_of(pid)}: stop that one first, "
        "or give this one a folder of its own, or set DATABASE_URL."
    )


def command_of(pid: str) -> str:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return f" ({textwrap.shorten(' '.join(words), 80, placeholder='…')})"
    return ""


def orphaned(folder: Path) -> str:
    return (
        f"A PostgreSQL whose owner is gone still runs on {folder} and does not end. "
        f"Its pid is the first line of {folder / 'data' / 'postmaster.pid'}: look at it, then end it with `kill -INT`."
    )
