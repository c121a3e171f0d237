"""The models as migrations write them: with PostgreSQL's types instead of Python's, and every CHECK with its name."""

from typing import Any, Final

from sqlalchemy import ARRAY, CheckConstraint, Dialect, Enum, MetaData, String, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

# The driver's paramstyle would double every %.
DIALECT: Final[Dialect] = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]


def plain(metadata: MetaData) -> MetaData:
    """A copy. A migration must not import a type of the application, which later releases change."""
    copied = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.tables.values():
        _make_plain(table.to_metadata(copied))
    return copied


def _make_plain(table: Table) -> None:
    # Before the types change: a CHECK of an Enum belongs to its type, and is not written as a constraint.
    checks = [check for check in table.constraints if isinstance(check, CheckConstraint)]
    named = [CheckConstraint(_condition(check), name=check.name) for check in checks]
    table.constraints.difference_update(checks)
    for column in table.c:
        column.type = _plain_type(column.type)
    for check in named:
        table.append_constraint(check)


def _condition(check: CheckConstraint) -> str:
    return str(check.sqltext.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True, "include_table": False}))


def _plain_type(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    if isinstance(kind, TypeDecorator):
        return _plain_type(kind.load_dialect_impl(DIALECT))
    if isinstance(kind, Enum) and not kind.native_enum:
        return String(kind.length)
    if isinstance(kind, ARRAY):
        return ARRAY(_plain_type(kind.item_type), dimensions=kind.dimensions)
    return kind
