"""A worker process as its supervisor sees it.

Workers are new programs, never forks: forking a process that has used gRPC is unsafe, and a reload needs the new code. Each is
tied to its supervisor by a socket and, on Linux, by the kernel, so that no worker survives even kill -9 of the supervisor.
"""

import asyncio
import json
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from accord_gateway.errors import StartupError
from accord_gateway.process.configuration import Unchangeable, WorkerConfig
from accord_gateway.process.worker import MESSAGE_SIZE_BYTES
from accord_gateway.shutdown import RETIRE


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
        self._received = b""
        self.pid = self._process.pid

    async def prepare(self, running: Unchangeable) -> WorkerConfig:
        """Reads the settings again, and prepares the database for the new code. Raises StartupError."""
        await self._send({"prepare": dict(running)})
        return WorkerConfig.from_json((await self._reported("prepared"))["prepared"])

    async def start_serving(self, config: WorkerConfig) -> None:
        """Returns when it serves. Raises StartupError."""
        await self._send({"serve": config.serialized})
        await self._reported("ready")

    async def wait(self) -> int:
        """Returns the exit status once the process has ended."""
        while await self._receive():
            pass
        status = await asyncio.to_thread(self._process.wait)
        self._socket.close()
        return status

    def retire(self) -> None:
        with suppress(OSError):  # it has ended
            self._socket.send(RETIRE)

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def _send(self, message: Mapping[str, object]) -> None:
        data = pickle.dumps(message)
        with suppress(OSError):  # it has ended
            size = len(data).to_bytes(MESSAGE_SIZE_BYTES)
            await asyncio.get_running_loop().sock_sendall(self._socket, size + data)

    async def _reported(self, name: str) -> Mapping[str, Any]:
        message = await self._receive()
        if name not in message:
            raise StartupError(message.get("error", "It printed the reason above."))
        return message

    async def _receive(self) -> Mapping[str, Any]:
        """The next message. Empty when the process has ended."""
        while b"\n" not in self._received:
            try:
                received = await asyncio.get_running_loop().sock_recv(self._socket, 64 * 1024)
            except OSError:
                received = b""
            if not received:
                return {}
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        message: Mapping[str, Any] = json.loads(line)
        return message
