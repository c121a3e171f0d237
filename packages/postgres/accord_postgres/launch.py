"""Starts PostgreSQL's programs as child processes, in a new session, as another account if necessary. They end with this
process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from accord_postgres.steps import Steps

TRAMPOLINE = Path(__file__).with_name("trampoline.py")
REQUESTS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 6.0), (signal.SIGKILL, 5.0))
"""PostgreSQL's fast and immediate shutdown, then SIGKILL, each with the seconds to wait before the next."""


def launch(
    program: Sequence[str | Path],
    *,
    identity: str,
    folder: Path,
    output: IO[bytes] | int,
    keep_open: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """The process replaces itself with the program and keeps its pid. trampoline.py explains `identity`."""
    trampoline: list[str | Path] = [sys.executable, "-I", "-S", TRAMPOLINE, str(os.getpid()), folder, identity]
    return subprocess.Popen(
        [*trampoline, *program],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=keep_open,
        start_new_session=True,  # Ctrl-C in a terminal reaches the owner, which stops PostgreSQL last
    )


def end(process: subprocess.Popen[bytes]) -> Steps[None]:
    """Sends the signals of REQUESTS until the process has ended."""
    for request, seconds in REQUESTS:
        process.send_signal(request)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return
            yield 0.01


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills the process and its children. For initdb, which starts a server, and whose incomplete data folder is discarded."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
