"""A worker process as its supervisor sees it.

Workers are new programs, never forks: forking a process that has used gRPC is unsafe. Each is tied to its supervisor by a
socket and, on Linux, by the kernel, so that no worker survives even kill -9 of the supervisor.
"""

import asyncio
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from accord_gateway.process.worker import READY

if TYPE_CHECKING:
    from accord_gateway.startup import ServeConfig


class WorkerHandle:
    """Starts a process, which waits for its configuration. The end of either process closes the socket between them."""

    def __init__(self, metrics_folder: Path, sockets: Sequence[socket.socket] = ()) -> None:
        """The process inherits bound `sockets` to listen on."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = [sock.fileno() for sock in sockets]
            command = [sys.executable, "-m", "accord_gateway", "worker", str(metrics_folder), *map(str, descriptors)]
            # In a new session, so that Ctrl-C in the terminal reaches only the supervisor, which signals the workers.
            self._process = subprocess.Popen(
                command, stdin=theirs.fileno(), start_new_session=True, pass_fds=descriptors
            )
        ours.setblocking(False)
        self._socket = ours
        self.pid = self._process.pid

    async def start_serving(self, config: "ServeConfig") -> bool:
        """Whether it serves. Otherwise it has printed the reason and ended."""
        with suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._socket, pickle.dumps(config))
        return await self._receive() == READY

    async def wait(self) -> int:
        """Returns the exit status once the process has ended."""
        await self._receive()
        status = await asyncio.to_thread(self._process.wait)
        self._socket.close()
        return status

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def _receive(self) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self._socket, 1)
        except OSError:
            return b""
