from asyncio import CancelledError
from collections.abc import Sequence
from contextlib import suppress

from psycopg.pq.abc import PGresult

from accord_db.engine.connection import Connection
from accord_db.engine.deadline import remaining
from accord_db.engine.errors import DatabaseError, Unavailable
from accord_db.engine.executor import Executor
from accord_db.engine.pool import Pool
from accord_db.engine.statements import Query, held_to
from accord_db.engine.tenant import ALL, NOBODY

_BEGIN = Query(b"BEGIN")


class Transaction(Executor):
    """Statements that happen together or not at all. It begins, and takes its connection, with the first of them."""

    def __init__(self, pool: Pool, *, statement_timeout: float) -> None:
        self._pool = pool
        self._statement_timeout = statement_timeout
        self._connection: Connection | None = None
        self._asking = False
        self._over = False
        self._tenant = NOBODY

    async def answer(self, question: Query) -> PGresult:
        if self._over:
            raise _rolled_back()
        self._refuse_if_asking()
        self._asking = True
        try:
            return await self._ask(question)
        except CancelledError as error:
            await self.undo(error)  # the answer is still to come, and would be taken for that of the next question
            raise
        finally:
            self._asking = False

    async def commit(self) -> None:
        """Raises Unavailable with `outcome_unknown` when the connection is lost before PostgreSQL has answered."""
        if self._over:
            raise _rolled_back()
        self._refuse_if_asking()
        if (connection := self._end()) is None:
            return
        try:
            result = await connection.command(b"COMMIT")
        except Unavailable as error:
            error.outcome_unknown = connection.closed
            raise
        finally:
            self._pool.release(connection)
        if result.command_status != b"COMMIT":  # one of the statements had failed, and the block went on
            raise _rolled_back()

    async def undo(self, error: BaseException) -> None:
        """Roll back, after an ordinary error. Whoever cancels does not want to wait: the pool does it later then."""
        if (connection := self._end()) is None:
            return
        try:
            if isinstance(error, Exception) and connection.in_transaction:
                with suppress(DatabaseError):  # lost, and with it the transaction
                    await connection.command(b"ROLLBACK")
        finally:
            self._pool.release(connection)

    async def _ask(self, question: Query) -> PGresult:
        if self._connection is None:
            return await self._ask_first(question)
        return await self._connection.ask(question, after=self._held_to(question.tenant))

    async def _ask_first(self, question: Query) -> PGresult:
        self._connection = await self._pool.acquire()
        try:
            return await self._connection.ask(question, after=(*self._begin(), *self._held_to(question.tenant)))
        except Exception as error:
            await self.undo(error)  # it may not even have begun
            raise

    def _refuse_if_asking(self) -> None:
        if self._asking:
            raise RuntimeError("a transaction is asked one thing at a time: tasks cannot share it")

    def _end(self) -> Connection | None:
        connection, self._connection, self._over = self._connection, None, True
        return connection

    def _held_to(self, tenant: bytes | None) -> Sequence[Query]:
        """Nothing, as long as the transaction is. What crossed all tenants did so alone."""
        if tenant is None and self._tenant == ALL:
            tenant = NOBODY
        if tenant is None or tenant == self._tenant:
            return ()
        self._tenant = tenant
        return held_to(tenant)

    def _begin(self) -> Sequence[Query]:
        left = remaining()
        seconds = self._statement_timeout if left is None else min(left, self._statement_timeout)
        # Not a SELECT of set_config, which would come too late for SET TRANSACTION: that has to precede every query.
        limit = b"SET LOCAL statement_timeout = %d" % max(1, seconds * 1000)
        return _BEGIN, Query(limit, prepared=False)


def _rolled_back() -> DatabaseError:
    return DatabaseError("the transaction was rolled back", sqlstate="25P02")
