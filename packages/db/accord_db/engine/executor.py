from abc import ABC, abstractmethod
from typing import Any, TypeVar, TypeVarTuple, overload

from psycopg.pq.abc import PGresult
from sqlalchemy import Executable
from sqlalchemy.engine import Row
from sqlalchemy.sql.selectable import TypedReturnsRows

from accord_db.engine.statements import Query, compiled

T = TypeVar("T")
T2 = TypeVar("T2")
Ts = TypeVarTuple("Ts")


class Executor(ABC):
    """Executes statements: the database, or an open transaction.

    A selected entity is returned as a named tuple of its columns, a single column as its value, and several of either as a
    row with one attribute for each label. `parameters` are the bind parameters.
    """

    @overload
    async def fetch_one(self, statement: TypedReturnsRows[T], /, **parameters: object) -> T | None: ...
    @overload
    async def fetch_one(
        self, statement: TypedReturnsRows[T, T2, *Ts], /, **parameters: object
    ) -> Row[T, T2, *Ts] | None: ...
    async def fetch_one(self, statement: Any, /, **parameters: object) -> Any:
        """The first row, or None."""
        prepared = compiled(statement)
        rows = prepared.load(await self.send(prepared.bind(parameters)))
        return rows[0] if rows else None

    @overload
    async def fetch_all(self, statement: TypedReturnsRows[T], /, **parameters: object) -> list[T]: ...
    @overload
    async def fetch_all(
        self, statement: TypedReturnsRows[T, T2, *Ts], /, **parameters: object
    ) -> list[Row[T, T2, *Ts]]: ...
    async def fetch_all(self, statement: Any, /, **parameters: object) -> Any:
        prepared = compiled(statement)
        return prepared.load(await self.send(prepared.bind(parameters)))

    async def execute(self, statement: Executable, /, **parameters: object) -> int:
        """The number of rows that the statement returned or changed."""
        return (await self.send(compiled(statement).bind(parameters))).command_tuples or 0

    @abstractmethod
    async def send(self, query: Query) -> PGresult:
        """Sends one query and returns its result."""
