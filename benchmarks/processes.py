"""Starts and stops the measured processes, and reads their CPU time and memory from /proc."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PATIENCE = 40.0  # seconds for a server to listen
GRACE = 5.0  # seconds for it to end


class Server(NamedTuple):
    """A process that serves on a port of this machine."""

    pid: int
    port: int


@contextmanager
def serving(command: Sequence[str], environment: Mapping[str, str], port: int, folder: Path) -> Iterator[Server]:
    """What it prints goes into a file of the folder, which is also where it runs."""
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            wait_until_listening(process, port, log.name)
            yield Server(process.pid, port)
        finally:
            end(process)


def wait_until_listening(process: subprocess.Popen[bytes], port: int, log: str) -> None:
    end_of_patience = monotonic() + PATIENCE
    while not is_listening(port):
        if process.poll() is not None or monotonic() > end_of_patience:
            raise SystemExit(f"{' '.join(process.args)} does not serve; what it printed is in {log}")
        sleep(0.005)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Usage:
    """The CPU time that every process of this machine had used at one moment."""

    def __init__(self) -> None:
        self._ticks: dict[int, int] = {}
        self._children: dict[int, list[int]] = {}
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            with suppress(OSError):
                self._add(pid, Path(f"/proc/{pid}/stat").read_text())

    def _add(self, pid: int, stat: str) -> None:
        fields = stat.rpartition(")")[2].split()
        self._children.setdefault(int(fields[1]), []).append(pid)
        self._ticks[pid] = sum(map(int, fields[11:15]))  # user and system, its own and of children that ended

    def seconds(self, root: int) -> float:
        """Of a process and all that it started."""
        return sum(self._ticks.get(pid, 0) for pid in self._tree(root)) / TICKS_PER_SECOND

    def _tree(self, root: int) -> Iterator[int]:
        yield root
        for child in self._children.get(root, ()):
            yield from self._tree(child)


def busy_seconds() -> float:
    """CPU time that this machine has spent on anything."""
    user, nice, system, _, _, *others = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + sum(others[:3])) / TICKS_PER_SECOND


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
