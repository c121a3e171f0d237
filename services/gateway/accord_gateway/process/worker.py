"""One of several workers. It serves with the configuration that its supervisor sends, and ends with its supervisor."""

import ctypes
import json
import os
import pickle
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from accord_gateway.errors import StartupError

if TYPE_CHECKING:
    from accord_gateway.process.configuration import Unchangeable
    from accord_gateway.startup import ServeConfig

PR_SET_PDEATHSIG: Final = 1  # of linux/prctl.h
MESSAGE_SIZE_BYTES: Final = 4  # before each message of the supervisor


def run_worker(metrics_folder: Path, inherited: Sequence[int]) -> None:
    """Standard input is the socket to the supervisor. `inherited` are descriptors of bound sockets to listen on."""
    _end_with_supervisor()
    # prometheus_client reads this variable once, when it is imported.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_folder)  # noqa: TID251  # written, not read
    supervisor = socket.socket(fileno=sys.stdin.fileno())
    sockets = [socket.socket(fileno=descriptor) for descriptor in inherited]
    with suppress(EOFError):  # the supervisor ended before it sent the configuration
        try:
            _run(supervisor, sockets)
        except StartupError as error:
            _report(supervisor, {"error": str(error)})


def _run(supervisor: socket.socket, sockets: Sequence[socket.socket]) -> None:
    # These imports take long. Meanwhile the supervisor prepares the database.
    from accord_gateway import event_loop, lifecycle, logs
    from accord_gateway.settings import ignore_libpq_environment
    from accord_gateway.shutdown import Shutdown

    async def run() -> None:
        shutdown = Shutdown()
        shutdown.handle_signals()
        shutdown.handle_end_of_supervisor(supervisor)
        await lifecycle.serve(config, shutdown, lambda _: _report(supervisor, {"ready": True}), sockets)

    config = _configuration(supervisor)
    logs.configure(config.settings)
    ignore_libpq_environment(config.settings)
    event_loop.run(run())


def _configuration(supervisor: socket.socket) -> "ServeConfig":
    """Sent by the supervisor. In a reload, the first of the new workers prepares it. Raises StartupError, EOFError."""
    message = _receive(supervisor)
    if "prepare" in message:
        _prepare(supervisor, message["prepare"])
        message = _receive(supervisor)
    config: ServeConfig = pickle.loads(message["serve"])  # noqa: S301  # only the supervisor has the other end
    return config


def _prepare(supervisor: socket.socket, running: "Unchangeable") -> None:
    from accord_gateway import logs
    from accord_gateway.process.configuration import WorkerConfig, require_unchanged
    from accord_gateway.settings import read_settings
    from accord_gateway.startup import prepare_reload

    settings = read_settings()
    require_unchanged(settings, running)
    logs.configure(settings)
    _report(supervisor, {"prepared": WorkerConfig.of(prepare_reload(settings)).to_json()})


def _receive(supervisor: socket.socket) -> Mapping[str, Any]:
    """Reads no byte of what follows the message. Raises EOFError."""
    size = int.from_bytes(_read(supervisor, MESSAGE_SIZE_BYTES))
    message: Mapping[str, Any] = pickle.loads(_read(supervisor, size))  # noqa: S301  # only the supervisor has the other end
    return message


def _read(supervisor: socket.socket, size: int) -> bytes:
    data = supervisor.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise EOFError
    return data


def _report(supervisor: socket.socket, message: Mapping[str, object]) -> None:
    with suppress(OSError):
        supervisor.sendall(json.dumps(message).encode() + b"\n")


def _end_with_supervisor() -> None:
    """The kernel sends SIGHUP if the supervisor is killed, also during the imports, when nothing reads the socket."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored after `nohup accord serve`
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
