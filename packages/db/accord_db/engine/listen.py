"""LISTEN: notifications that other processes send through the database."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from accord_db.engine.connection_string import parse_for_writing
from accord_db.engine.errors import READ_ONLY, Unavailable, translate

_FIRST_DELAY, _LAST_DELAY = 0.05, 1.0  # seconds
_TIMEOUT = 5  # seconds without a response, after which the connection counts as lost

_TRANSACTION_READ_ONLY = "SHOW transaction_read_only"

_log = logging.getLogger(__name__)


class Listener:
    """Listens on channels, over a dedicated connection: poolers do not forward notifications.

    A notification wakes up the receiver, and can be lost. A receiver that needs every notification must discard its state
    whenever `connected` changes.
    """

    def __init__(self, dsn: str, *, heartbeat: float = 5.0) -> None:
        self._dsn = dsn
        self._heartbeat = heartbeat
        self._handlers: dict[str, Callable[[str], None]] = {}
        self._on_change: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self.connected = False

    def listen(self, channel: str, handler: Callable[[str], None]) -> None:
        """Call it before `start`. The handler gets the payload."""
        self._handlers[channel] = handler

    def on_change(self, callback: Callable[[], None]) -> None:
        """The callback runs after `connected` has changed: when a connection listens, before its first notification, and when
        the connection is lost."""
        self._on_change.append(callback)

    async def start(self) -> None:
        """Returns before the connection is open: see `connected`."""
        self._task = asyncio.create_task(self._keep_listening(), name="database listener")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._set_connected(False)

    def _set_connected(self, connected: bool) -> None:
        self.connected = connected
        for callback in self._on_change:
            callback()

    async def _keep_listening(self) -> None:
        delays, logged = _delays(), ""
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 — the listener must retry after any error
                reason = str(translate(error) if isinstance(error, psycopg.Error) else error)
                if self.connected or reason != logged:
                    _log.warning("not listening to the database: %s", reason)
                logged = reason
            if self.connected:
                self._set_connected(False)
                delays = _delays()
            await asyncio.sleep(next(delays))

    async def _listen(self) -> None:
        parameters = {"application_name": "accord-listen", **parse_for_writing(self._dsn), "connect_timeout": _TIMEOUT}
        async with await AsyncConnection.connect(**parameters, autocommit=True) as connection:
            for channel in self._handlers:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            self._set_connected(True)
            while True:
                async for notification in connection.notifies(timeout=self._heartbeat):
                    self._handlers[notification.channel](notification.payload)
                await _require_writable(connection)


async def _require_writable(connection: AsyncConnection[Any]) -> None:
    """A lost connection looks like one without notifications, and a read-only server sends none: writes happen elsewhere."""
    async with asyncio.timeout(_TIMEOUT):
        row = await (await connection.execute(_TRANSACTION_READ_ONLY)).fetchone()
    if row != ("off",):
        raise Unavailable("the server is read-only", sqlstate=READ_ONLY)


def _delays() -> Iterator[float]:
    delay = _FIRST_DELAY
    while True:
        yield delay * random.uniform(0.5, 1)  # noqa: S311 — no secret
        delay = min(delay * 2, _LAST_DELAY)
