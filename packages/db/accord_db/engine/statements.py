"""Compiled statements of SQLAlchemy Core: the SQL text, and the conversion of parameters and result rows.

SQLAlchemy compiles a statement at its first execution only. Build statements once, at module level or in a function with
`functools.cache`, never in the function that executes them.
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
    """Collects the tables of the statement, including those of subqueries."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self.tables: set[Table] = set()
        super().__init__(*args, **keywords)

    def visit_table(self, table: Any, *args: Any, **keywords: Any) -> str:
        self.tables.add(table)
        return cast(str, super().visit_table(table, *args, **keywords))  # type: ignore[no-untyped-call]  # untyped there

    def visit_insert(self, insert_stmt: Any, *args: Any, **keywords: Any) -> str:
        self.tables.add(insert_stmt.table)  # the compiler does not visit it
        return cast(str, super().visit_insert(insert_stmt, *args, **keywords))  # type: ignore[no-untyped-call]  # untyped there


# PostgreSQL's placeholders ($1), so that the driver does not rewrite the text.
_DIALECT = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # untyped there
_DIALECT.statement_compiler = _Compiler

_TEXT = (Format.TEXT,)


class Query(NamedTuple):
    """SQL text with encoded parameters. `operation` and `table` are labels of metrics."""

    sql: bytes
    values: Sequence[Buffer | None] = ()
    formats: Sequence[Format] | None = None
    operation: str = "other"
    table: str = "none"
    prepared: bool = True  # False for texts that are not sent again
    tenant: bytes | None = None  # None if none of its tables is tenant-bound


def set_tenant_query(tenant: bytes | None) -> Sequence[Query]:
    """The query to send first, so that row-level security shows only rows of the tenant until the transaction ends. Empty
    for None."""
    return () if tenant is None else (Query(b"SELECT set_config('accord.tenant', $1, true)", (tenant,), _TEXT),)


class Statement(Generic[T]):
    """A compiled statement: encodes its parameters and decodes its rows."""

    def __init__(self, executable: Executable) -> None:
        compiled = _compile(executable)
        positions = list(compiled.positiontup or ())
        binds = [compiled.binds[name] for name in positions]
        self._sql = compiled.string.encode()
        self._operation = _operation(executable)
        self._table = _table(executable)
        self._tenant_bound = any(map(is_tenant_bound, compiled.tables))
        self._across_tenants = bool(executable.get_execution_options().get("across_tenants"))
        self._names = [bind.key for bind in binds]
        self._defaults = {bind.key: bind.effective_value for bind in binds if not bind.required}
        self._formats = [_format(bind.type) for bind in binds]
        self._processors = _bind_processors(compiled, positions)
        self._make_row = row_maker(executable, compiled._result_columns, _DIALECT)  # noqa: SLF001 — as its cursors do
        # Neither needs a connection: client_encoding is UTF8 and times are UTC on every one.
        self._dumper = Transformer()
        self._loader = Transformer()

    def bind(self, parameters: Mapping[str, object]) -> Query:
        """Raises TypeError for missing or unknown parameters, InvalidValue for a value that PostgreSQL cannot hold."""
        values = self._in_order({**self._defaults, **parameters} if self._defaults else parameters)
        for position, process in self._processors:
            values[position] = process(values[position])
        try:
            dumped = self._dumper.dump_sequence(values, self._formats)
        except UnicodeError:
            raise InvalidValue("the text is not valid Unicode") from None
        except psycopg.Error as error:
            raise translate(error) from None
        return Query(self._sql, dumped, self._dumper.formats, self._operation, self._table, tenant=self._tenant())

    def load(self, result: PGresult) -> list[T]:
        loader = self._loader
        loader.set_pgresult(result)
        rows: list[T] = loader.load_rows(0, result.ntuples, self._make_row)
        loader.set_pgresult(None)  # releases the memory of the result
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
        raise TypeError(
            "only SELECT, INSERT, UPDATE and DELETE can be executed; data definitions belong in a migration"
        )
    if compiled.post_compile_params:
        raise TypeError("`in_` compiles to a different text for each length of the list: use `== any_(bindparam(…))`")
    return compiled


def _format(type_: TypeEngine[Any]) -> PyFormat:
    """Binary where the encoding depends only on the type. The driver chooses the size of an integer by its value, which would
    change the type of the parameter."""
    if isinstance(type_, ARRAY):
        if isinstance(type_.item_type, LargeBinary):
            return PyFormat.BINARY  # the driver's text format doubles quote characters in bytes
        return PyFormat.AUTO if isinstance(type_.item_type, Uuid) else PyFormat.TEXT
    return PyFormat.AUTO if isinstance(type_, Uuid | LargeBinary | DateTime | Boolean) else PyFormat.TEXT


def _bind_processors(compiled: _Compiler, names: Sequence[str]) -> list[tuple[int, Process]]:
    processors = cast(Mapping[str, Process], compiled._bind_processors)  # noqa: SLF001 — as its cursors do
    return [
        (position, processors[name])
        for position, name in enumerate(names)
        if name in processors and is_processed(compiled.binds[name].type)
    ]


def _operation(executable: Executable) -> str:
    for kind in (Insert, Update, Delete):
        if isinstance(executable, kind):
            return kind.__name__.lower()
    return "select" if isinstance(executable, SelectBase) else "other"


def _table(executable: object) -> str:
    """The first table, also inside joins, aliases and subqueries."""
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
