"""How a process is asked to stop."""

import asyncio
import signal
import socket
from collections.abc import Awaitable


class Shutdown:
    """Asked for once, it means: finish what you are doing. Asked for again: at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def ask(self) -> None:
        (self.hurried if self.asked.is_set() else self.asked).set()

    def on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask)
        # Whoever we belonged to is gone, terminal or supervisor; that is heard of in several ways, and is no hurry.
        loop.add_signal_handler(signal.SIGHUP, self.asked.set)

    def when_closed(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        def closed() -> None:
            loop.remove_reader(connection)
            self.asked.set()

        loop.add_reader(connection, closed)

    async def wait_unless_hurried(self, work: Awaitable[object]) -> None:
        """Returns when the work is done, or when there is no time for it any more."""
        waiting = {asyncio.ensure_future(work), asyncio.create_task(self.hurried.wait())}
        _, unfinished = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in unfinished:
            task.cancel()
