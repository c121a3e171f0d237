"""Hears what other processes notify through the database."""

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
_PATIENCE = 5  # seconds without an answer, after which a connection is taken for lost

_TRANSACTION_READ_ONLY = "SHOW transaction_read_only"

_log = logging.getLogger(__name__)


class Listener:
    """Hears what is notified on its channels, over a connection of its own: a pooler would not pass it on.

    A notification is a wake-up and may be lost. Who relies on having heard all of them looks at `connected`, and starts
    anew whenever that has changed.
    """

    def __init__(self, dsn: str, *, heartbeat: float = 5.0) -> None:
        self._dsn = dsn
        self._heartbeat = heartbeat
        self._heard: dict[str, Callable[[str], None]] = {}
        self._changed: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self.connected = False

    def listen(self, channel: str, heard: Callable[[str], None]) -> None:
        """To be said before `start`; `heard` is given the payload."""
        self._heard[channel] = heard

    def on_change(self, changed: Callable[[], None]) -> None:
        """`changed` is called when the connection is there, before anything is heard of it, and when it is gone."""
        self._changed.append(changed)

    async def start(self) -> None:
        """Returns at once; `connected` tells when it listens."""
        self._task = asyncio.create_task(self._keep_listening(), name="database listener")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._set_connected(False)

    def _set_connected(self, connected: bool) -> None:
        self.connected = connected
        for changed in self._changed:
            changed()

    async def _keep_listening(self) -> None:
        delays, logged = _delays(), ""
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 — whatever it was, to be deaf for ever would be worse
                reason = str(translate(error) if isinstance(error, psycopg.Error) else error)
                if self.connected or reason != logged:
                    _log.warning("not listening to the database: %s", reason)
                logged = reason
            if self.connected:
                self._set_connected(False)
                delays = _delays()
            await asyncio.sleep(next(delays))

    async def _listen(self) -> None:
        parameters = {"application_name": "accord-listen", **parse_for_writing(self._dsn), "connect_timeout": _PATIENCE}
        async with await AsyncConnection.connect(**parameters, autocommit=True) as connection:
            for channel in self._heard:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            self._set_connected(True)
            while True:
                async for notification in connection.notifies(timeout=self._heartbeat):
                    self._heard[notification.channel](notification.payload)
                await _require_writable(connection)


async def _require_writable(connection: AsyncConnection[Any]) -> None:
    """A lost connection looks like one without notifications, and a read-only server sends none: writes happen elsewhere."""
    async with asyncio.timeout(_PATIENCE):
        row = await (await connection.execute(_TRANSACTION_READ_ONLY)).fetchone()
    if row != ("off",):
        raise Unavailable("the server is read-only", sqlstate=READ_ONLY)


def _delays() -> Iterator[float]:
    delay = _FIRST_DELAY
    while True:
        yield delay * random.uniform(0.5, 1)  # noqa: S311 — no secret
        delay = min(delay * 2, _LAST_DELAY)
