"""The database: `fetch_one`, `fetch_all`, `execute` and `transaction`."""

from asyncio import current_task
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Self

from psycopg.pq.abc import PGresult

from accord_db.engine.clock import DatabaseClock
from accord_db.engine.connection import Connection, DatabaseSettings, connect
from accord_db.engine.executor import Executor
from accord_db.engine.metrics import metrics
from accord_db.engine.pool import Pool
from accord_db.engine.scope import current
from accord_db.engine.statements import Query, set_tenant_query
from accord_db.engine.transaction import CallTransaction, Transaction

__all__ = ["Database", "DatabaseSettings", "Executor", "Transaction", "opened"]


def opened(db: "Database | Transaction") -> AbstractAsyncContextManager[Transaction]:
    """A transaction block on a database; a transaction itself, which stays open. For functions that take either."""
    return nullcontext(db) if isinstance(db, Transaction) else db.transaction()


# Seconds to wait for a connection. Shorter than the timeout of health checks, which report the error.
_PING_MAX_WAIT = 1.5


class Database(Executor):
    """A pool of connections to PostgreSQL. Each statement executed on it is a transaction.

    Inside a `transaction()` block the task must use the block's `tx`. A statement on the database, or a second block, raises
    RuntimeError: it would not be part of the transaction, and could wait for it forever."""

    def __init__(self, pool: Pool, settings: DatabaseSettings) -> None:
        self._pool = pool
        self._settings = settings
        self.clock = DatabaseClock()

    @classmethod
    async def connect(cls, settings: DatabaseSettings) -> Self:
        """Raises Unavailable unless the server responds and accepts writes; with `target_session_attrs=any` a read-only server
        is accepted."""
        measured = metrics()
        pool = Pool(partial(connect, settings, measured), settings, measured)
        await pool.start()
        database = cls(pool, settings)
        try:
            await database._measure_clock(Connection.server_time)
        except BaseException:
            await pool.close()
            raise
        return database

    @property
    def room(self) -> int:
        """How many more callers may wait for a connection before calls should be refused early."""
        return self._pool.room

    async def close(self) -> None:
        await self._pool.close()

    @property
    def disk_full_errors(self) -> int:
        """Statements that have failed for want of space on the server's disk."""
        return metrics().disk_full

    async def ping(self) -> None:
        """Measures the database's clock. Raises Unavailable unless the server responds and accepts writes."""
        await self._measure_clock(Connection.require_writable)

    async def _measure_clock(self, read: Callable[[Connection], Awaitable[datetime]]) -> None:
        connection = await self._pool.acquire(max_wait=_PING_MAX_WAIT)
        try:
            sent_at = monotonic()
            self.clock.set(await read(connection), sent_at=sent_at)
        finally:
            self._pool.release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Commits at the end of the block; rolls back if it raises. Inside `call_transaction` the block joins the call's
        transaction, which commits with the call. An exception that leaves such a block rolls back the whole transaction, even
        if it is caught outside."""
        scope, task = current(), current_task()
        self._require_no_block()
        joined = self._call_transaction()
        begins = joined is not None and joined.begun is None
        transaction = joined.begin() if joined is not None else self._new_transaction()
        scope.block = block = (task, self)
        try:
            yield transaction
            if joined is None:
                await transaction.commit()
        except BaseException as error:
            await transaction.roll_back(error)
            if joined is not None and begins:
                joined.forget()
            raise
        finally:
            if scope.block is block:
                scope.block = None

    @asynccontextmanager
    async def call_transaction(self) -> AsyncIterator[None]:
        """Joins the transaction blocks inside this one: the first begins the transaction, the end of this block commits it. For
        stages that must write together with the handler. A nested block is part of the outer one."""
        if self._call_transaction() is not None:
            yield
            return
        scope = current()
        scope.transaction = shared = CallTransaction(current_task(), self, self._new_transaction)
        try:
            yield
            await shared.commit()
        except BaseException as error:
            await shared.roll_back(error)
            raise
        finally:
            scope.transaction = None

    @property
    def in_transaction(self) -> bool:
        """Whether a statement of this task would be part of an open transaction."""
        shared = self._call_transaction()
        return self._in_block() or (shared is not None and shared.begun is not None)

    async def send(self, query: Query) -> PGresult:
        self._require_no_block()
        shared = self._call_transaction()
        if shared is not None and shared.begun is not None:
            return await shared.begun.send(query)
        connection = await self._pool.acquire()
        try:
            return await connection.execute(query, after=set_tenant_query(query.tenant))
        finally:
            self._pool.release(connection)

    def _in_block(self) -> bool:
        block = current().block
        return block is not None and block[1] is self and block[0] is current_task()

    def _require_no_block(self) -> None:
        if self._in_block():
            raise RuntimeError("a transaction is open in this task: pass its `tx`")

    def _call_transaction(self) -> CallTransaction | None:
        # Tasks that the call starts share its scope, but not its transaction.
        shared = current().transaction
        return shared if shared is not None and shared.belongs_to(current_task(), self) else None

    def _new_transaction(self) -> Transaction:
        return Transaction(self._pool, statement_timeout=self._settings.statement_timeout)
