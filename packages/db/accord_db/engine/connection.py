"""One connection to PostgreSQL, driven from the event loop through libpq.

psycopg connects, cancels and converts values. The round trip is Accord's code, because it takes most of the CPU time of a call:
the socket stays registered with the event loop, and a statement passes no cursor, lock or generator on its way to libpq. So a
select of one row costs 16 µs of CPU, against 63 µs through psycopg's cursor and pool.
"""

import asyncio
import random
from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from time import perf_counter
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import error_from_result
from psycopg.pq import DiagnosticField, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult

from accord_db.engine.connection_string import has_several_hosts, parse, parse_for_writing
from accord_db.engine.errors import READ_ONLY, Conflict, DatabaseError, Unavailable, translate
from accord_db.engine.metrics import Metrics
from accord_db.engine.row_level_security import GATEWAY_ROLE
from accord_db.engine.statements import Query

# Integers, as libpq returns them: a comparison with an enum member takes ten times as long.
_IDLE, _ACTIVE = int(TransactionStatus.IDLE), int(TransactionStatus.ACTIVE)
_IN_TRANSACTION = frozenset(map(int, (TransactionStatus.INTRANS, TransactionStatus.INERROR)))
_FAILED = frozenset(map(int, (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE, ExecStatus.PIPELINE_ABORTED)))
_END_OF_PIPELINE = int(ExecStatus.PIPELINE_SYNC)

# Further statements run unprepared. The limit guards against code that builds a new text for every call.
_MAX_PREPARED = 500
# Errors of a prepared statement after its tables have changed, or if another client of a pooler prepared it.
_STALE = frozenset({"0A000", "26000"})
# Also "on" while the server is in recovery.
_STATE = Query(b"SELECT current_setting('transaction_read_only'), clock_timestamp()", operation="select")
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class DatabaseSettings:
    dsn: str
    pool_size: int = 10
    pool_wait: float = 2.0  # seconds to wait for a connection; shorter than the deadlines of calls
    pool_queue: int = 200  # the maximum number of waiting callers
    statement_timeout: float = 30.0  # seconds, for statements of calls without an earlier deadline
    prepare: bool = True  # False behind a pooler with transaction pooling
    role: str | None = GATEWAY_ROLE  # the role to act as; behind a pooler the login role must act as it
    application_name: str = "accord"
    connection_lifetime: float = 3600.0  # seconds


async def connect(
    settings: DatabaseSettings, metrics: Metrics, on_lost: "Callable[[Connection], None]"
) -> "Connection":
    """Raises Unavailable. `on_lost` runs when the server closes the connection."""
    try:
        driver = await AsyncConnection.connect(**_parameters(settings), autocommit=True)
    except psycopg.Error as error:
        raise translate(error) from None
    return Connection(driver, settings, metrics, on_lost)


class Connection:
    def __init__(
        self,
        driver: AsyncConnection[Any],
        settings: DatabaseSettings,
        metrics: Metrics,
        on_lost: "Callable[[Connection], None]",
    ) -> None:
        self._driver = driver
        self._libpq = driver.pgconn
        self._metrics = metrics
        self._on_lost = on_lost
        self._prepares = settings.prepare
        self._prepared: dict[bytes, bytes] = {}
        self._names = count()
        self._results: list[PGresult] = []
        self._in_pipeline = False
        self._waiter: Future[list[PGresult]] | None = None
        self._loop = asyncio.get_running_loop()
        # Random, so that connections that were opened together are not replaced together.
        self._expiry = self._loop.time() + settings.connection_lifetime * random.uniform(0.9, 1)  # noqa: S311 — no secret
        self.closed = False
        self.read_only = False
        self._socket = self._libpq.socket
        self._loop.add_reader(self._socket, self._read)

    @property
    def idle(self) -> bool:
        """No statement runs and no transaction is open."""
        return self._libpq.transaction_status == _IDLE

    @property
    def in_transaction(self) -> bool:
        """A transaction is open, and no statement runs. It may have failed."""
        return self._libpq.transaction_status in _IN_TRANSACTION

    @property
    def expired(self) -> bool:
        return self._loop.time() > self._expiry

    def expire(self) -> None:
        self._expiry = 0

    async def execute(self, query: Query, *, after: Sequence[Query] = ()) -> PGresult:
        """The result of the query. The queries in `after` are sent before it in the same round trip; outside of a transaction,
        all of them are one."""
        meter = self._metrics.meter(query.operation, query.table)
        started = perf_counter()
        try:
            return await (self._execute_pipelined((*after, query)) if after else self._execute(query))
        except psycopg.Error as error:
            raise self._counted(translate(error)) from None
        except DatabaseError as error:
            if self._counted(error).sqlstate in _STALE and self._prepared:
                return await self._execute_unprepared((*after, query))
            raise
        finally:
            meter.queries.inc()
            meter.duration.observe(perf_counter() - started)

    async def command(self, sql: bytes) -> PGresult:
        """Executes a command without parameters and rows, such as COMMIT. Metrics do not count it."""
        try:
            self._libpq.send_query(sql)
            return (await self._result())[-1]
        except psycopg.Error as error:
            raise translate(error) from None

    async def require_writable(self) -> datetime:
        """The time on the server's clock. Raises Unavailable if the server is read-only."""
        read_only, now = await self._state()
        if read_only:
            self.read_only = True
            raise self._counted(Unavailable("the server is read-only", sqlstate=READ_ONLY))
        return now

    async def server_time(self) -> datetime:
        return (await self._state())[1]

    async def _state(self) -> tuple[bool, datetime]:
        """Whether the server is read-only, and the time on its clock."""
        result = await self.execute(_STATE)
        read_only, microseconds = result.get_value(0, 0), result.get_value(0, 1)
        assert microseconds is not None
        now = _POSTGRES_EPOCH + timedelta(microseconds=int.from_bytes(microseconds, "big", signed=True))
        return read_only != b"off", now

    async def recover(self) -> None:
        """Makes the connection of a cancelled caller idle: cancels the statement and rolls back."""
        try:
            if self._libpq.transaction_status == _ACTIVE:
                await self._driver.cancel_safe()
            if self._libpq.transaction_status == _ACTIVE:
                await self._settled()
        except psycopg.Error as error:
            raise translate(error) from None
        if not self.idle:
            await self.command(b"ROLLBACK")

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._libpq.finish()

    async def _execute(self, query: Query) -> PGresult:
        name = self._prepared.get(query.sql) or await self._prepare(query)
        self._send(name, query)
        return (await self._result())[-1]

    async def _execute_pipelined(self, queries: Sequence[Query]) -> PGresult:
        named = [(self._prepared.get(q.sql) or await self._prepare(q), q) for q in queries]
        self._in_pipeline = True
        self._libpq.enter_pipeline_mode()
        for name, query in named:
            self._send(name, query)
        self._libpq.pipeline_sync()
        return (await self._result())[-1]

    async def _execute_unprepared(self, queries: Sequence[Query]) -> PGresult:
        """After a migration has changed the tables of prepared statements. Raises Conflict in a transaction, which has failed."""
        self._prepared.clear()
        if not self.idle:
            self.expire()
            raise Conflict("a table has changed under a prepared statement")
        await self.command(b"DEALLOCATE ALL")
        return await self._execute_pipelined(queries)

    async def _prepare(self, query: Query) -> bytes:
        """The name of the prepared statement; empty for an unprepared one."""
        if not (self._prepares and query.prepared) or len(self._prepared) >= _MAX_PREPARED:
            return b""
        name = b"s%d" % next(self._names)  # never reused: a cancelled caller does not know whether it was prepared
        self._libpq.send_prepare(name, query.sql)
        await self._result()
        self._prepared[query.sql] = name
        return name

    def _send(self, name: bytes, query: Query) -> None:
        sql, values, formats = query[:3]
        if name:
            self._libpq.send_query_prepared(name, values, formats, result_format=Format.BINARY)
        else:
            self._libpq.send_query_params(sql, values, None, formats, result_format=Format.BINARY)

    def _counted(self, error: DatabaseError) -> DatabaseError:
        self._metrics.count_error(error.sqlstate)
        self.read_only = self.read_only or error.sqlstate == READ_ONLY
        return error

    async def _result(self) -> list[PGresult]:
        results = await self._settled()
        for result in results:
            if result.status in _FAILED:
                raise translate(error_from_result(result))
        return results

    def _settled(self) -> Future[list[PGresult]]:
        """All results until the server is ready for the next query."""
        self._waiter = waiter = self._loop.create_future()
        if self._libpq.flush():
            self._loop.add_writer(self._socket, self._write)
        return waiter

    def _write(self) -> None:
        try:
            if not self._libpq.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._lose(error)

    def _read(self) -> None:
        try:
            self._libpq.consume_input()
            while not self._libpq.is_busy():
                result = self._libpq.get_result()
                if result is not None and result.status != _END_OF_PIPELINE:
                    self._results.append(result)
                    if _ends_connection(result):
                        # Do not wait for the end of the stream: if the server closes with unread input, libuv reports the
                        # error of the socket once, which may have been the event handled now.
                        return self._lose(error_from_result(result))
                elif result is not None or not self._in_pipeline:
                    return self._settle()
        except psycopg.Error as error:
            self._lose(error)

    def _settle(self) -> None:
        if self._in_pipeline:
            self._in_pipeline = False
            self._libpq.exit_pipeline_mode()
        results, self._results = self._results, []
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(results)

    def _lose(self, error: psycopg.Error) -> None:
        """The server closed the connection. A result that came before may have the reason."""
        waiter, self._waiter = self._waiter, None
        self.close()
        if waiter is not None and not waiter.done():
            errors = [error_from_result(result) for result in self._results if result.status in _FAILED]
            waiter.set_exception(translate(errors[0] if errors else error))
        self._on_lost(self)


def _ends_connection(result: PGresult) -> bool:
    return result.status in _FAILED and result.error_field(DiagnosticField.SEVERITY_NONLOCALIZED) in (
        b"FATAL",
        b"PANIC",
    )


def _parameters(settings: DatabaseSettings) -> dict[str, Any]:
    """Those of the connection string, with defaults that detect a lost server."""
    # A pooler reports the state of the server that it connected to first, which may not be the current one.
    given = parse_for_writing(settings.dsn) if settings.prepare else parse(settings.dsn)
    if has_several_hosts(given):
        given = parse_for_writing(settings.dsn)
    filled = {
        "application_name": settings.application_name,
        "connect_timeout": 5,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        **given,
        "client_encoding": "UTF8",  # required by statements.py
    }
    if settings.prepare:  # poolers reject options: there the role sets them (ALTER ROLE … SET …)
        filled["options"] = f"{_options(settings)} {given.get('options') or ''}"
    return filled


def _options(settings: DatabaseSettings) -> str:
    timeout = int(settings.statement_timeout * 1000)
    options: dict[str, object] = {
        "statement_timeout": timeout,
        "idle_in_transaction_session_timeout": timeout,
        "client_connection_check_interval": 1000,  # ms until a backend notices that its client is gone
    }
    if settings.role:
        options["role"] = settings.role
    return " ".join(f"-c {name}={value}" for name, value in options.items())
