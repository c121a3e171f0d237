"""One of several workers: serves what its supervisor says, and ends with it."""

import ctypes
import os
import pickle
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

READY = b"r"
PR_SET_PDEATHSIG = 1


def work(figures: Path) -> None:
    """Raises StartRefused. The supervisor is at the other end of the socket that is standard input."""
    _end_with_supervisor()
    # prometheus_client reads it when it is imported, and then never again.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(figures)  # noqa: TID251  # written, not read
    # Importing takes a while, during which the supervisor prepares.
    from accord_gateway import event_loop, lifecycle, logs
    from accord_gateway.settings import ignore_libpq_environment
    from accord_gateway.shutdown import Shutdown

    supervisor = socket.socket(fileno=sys.stdin.fileno())

    async def live() -> None:
        stop = Shutdown()
        stop.on_signals()
        stop.when_closed(supervisor)  # nothing more is said over it
        await lifecycle.serve(orders, stop, lambda _: _say_ready(supervisor))

    with suppress(EOFError):  # the supervisor has given up
        orders = pickle.load(supervisor.makefile("rb"))  # noqa: S301  # from nobody but the supervisor
        logs.configure(orders.settings)
        ignore_libpq_environment(orders.settings)
        event_loop.run(live())


def _say_ready(supervisor: socket.socket) -> None:
    with suppress(OSError):
        supervisor.send(READY)


def _end_with_supervisor() -> None:
    """The kernel tells us should the supervisor be killed, even while we are busy importing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
