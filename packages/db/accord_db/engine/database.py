"""The one way to ask the database: everything above says `first`, `all`, `run` and `transaction`.

How statements travel is decided below, and can change without a query changing.
"""

from asyncio import Task, current_task
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from psycopg.pq.abc import PGresult

from accord_db.engine.connection import DatabaseSettings, connect
from accord_db.engine.executor import Executor
from accord_db.engine.metrics import metrics
from accord_db.engine.pool import Pool
from accord_db.engine.statements import Query, held_to
from accord_db.engine.transaction import Transaction

__all__ = ["Database", "DatabaseSettings", "Executor", "Transaction"]


class Database(Executor):
    """PostgreSQL behind a pool. A statement asked of it is a transaction of its own.

    Within a task whose transaction has begun, everything asked of the database belongs to that transaction. Tasks
    started inside do not: they see the database as anyone else does.
    """

    def __init__(self, pool: Pool, settings: DatabaseSettings) -> None:
        self._pool = pool
        self._settings = settings
        self._scope: ContextVar[_Scope | None] = ContextVar("transactions of this task", default=None)

    @classmethod
    async def connect(cls, settings: DatabaseSettings) -> Self:
        """Raises Unavailable when there is no database to talk to."""
        measured = metrics()
        pool = Pool(partial(connect, settings, measured), settings, measured)
        await pool.start()
        return cls(pool, settings)

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Commits at the end of the block, rolls back if it raises; joins the transaction that this task has open.

        An exception that leaves a joined block ends the whole transaction, also when it is caught further out.
        """
        outer, scope = self._scope.get(), self._own_scope()
        alone, joins = scope is None, scope is not None and scope.transaction is not None
        scope = scope or self._enter_scope()
        transaction = scope.transaction = scope.transaction or self._new_transaction()
        try:
            yield transaction
            if alone:
                await transaction.commit()
        except BaseException as error:
            await transaction.undo(error)
            if not joins:
                scope.transaction = None  # nothing is left of it: the next block begins another
            raise
        finally:
            self._scope.set(outer)

    @asynccontextmanager
    async def deferred_transaction(self) -> AsyncIterator[None]:
        """The transactions of this block are one, begun by the first of them and committed when the block ends."""
        if self._own_scope() is not None:
            yield
            return
        outer, scope = self._scope.get(), self._enter_scope()
        try:
            yield
            if scope.transaction is not None:
                await scope.transaction.commit()
        except BaseException as error:
            if scope.transaction is not None:
                await scope.transaction.undo(error)
            raise
        finally:
            self._scope.set(outer)

    @property
    def in_transaction(self) -> bool:
        """Whether what this task asks now belongs to a transaction, and is undone with it."""
        scope = self._own_scope()
        return scope is not None and scope.transaction is not None

    async def answer(self, question: Query) -> PGresult:
        scope = self._own_scope()
        if scope is not None and scope.transaction is not None:
            return await scope.transaction.answer(question)
        connection = await self._pool.acquire()
        try:
            return await connection.ask(question, after=held_to(question.tenant))
        finally:
            self._pool.release(connection)

    def _own_scope(self) -> "_Scope | None":
        # A child task starts with a copy of this context, which does not make it part of our transaction.
        scope = self._scope.get()
        return scope if scope is not None and scope.task is current_task() else None

    def _enter_scope(self) -> "_Scope":
        scope = _Scope(current_task())
        self._scope.set(scope)
        return scope

    def _new_transaction(self) -> Transaction:
        return Transaction(self._pool, statement_timeout=self._settings.statement_timeout)


@dataclass(slots=True)
class _Scope:
    """What one task has begun and not yet committed."""

    task: Task[Any] | None
    transaction: Transaction | None = None
