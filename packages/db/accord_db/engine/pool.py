import asyncio
import logging
import random
from asyncio import Future, Task
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from accord_db.engine.connection import Connection, DatabaseSettings
from accord_db.engine.errors import DatabaseError, Unavailable
from accord_db.engine.metrics import Metrics
from accord_db.engine.scope import remaining

_FIRST_DELAY, _LAST_DELAY = 0.05, 0.5  # seconds
_RECOVERY_TIME = 5.0  # seconds
_CONGESTION = 200  # waiting callers, who at thousand statements a second wait for a fifth of one

_log = logging.getLogger(__name__)


Lost = Callable[[Connection], None]
Connect = Callable[[Lost], Awaitable[Connection]]


class Pool:
    """A fixed number of connections, each used by one caller at a time. Lost connections are replaced.

    Callers get the connection that was released last, so that a quiet service uses few backends. Waiting callers are served in
    order.
    """

    def __init__(self, connect: Connect, settings: DatabaseSettings, metrics: Metrics) -> None:
        self._connect = connect
        self._size = settings.pool_size
        self._max_wait = settings.pool_wait
        self._max_waiters = settings.pool_queue
        self._metrics = metrics
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._waiters: deque[Future[Connection]] = deque()
        self._filling: Task[None] | None = None
        self._recoveries: set[Task[None]] = set()
        self._failure = ""
        self._expirations = 0  # how often all connections expired at once
        self._closed = False

    @property
    def room(self) -> int:
        return _CONGESTION - len(self._waiters)

    async def start(self) -> None:
        """Opens one connection, and the others in the background. Raises Unavailable."""
        self._add(await self._connect(self._lost))
        self._refill()

    async def acquire(self, *, max_wait: float | None = None) -> Connection:
        """Waits for at most `max_wait` seconds, by default as long as the settings specify. Raises Unavailable."""
        if self._idle:
            return self._idle.pop()
        return await self._wait(self._default_max_wait() if max_wait is None else max_wait)

    def release(self, connection: Connection) -> None:
        if connection.read_only:
            self._expire_all()
        if connection.closed:
            self._forget(connection)
        elif self._closed or connection.expired:
            connection.close()
            self._forget(connection)
        elif connection.idle:
            self._lend(connection)
        else:
            self._start_recovery(connection)

    async def close(self) -> None:
        self._closed = True
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(self._unavailable("the database is being closed"))
        while self._idle:
            self.release(self._idle.pop())
        if self._filling:
            self._filling.cancel()
        await asyncio.gather(*self._recoveries, *filter(None, [self._filling]), return_exceptions=True)

    async def _wait(self, max_wait: float) -> Connection:
        if self._closed or len(self._waiters) >= self._max_waiters:
            raise self._unavailable(
                "the database is closed" if self._closed else "too many calls wait for a connection"
            )
        self._refill()
        loop = asyncio.get_running_loop()
        waiter: Future[Connection] = loop.create_future()
        timer = loop.call_later(max_wait, self._time_out, waiter)
        self._waiters.append(waiter)
        try:
            return await waiter
        except BaseException:
            self._stop_waiting(waiter)
            raise
        finally:
            timer.cancel()

    def _default_max_wait(self) -> float:
        left = remaining()
        return self._max_wait if left is None else min(self._max_wait, left)

    def _time_out(self, waiter: Future[Connection]) -> None:
        if not waiter.done():
            failure = f", and none could be opened: {self._failure}" if self._failure else ""
            waiter.set_exception(self._unavailable(f"no connection became free in time{failure}"))

    def _unavailable(self, reason: str) -> Unavailable:
        self._metrics.count_error(None)
        return Unavailable(reason)

    def _stop_waiting(self, waiter: Future[Connection]) -> None:
        """The caller was cancelled. It may have been given a connection at the same moment."""
        with suppress(ValueError):
            self._waiters.remove(waiter)
        if waiter.done() and not waiter.cancelled() and not waiter.exception():
            self.release(waiter.result())

    def _lend(self, connection: Connection) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def _add(self, connection: Connection) -> None:
        self._open.add(connection)
        self._metrics.pool_size.inc()
        self._lend(connection)

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._metrics.pool_size.dec()
        self._refill()

    def _lost(self, connection: Connection) -> None:
        """A connection that is in use is handled when it is released."""
        if connection in self._idle:
            self._idle.remove(connection)
            self._forget(connection)

    def _expire_all(self) -> None:
        """Another server takes writes now, or none does. Connections that are in use are closed when they are released."""
        self._expirations += 1
        for connection in self._open:
            connection.expire()
        while self._idle:
            connection = self._idle.pop()
            connection.close()
            self._forget(connection)

    def _refill(self) -> None:
        vacant = len(self._open) < self._size and not self._closed
        if vacant and (self._filling is None or self._filling.done()):
            self._filling = asyncio.create_task(self._fill(), name="database pool")

    async def _fill(self) -> None:
        delay = _FIRST_DELAY
        while len(self._open) < self._size:
            try:
                self._add(await self._open_connection())
                delay, self._failure = _FIRST_DELAY, ""
            except DatabaseError as error:
                if str(error) != self._failure:
                    _log.warning("cannot connect to the database: %s", error)
                self._failure = str(error)
                await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 — no secret
                delay = min(delay * 2, _LAST_DELAY)

    async def _open_connection(self) -> Connection:
        """Again if all connections expired meanwhile: the new one may be to a server that takes no writes any more."""
        while True:
            expirations = self._expirations
            connection = await self._connect(self._lost)
            if expirations == self._expirations:
                return connection
            connection.close()

    def _start_recovery(self, connection: Connection) -> None:
        task = asyncio.create_task(self._recover(connection), name="database recovery")
        self._recoveries.add(task)
        task.add_done_callback(self._recoveries.discard)

    async def _recover(self, connection: Connection) -> None:
        """After its caller was cancelled: no other caller may get the rest of the result, or the open transaction."""
        try:
            async with asyncio.timeout(_RECOVERY_TIME):
                await connection.recover()
        except (DatabaseError, TimeoutError) as error:
            _log.warning("cannot recover a database connection: %s", error)
        finally:
            if not connection.idle:
                connection.close()
            self.release(connection)
