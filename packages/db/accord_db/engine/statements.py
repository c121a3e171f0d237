"""Statements of SQLAlchemy Core, compiled once to what PostgreSQL is sent and how its answer is read.

SQLAlchemy takes part in the first run of a statement only. So statements are made once, in a module or in a
`functools.cache`d function of their shape, never inside the function that asks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import Format
from psycopg.pq.abc import PGresult
from sqlalchemy import ARRAY, Boolean, DateTime, Executable, LargeBinary, Uuid
from sqlalchemy.dialects.postgresql.psycopg import PGCompiler_psycopg, PGDialect_psycopg
from sqlalchemy.sql import ClauseElement, Delete, Insert, Join, Select, Update
from sqlalchemy.sql.schema import Table
from sqlalchemy.sql.selectable import AliasedReturnsRows, CompoundSelect, SelectBase
from sqlalchemy.types import TypeEngine

from accord_db.engine.errors import InvalidValue, translate
from accord_db.engine.row_level_security import is_tenant_bound
from accord_db.engine.rows import Process, is_processed, row_maker
from accord_db.engine.scope import ALL, tenant

T = TypeVar("T")


class _Compiler(PGCompiler_psycopg):
    """Remembers of which tables the text speaks, wherever in it."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self.tables: set[Table] = set()
        super().__init__(*args, **keywords)

    def visit_table(self, table: Any, *args: Any, **keywords: Any) -> str:
        self.tables.add(table)
        return cast(str, super().visit_table(table, *args, **keywords))  # type: ignore[no-untyped-call]  # untyped there

    def visit_insert(self, insert_stmt: Any, *args: Any, **keywords: Any) -> str:
        self.tables.add(insert_stmt.table)  # whose name is put into the text without a visit
        return cast(str, super().visit_insert(insert_stmt, *args, **keywords))  # type: ignore[no-untyped-call]  # untyped there


# Placeholders are PostgreSQL's own ($1), so that nothing has to rewrite the text on its way.
_DIALECT = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # untyped there
_DIALECT.statement_compiler = _Compiler

_TEXT = (Format.TEXT,)


class Query(NamedTuple):
    """What is sent: a text, the values that go with it, and by what names it is counted."""

    sql: bytes
    values: Sequence[Buffer | None] = ()
    formats: Sequence[Format] | None = None
    operation: str = "other"
    table: str = "none"
    prepared: bool = True  # worth it if the same text will be sent again
    tenant: bytes | None = None  # None if none of its tables is tenant-bound


def held_to(tenant: bytes | None) -> Sequence[Query]:
    """What is to travel before a question, so that until the transaction ends only rows of this tenant are there."""
    return () if tenant is None else (Query(b"SELECT set_config('accord.tenant', $1, true)", (tenant,), _TEXT),)


class Statement(Generic[T]):
    """A compiled statement: its text, and the way of values in and of rows out."""

    def __init__(self, executable: Executable) -> None:
        compiled = _compile(executable)
        places = list(compiled.positiontup or ())
        binds = [compiled.binds[place] for place in places]
        self._sql = compiled.string.encode()
        self._operation = _operation(executable)
        self._table = _table(executable)
        self._tenant_bound = any(map(is_tenant_bound, compiled.tables))
        self._across_tenants = bool(executable.get_execution_options().get("across_tenants"))
        self._names = [bind.key for bind in binds]
        self._defaults = {bind.key: bind.effective_value for bind in binds if not bind.required}
        self._formats = [_format(bind.type) for bind in binds]
        self._processors = _bind_processors(compiled, places)
        self._make_row = row_maker(executable, compiled._result_columns, _DIALECT)  # noqa: SLF001 — as its cursors do
        # Neither is bound to a connection: text is UTF-8 and times are UTC on every one of ours.
        self._dumper = Transformer()
        self._loader = Transformer()

    def bind(self, parameters: Mapping[str, object]) -> Query:
        """Raises TypeError when they are not the statement's, InvalidValue when PostgreSQL has no such value."""
        values = self._in_order({**self._defaults, **parameters} if self._defaults else parameters)
        for place, process in self._processors:
            values[place] = process(values[place])
        try:
            dumped = self._dumper.dump_sequence(values, self._formats)
        except UnicodeError:
            raise InvalidValue("text that is not Unicode") from None
        except psycopg.Error as error:
            raise translate(error) from None
        return Query(self._sql, dumped, self._dumper.formats, self._operation, self._table, tenant=self._tenant())

    def load(self, result: PGresult) -> list[T]:
        loader = self._loader
        loader.set_pgresult(result)
        rows: list[T] = loader.load_rows(0, result.ntuples, self._make_row)
        loader.set_pgresult(None)  # or the last answer would stay in memory
        return rows

    def _tenant(self) -> bytes | None:
        if not self._tenant_bound:
            return None
        return ALL if self._across_tenants else tenant()

    def _in_order(self, parameters: Mapping[str, object]) -> list[Any]:
        if len(parameters) == len(self._names):
            try:
                return [parameters[name] for name in self._names]
            except KeyError:
                pass
        missing, unknown = set(self._names) - set(parameters), set(parameters) - set(self._names)
        raise TypeError(f"parameters missing: {sorted(missing)}, not in the statement: {sorted(unknown)}")


_compiled: WeakKeyDictionary[Executable, Statement[Any]] = WeakKeyDictionary()


def compiled(executable: Executable) -> Statement[Any]:
    statement = _compiled.get(executable)
    if statement is None:
        statement = _compiled[executable] = Statement(executable)
    return statement


def _compile(executable: Executable) -> _Compiler:
    compiled = cast(ClauseElement, executable).compile(dialect=_DIALECT)
    if not isinstance(compiled, _Compiler):
        raise TypeError("only statements of data can be run; definitions belong in a migration")
    if compiled.post_compile_params:
        raise TypeError("`in_` would need a text for each length of its list: say `== any_(bindparam(…))`")
    return compiled


def _format(type_: TypeEngine[Any]) -> PyFormat:
    """Binary where the bytes depend on the type alone; the driver would size an int after its value."""
    if isinstance(type_, ARRAY):
        if isinstance(type_.item_type, LargeBinary):
            return PyFormat.BINARY  # the driver's text of an array doubles the quotes among the bytes
        return PyFormat.AUTO if isinstance(type_.item_type, Uuid) else PyFormat.TEXT
    return PyFormat.AUTO if isinstance(type_, Uuid | LargeBinary | DateTime | Boolean) else PyFormat.TEXT


def _bind_processors(compiled: _Compiler, places: Sequence[str]) -> list[tuple[int, Process]]:
    processors = cast(Mapping[str, Process], compiled._bind_processors)  # noqa: SLF001 — as its cursors do
    return [
        (place, processors[name])
        for place, name in enumerate(places)
        if name in processors and is_processed(compiled.binds[name].type)
    ]


def _operation(executable: Executable) -> str:
    for kind in (Insert, Update, Delete):
        if isinstance(executable, kind):
            return kind.__name__.lower()
    return "select" if isinstance(executable, SelectBase) else "other"


def _table(executable: object) -> str:
    """The first table of the statement, seen through joins, aliases and subqueries."""
    match executable:
        case Table():
            return executable.name
        case Insert() | Update() | Delete():
            return _table(executable.table)
        case Join():
            left = _table(executable.left)
            return left if left != "none" else _table(executable.right)
        case AliasedReturnsRows():
            return _table(executable.element)
        case CompoundSelect():
            return _table(executable.selects[0])
        case Select():
            sources = executable.get_final_froms()
            return _table(sources[0]) if sources else "none"
    return "none"
