"""Requests to shut down, from signals, from a closed connection or from a reload."""

import asyncio
import signal
import socket
from collections.abc import Awaitable
from typing import Final

RETIRE: Final = b"r"
"""The supervisor sends it to a worker that others have replaced."""


class Shutdown:
    """The first request lets running calls finish. A second one forces the end."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()
        self.retiring = False
        """Whether others already serve on the same sockets."""
        self._requests = 0

    def request(self) -> None:
        self._requests += 1
        self.requested.set()
        if self._requests > 1:
            self.forced.set()

    def retire(self) -> None:
        """Never forces, and a later request does not either."""
        self.retiring = not self.requested.is_set()
        self.requested.set()

    def handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request)

    def handle_end_of_supervisor(self, connection: socket.socket) -> None:
        """The connection and SIGHUP report the same event, so neither forces."""
        loop = asyncio.get_running_loop()

        def readable() -> None:
            if connection.recv(1) == RETIRE:
                self.retire()
            else:
                loop.remove_reader(connection)
                self.requested.set()

        loop.add_signal_handler(signal.SIGHUP, self.requested.set)
        loop.add_reader(connection, readable)

    async def wait_unless_forced(self, work: Awaitable[object]) -> None:
        """Returns when the work is done or the shutdown is forced, which cancels the work."""
        waiting = {asyncio.ensure_future(work), asyncio.create_task(self.forced.wait())}
        _, unfinished = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in unfinished:
            task.cancel()
