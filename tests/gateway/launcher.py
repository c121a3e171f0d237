"""Starts `accord` commands by forking a process that has imported Accord: an import takes a second of CPU time, and the
tests start hundreds of commands.

A forked command has its own session, folder, environment and output, as a new program has. Tests of the import itself, of
standard streams and of the command line start a program instead.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final, NamedTuple, cast

TIMEOUT: Final = 60.0  # seconds
MAX_REQUEST: Final = 128 * 1024  # bytes; a request contains the environment
PACKETS: Final = socket.SOCK_SEQPACKET
# What the commands import when they run.
MODULES: Final = (
    "accord_gateway.__main__",
    "accord_gateway.cli.account",
    "accord_gateway.cli.admin",
    "accord_gateway.cli.banner",
    "accord_gateway.cli.doctor",
    "accord_gateway.cli.migrate",
    "accord_gateway.cli.reload",
    "accord_gateway.cli.rotate_keys",
    "accord_gateway.event_loop",
    "accord_gateway.lifecycle",
    "accord_gateway.logs",
    "accord_gateway.process.postgres",
    "accord_gateway.process.serve",
    "accord_gateway.process.supervision",
    "accord_gateway.server.reflection",
    "accord_gateway.startup",
)


class Command:
    """As much of `subprocess.Popen` as the tests use. `args` are those of `accord`."""

    def __init__(self, args: Sequence[str], pid: int, status: socket.socket) -> None:
        self.args = args
        self.pid = pid
        self.returncode: int | None = None
        self._status = status  # receives the exit status

    def poll(self) -> int | None:
        return self._receive(0.0)

    def wait(self, timeout: float | None = None) -> int:
        if (status := self._receive(timeout)) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _receive(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._status.settimeout(timeout)
            with suppress(BlockingIOError, TimeoutError):
                self.returncode = int(self._status.recv(32))
                self._status.close()
        return self.returncode


class Launcher:
    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, PACKETS)
        with theirs:
            self._process = subprocess.Popen([sys.executable, __file__], stdin=theirs.fileno())

    def close(self) -> None:
        self._control.close()
        self._process.wait(TIMEOUT)

    def start(
        self, args: Sequence[str], folder: Path, env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes]
    ) -> Command:
        request = json.dumps({"args": args, "folder": str(folder), "env": dict(env)}).encode()
        status, theirs = socket.socketpair(socket.AF_UNIX, PACKETS)
        with theirs:
            socket.send_fds(self._control, [request], [theirs.fileno(), stdout.fileno(), stderr.fileno()])
        return Command(args, int(status.recv(32)), status)

    def run(self, args: Sequence[str], folder: Path, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
        with TemporaryFile() as stdout, TemporaryFile() as stderr:
            status = self.start(args, folder, env, stdout, stderr).wait(TIMEOUT)
            return subprocess.CompletedProcess(args, status, _text(stdout), _text(stderr))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


# --- the process ------------------------------------------------------------------------------------------------------
class _Requested(NamedTuple):
    args: list[str]
    folder: str
    env: dict[str, str]
    status: socket.socket
    stdout: int
    stderr: int


def _serve(control: socket.socket) -> _Requested | None:
    """Forks for each request, and reports the end of each command. Returns the request in the new process, and None after
    the tests."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fileobj)
                    _report(cast(int, key.fileobj), *key.data)
                elif (requested := _receive(control)) is None:
                    return None
                elif (pid := os.fork()) == 0:
                    return requested
                else:
                    os.close(requested.stdout)
                    os.close(requested.stderr)
                    requested.status.send(b"%d" % pid)
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, requested.status))


def _receive(control: socket.socket) -> _Requested | None:
    request, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST, 3)
    if not request:
        return None
    status, stdout, stderr = descriptors
    return _Requested(**json.loads(request), status=socket.socket(fileno=status), stdout=stdout, stderr=stderr)


def _report(descriptor: int, pid: int, status: socket.socket) -> None:
    os.close(descriptor)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with status, suppress(OSError):  # the test has not waited for it
        status.send(b"%d" % ended)


def _become(requested: _Requested) -> None:
    """Gives this process what a new program would have."""
    os.setsid()
    os.chdir(requested.folder)
    os.environ.clear()
    os.environ.update(requested.env)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(requested.stdout, 1)
    os.dup2(requested.stderr, 2)
    requested.status.detach()
    os.closerange(3, 1024)
    sys.argv = ["accord", *requested.args]


def _main() -> int:
    control = socket.socket(fileno=os.dup(0))
    for module in MODULES:
        importlib.import_module(module)
    # The comparison of the generated code with proto/ takes a second. Tests of `accord doctor` as a program include it.
    installation: Any = importlib.import_module("accord_gateway.cli.doctor.installation")
    installation.STUBS = Path(os.devnull)
    gc.freeze()  # a collection in a forked process would copy the pages that it visits
    requested = _serve(control)
    if requested is None:
        return 0
    control.detach()
    _become(requested)
    status: int = importlib.import_module("accord_gateway.__main__").main(requested.args)
    return status


if __name__ == "__main__":
    sys.exit(_main())
