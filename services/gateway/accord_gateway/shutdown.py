"""Requests to shut down, from signals or from a closed connection."""

import asyncio
import signal
import socket
from collections.abc import Awaitable


class Shutdown:
    """The first request lets running calls finish. A second one forces the end."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()

    def request(self) -> None:
        (self.forced if self.requested.is_set() else self.requested).set()

    def handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request)
        # The terminal or the supervisor is gone. The closed connection reports the same event, so SIGHUP never forces.
        loop.add_signal_handler(signal.SIGHUP, self.requested.set)

    def request_when_closed(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        def closed() -> None:
            loop.remove_reader(connection)
            self.requested.set()

        loop.add_reader(connection, closed)

    async def wait_unless_forced(self, work: Awaitable[object]) -> None:
        """Returns when the work is done or the shutdown is forced, which cancels the work."""
        waiting = {asyncio.ensure_future(work), asyncio.create_task(self.forced.wait())}
        _, unfinished = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in unfinished:
            task.cancel()
