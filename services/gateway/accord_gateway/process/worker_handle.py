"""A serving process, as the one that keeps it running sees it.

Workers are started as new programs and never forked: a fork of a process that has used gRPC is not safe. Each is bound
to its supervisor twice, by a socket and, on Linux, by the kernel, so that none is left behind even by kill -9.
"""

import asyncio
import pickle
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from accord_gateway.process.worker import READY

if TYPE_CHECKING:
    from accord_gateway.startup import ServeConfig


class Worker:
    """One process, as its supervisor sees it. Either learns that the other is gone from the socket between them."""

    def __init__(self, figures: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "accord_gateway", "worker", str(figures)]
            # In a session of its own, so that Ctrl-C in the terminal reaches the supervisor alone, who passes it on.
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), start_new_session=True)
        ours.setblocking(False)
        self._socket = ours
        self.pid = self._process.pid

    async def begin(self, orders: "ServeConfig") -> bool:
        """Whether it serves. If not it has said why, and ended."""
        with suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._socket, pickle.dumps(orders))
        return await self._receive() == READY

    async def ended(self) -> int:
        """Its exit status, once it is gone."""
        await self._receive()
        status = await asyncio.to_thread(self._process.wait)
        self._socket.close()
        return status

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def _receive(self) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self._socket, 1)
        except OSError:
            return b""
