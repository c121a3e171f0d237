"""PostgreSQL's programs as processes: under an account, in a session of their own, bound to the life of this one."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

TRAMPOLINE = Path(__file__).with_name("trampoline.py")


def launch(
    program: Sequence[str | Path],
    *,
    identity: str,
    folder: Path,
    output: IO[bytes] | int,
    keep_open: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """The process keeps its pid when it turns into the program. `identity` is explained in trampoline.py."""
    trampoline: list[str | Path] = [sys.executable, "-I", "-S", TRAMPOLINE, str(os.getpid()), folder, identity]
    return subprocess.Popen(
        [*trampoline, *program],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=keep_open,
        start_new_session=True,  # Ctrl-C in the terminal is for the owner, which stops PostgreSQL last
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """PostgreSQL's fast shutdown; should that hang, the immediate one; should that hang too, SIGKILL."""
    for request, patience in ((signal.SIGINT, 30.0), (signal.SIGQUIT, 6.0), (signal.SIGKILL, 5.0)):
        process.send_signal(request)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return


def kill(process: subprocess.Popen[bytes]) -> None:
    """With everything that it runs, at once. For initdb, which would leave a server of its own behind, and whose
    unfinished work is thrown away in any case."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
