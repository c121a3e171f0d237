"""Generates rows for tests from the columns of a table: types, lengths, choices, foreign keys and owners."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final
from uuid import UUID

import psycopg
from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    Date,
    DateTime,
    Enum,
    Float,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    NullPool,
    String,
    Table,
    Uuid,
    and_,
    create_engine,
    exists,
    insert,
    or_,
    select,
)
from sqlalchemy.types import TypeEngine

from accord_db.engine.ids import uuid7
from accord_db.engine.row_level_security import tenant_column, tenant_parents

Row = Mapping[str, Any]

# The order matters: SQLAlchemy's Enum is a subclass of String. Texts and bytes are unique. Bytes have the length of a SHA-256
# digest. Times are in the future, so that no row has expired.
_VALUES: Final[tuple[tuple[type[TypeEngine[Any]], Callable[[Any], Any]], ...]] = (
    (Uuid, lambda _: uuid7()),
    (Enum, lambda type_: type_.enums[0]),
    (String, lambda type_: uuid7().hex[-(type_.length or 32) :]),
    (Boolean, lambda _: False),
    (Integer, lambda _: 1),
    (Float, lambda _: 1.0),
    (DateTime, lambda _: datetime.now(UTC) + timedelta(hours=1)),
    (Date, lambda _: datetime.now(UTC).date()),
    (LargeBinary, lambda _: uuid7().bytes * 2),
    (ARRAY, lambda _: []),
    (JSON, lambda _: {}),
)
# Values of columns with a format that the type does not define, by the column's name.
_NAMED: Final[Mapping[str, Callable[[], Any]]] = {"email": lambda: f"{uuid7().hex}@example.com"}
# Columns that hold the owner of a row, with a foreign key or without, and the owner's table.
OWNERS: Final = {"account_id": "accounts", "created_by": "accounts", "organization_id": "organizations"}

_DSN: Final = ContextVar[str]("dsn")
# One for the databases of all tests, so that it compiles each statement once.
_ENGINE: Final = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(_DSN.get()), poolclass=NullPool)


def connected(dsn: str) -> Connection:
    token = _DSN.set(dsn)
    try:
        return _ENGINE.connect()
    finally:
        _DSN.reset(token)


def row_of(table: Table, parents: Mapping[str, Row], **given: Any) -> dict[str, Any]:
    """A value for each column that requires one. NOT NULL foreign keys and owner columns refer to `parents`, which maps names
    of tables to rows. The organization owns the row if the table has a foreign key to it."""
    row = {column.name: _value(column) for column in table.c if _needs_value(column)}
    for name, parent in OWNERS.items():
        if parent in parents and (
            name in row or (name in table.c and table.c[name].foreign_keys and parent != "accounts")
        ):
            row[name] = parents[parent]["id"]
    for key in table.foreign_key_constraints:
        parent = key.referred_table.name
        if parent in parents and not is_optional(key):
            row |= {element.parent.name: parents[parent][element.column.name] for element in key.elements}
    return row | {name: value for name, value in given.items() if name in table.c}


class Rows:
    """Inserts rows of one organization; without one, or in tables without an organization, rows of the account."""

    def __init__(self, connection: Connection, account_id: UUID, organization_id: UUID | None = None) -> None:
        self._connection = connection
        # The last row of each table, to which later rows refer.
        self._rows: dict[str, Row] = {"accounts": {"id": account_id}}
        if organization_id is not None:
            self._rows["organizations"] = {"id": organization_id}

    def insert(self, table: Table, **given: Any) -> Row:
        """Also inserts the rows that it refers to, unless they exist."""
        for key in table.foreign_key_constraints:
            parent = key.referred_table
            if parent.name not in self._rows and not is_optional(key) and parent is not table:
                self._rows[parent.name] = self._existing(parent) or self.insert(parent)
        values = insert(table).values(row_of(table, self._rows, **given)).returning(*table.c)
        row = dict(self._connection.execute(values).mappings().one())
        self._rows[table.name] = row
        return row

    def _existing(self, table: Table) -> Row | None:
        """The row whose primary key consists of owners, such as a membership."""
        owners = {name: self._rows[parent]["id"] for name, parent in OWNERS.items() if parent in self._rows}
        if not owners.keys() >= set(table.primary_key.columns.keys()):
            return None
        same = [column == owners[column.name] for column in table.primary_key]
        row = self._connection.execute(select(*table.c).where(*same)).mappings().one_or_none()
        return dict(row) if row else None


def is_optional(key: ForeignKeyConstraint) -> bool:
    return any(column.nullable for column in key.columns)


def needs_organization(table: Table) -> bool:
    """Whether each row belongs to an organization, by its own column or through a row that it refers to."""
    return any(
        key.referred_table.name == "organizations" or needs_organization(key.referred_table) for key in _parents(table)
    )


def can_be_of_organization(table: Table) -> bool:
    return "organization_id" in table.c or any(can_be_of_organization(key.referred_table) for key in _parents(table))


def has_owner(table: Table) -> bool:
    """Whether accounts or organizations own the rows. Accounts and organizations own themselves."""
    owned = OWNERS.keys() & set(table.c.keys()) or table.name in OWNERS.values()
    return bool(owned) or any(has_owner(key.referred_table) for key in _parents(table))


def of_owner(table: Table, account_id: UUID, organization_id: UUID) -> ColumnElement[bool]:
    """Whether the account or the organization owns a row, by its own column or through a row that it refers to."""
    ids = {"accounts": account_id, "organizations": organization_id}
    own = [table.c[name] == ids[parent] for name, parent in OWNERS.items() if name in table.c]
    if table.name in ids:
        own.append(table.c.id == ids[table.name])
    if own:
        return or_(*own)
    return or_(
        *(
            exists().where(
                *(each.column == each.parent for each in key.elements),
                of_owner(key.referred_table, account_id, organization_id),
            )
            for key in _parents(table)
        ),
    )


def _parents(table: Table) -> Iterator[ForeignKeyConstraint]:
    for key in table.foreign_key_constraints:
        if key.referred_table is not table and not is_optional(key):
            yield key


def of_tenant(table: Table, tenant_id: UUID) -> ColumnElement[bool]:
    """Whether a row of a tenant-bound table belongs to the tenant."""
    column = tenant_column(table)
    if column is not None:
        return column == tenant_id
    return and_(
        *(
            exists().where(
                *(each.column == each.parent for each in key.elements), of_tenant(key.referred_table, tenant_id)
            )
            for key in tenant_parents(table)
        )
    )


def _needs_value(column: Column[Any]) -> bool:
    return not column.nullable and column.server_default is None and column.computed is None


def _value(column: Column[Any]) -> Any:
    if column.name in _NAMED:
        return _NAMED[column.name]()
    if choice := _first_choice(column):
        return choice
    for type_, value in _VALUES:
        if isinstance(column.type, type_):
            return value(column.type)
    raise TypeError(f"tests/rows.py generates no {column.type!r} for {column}. Add the type to _VALUES.")


@cache
def _first_choice(column: Column[Any]) -> str | None:
    """The first choice of a CHECK such as `role IN ('owner', 'member')`."""
    checks = [str(check.sqltext) for check in column.table.constraints if isinstance(check, CheckConstraint)]
    matches = (re.search(rf"\b{column.name} IN \('([^']*)'", check) for check in checks)
    return next((match[1] for match in matches if match), None)
