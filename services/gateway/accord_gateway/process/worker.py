"""One of several workers. It serves with the configuration that its supervisor sends, and ends with its supervisor."""

import ctypes
import os
import pickle
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

READY = b"r"
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def run_worker(metrics_folder: Path, inherited: Sequence[int]) -> None:
    """Standard input is the socket to the supervisor. `inherited` are descriptors of bound sockets to listen on. Raises StartupError."""
    _end_with_supervisor()
    # prometheus_client reads this variable once, when it is imported.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_folder)  # noqa: TID251  # written, not read
    # These imports take long. Meanwhile the supervisor prepares the database.
    from accord_gateway import event_loop, lifecycle, logs
    from accord_gateway.settings import ignore_libpq_environment
    from accord_gateway.shutdown import Shutdown

    supervisor = socket.socket(fileno=sys.stdin.fileno())
    sockets = [socket.socket(fileno=descriptor) for descriptor in inherited]

    async def run() -> None:
        shutdown = Shutdown()
        shutdown.handle_signals()
        shutdown.request_when_closed(supervisor)  # the supervisor sends nothing after the configuration
        await lifecycle.serve(config, shutdown, lambda _: _report_ready(supervisor), sockets)

    with suppress(EOFError):  # the supervisor ended before it sent the configuration
        config = pickle.load(supervisor.makefile("rb"))  # noqa: S301  # only the supervisor has the other end
        logs.configure(config.settings)
        ignore_libpq_environment(config.settings)
        event_loop.run(run())


def _report_ready(supervisor: socket.socket) -> None:
    with suppress(OSError):
        supervisor.send(READY)


def _end_with_supervisor() -> None:
    """The kernel sends SIGHUP if the supervisor is killed, also during the imports, when nothing reads the socket."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
