from asyncio import CancelledError, Task
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from psycopg.pq.abc import PGresult

from accord_db.engine.connection import Connection
from accord_db.engine.errors import DatabaseError, Unavailable
from accord_db.engine.executor import Executor
from accord_db.engine.pool import Pool
from accord_db.engine.scope import ALL, NO_TENANT, remaining
from accord_db.engine.statements import Query, set_tenant_query

_BEGIN = Query(b"BEGIN")


class Transaction(Executor):
    """Statements that take effect together or not at all. The first statement takes a connection and sends BEGIN."""

    def __init__(self, pool: Pool, *, statement_timeout: float) -> None:
        self._pool = pool
        self._statement_timeout = statement_timeout
        self._connection: Connection | None = None
        self._busy = False
        self._over = False
        self._tenant = NO_TENANT

    async def send(self, query: Query) -> PGresult:
        if self._over:
            raise _rolled_back()
        self._require_idle()
        self._busy = True
        try:
            return await self._send(query)
        except CancelledError as error:
            await self.roll_back(error)  # the next statement would read the result that is still to come
            raise
        finally:
            self._busy = False

    async def commit(self) -> None:
        """Raises Unavailable with `outcome_unknown` if the connection is lost before PostgreSQL confirms the commit."""
        if self._over:
            raise _rolled_back()
        self._require_idle()
        if (connection := self._end()) is None:
            return
        try:
            result = await connection.command(b"COMMIT")
        except Unavailable as error:
            error.outcome_unknown = connection.closed
            raise
        finally:
            self._pool.release(connection)
        if result.command_status != b"COMMIT":  # a statement failed, and the block ignored the error
            raise _rolled_back()

    async def roll_back(self, error: BaseException) -> None:
        """Rolls back at once after an Exception. After a cancellation the pool does it later, so that the caller does not
        wait."""
        if (connection := self._end()) is None:
            return
        try:
            if isinstance(error, Exception) and connection.in_transaction:
                with suppress(DatabaseError):  # the connection is lost, which ends the transaction too
                    await connection.command(b"ROLLBACK")
        finally:
            self._pool.release(connection)

    async def _send(self, query: Query) -> PGresult:
        if self._connection is None:
            return await self._send_first(query)
        return await self._connection.execute(query, after=self._set_tenant(query.tenant))

    async def _send_first(self, query: Query) -> PGresult:
        self._connection = await self._pool.acquire()
        try:
            return await self._connection.execute(query, after=(*self._begin(), *self._set_tenant(query.tenant)))
        except Exception as error:
            await self.roll_back(error)  # BEGIN itself may have failed
            raise

    def _require_idle(self) -> None:
        if self._busy:
            raise RuntimeError("a transaction executes one statement at a time: tasks cannot share it")

    def _end(self) -> Connection | None:
        connection, self._connection, self._over = self._connection, None, True
        return connection

    def _set_tenant(self, tenant: bytes | None) -> Sequence[Query]:
        """Sets the tenant if it differs from the last statement's. `all` applies to one statement only."""
        if tenant is None and self._tenant == ALL:
            tenant = NO_TENANT
        if tenant is None or tenant == self._tenant:
            return ()
        self._tenant = tenant
        return set_tenant_query(tenant)

    def _begin(self) -> Sequence[Query]:
        left = remaining()
        seconds = self._statement_timeout if left is None else min(left, self._statement_timeout)
        # Not `SELECT set_config(…)`: the caller may send SET TRANSACTION, which must precede every query.
        limit = b"SET LOCAL statement_timeout = %d" % max(1, seconds * 1000)
        return _BEGIN, Query(limit, prepared=False)


class CallTransaction:
    """The transaction that stages of a call share with its handler. It belongs to one task and one database."""

    def __init__(self, task: Task[Any] | None, database: object, new: Callable[[], Transaction]) -> None:
        self._task = task
        self._database = database
        self._new = new
        self.begun: Transaction | None = None

    def belongs_to(self, task: Task[Any] | None, database: object) -> bool:
        return self._task is task and self._database is database

    def begin(self) -> Transaction:
        self.begun = self.begun or self._new()
        return self.begun

    def forget(self) -> None:
        """After a rollback: the next block begins another transaction."""
        self.begun = None

    async def commit(self) -> None:
        if self.begun is not None:
            await self.begun.commit()

    async def roll_back(self, error: BaseException) -> None:
        if self.begun is not None:
            await self.begun.roll_back(error)


def _rolled_back() -> DatabaseError:
    return DatabaseError("the transaction was rolled back", sqlstate="25P02")
