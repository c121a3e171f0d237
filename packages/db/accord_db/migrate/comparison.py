"""Completes alembic's comparison, which ignores CHECKs, is unreliable for defaults, and fails for JSON."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from alembic.operations.ops import (
    AlterColumnOp,
    DropConstraintOp,
    ExecuteSQLOp,
    MigrateOperation,
    MigrationScript,
    ModifyTableOps,
)
from psycopg import Connection
from sqlalchemy import CheckConstraint, Column, DefaultClause, MetaData, text
from sqlalchemy.schema import AddConstraint, conv

from accord_db.migrate.plain_models import DIALECT, plain

_COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '', pg_get_expr(d.adbin, d.adrelid)
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
"""
_CHECKS = """
    SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE c.relnamespace = 'public'::regnamespace AND k.contype = 'c'
"""

Place = tuple[str, str]
"""The names of a table and of one of its columns or constraints."""


@dataclass(frozen=True)
class Catalog:
    """The columns and CHECKs of a database, as PostgreSQL prints them."""

    types: dict[Place, str]
    defaults: dict[Place, str | None]
    """Without the expressions of computed columns."""
    checks: dict[Place, str]

    @classmethod
    def read(cls, connection: Connection[Any]) -> Self:
        columns = connection.execute(_COLUMNS).fetchall()
        return cls(
            types={(table, column): kind for table, column, kind, *_ in columns},
            defaults={(table, column): default for table, column, _, computed, default in columns if not computed},
            checks={(table, name): definition for table, name, definition in connection.execute(_CHECKS)},
        )

    @property
    def tables(self) -> set[str]:
        return {table for table, _ in self.types}


class Comparison:
    """Compares a database of the migrations with one of the models. alembic calls its methods."""

    def __init__(self, metadata: MetaData, migrated: Catalog, modelled: Catalog) -> None:
        self.metadata = plain(metadata)
        self._migrated, self._modelled = migrated, modelled
        self.to_validate: list[str] = []
        """Statements for the next migration: to validate a constraint in the transaction that adds it would lock the table
        while its rows are read."""
        self.unsafe: dict[str, str] = {}
        """Rules of squawk that the migration breaks safely, with the reason."""

    def type_differs(self, _context: Any, column: Column[Any], *_: Any) -> bool:
        place = column.table.name, column.name
        return self._migrated.types[place] != self._modelled.types.get(place)

    def complete(self, script: MigrationScript) -> None:
        """For existing tables. A new table is created with its defaults and CHECKs."""
        assert script.upgrade_ops is not None
        assert script.downgrade_ops is not None
        self._change_defaults(script.upgrade_ops.ops, script.downgrade_ops.ops)
        self._change_checks(script.upgrade_ops.ops, script.downgrade_ops.ops)

    def _change_defaults(self, up: list[MigrateOperation], down: list[MigrateOperation]) -> None:
        before, after = self._migrated.defaults, self._modelled.defaults
        for place in sorted(before.keys() & after.keys()):
            if before[place] != after[place]:
                up.append(self._set_default(place, self._column(place).server_default))
                down.append(self._set_default(place, _clause(before[place])))

    def _set_default(self, place: Place, default: Any) -> AlterColumnOp:
        table, name = place
        column = self._column(place)
        return AlterColumnOp(
            table, name, existing_type=column.type, existing_nullable=column.nullable, modify_server_default=default
        )

    def _column(self, place: Place) -> Column[Any]:
        table, name = place
        return self.metadata.tables[table].c[name]

    def _change_checks(self, up: list[MigrateOperation], down: list[MigrateOperation]) -> None:
        both = self._migrated.tables & self._modelled.tables
        before = {place: check for place, check in self._migrated.checks.items() if place[0] in both}
        after = {place: check for place, check in self._modelled.checks.items() if place[0] in both}
        gone, added = dict(before.items() - after.items()), dict(after.items() - before.items())
        up[:] = [*map(_dropped, sorted(gone)), *up, *map(self._added, sorted(added))]
        down[:] = [
            *map(_dropped, sorted(added)),
            *down,
            *(_execute(_add(place, gone[place])) for place in sorted(gone)),
        ]
        self.to_validate = [
            f"ALTER TABLE {_quoted(table)} VALIDATE CONSTRAINT {_quoted(name)}" for table, name in sorted(added)
        ]
        self.unsafe = dict(self._reasons(up, replaced=sorted(gone.keys() & added.keys())))

    def _added(self, place: Place) -> ExecuteSQLOp:
        table, name = place
        checks = (check for check in self.metadata.tables[table].constraints if isinstance(check, CheckConstraint))
        check = next(check for check in checks if check.name == name)
        return _execute(f"{AddConstraint(check).compile(dialect=DIALECT)} NOT VALID")

    def _reasons(self, operations: list[MigrateOperation], replaced: list[Place]) -> Iterator[tuple[str, str]]:
        operations = [
            each for outer in operations for each in (outer.ops if isinstance(outer, ModifyTableOps) else [outer])
        ]
        dropped = [each for each in operations if isinstance(each, DropConstraintOp)]
        if replaced and len(dropped) == len(replaced):
            yield "ban-drop-constraint", f"{', '.join(name for _, name in replaced)}: replaced in this migration"
        changed = [
            (each.table_name, each.column_name)
            for each in operations
            if isinstance(each, AlterColumnOp) and each.modify_type is not None
        ]
        if changed and all(map(self._grows, changed)):
            columns = ", ".join(f"{table}.{column}" for table, column in changed)
            yield "changing-column-type", f"{columns}: a longer varchar, for which PostgreSQL rewrites nothing"

    def _grows(self, place: Place) -> bool:
        lengths = [_LENGTH.fullmatch(catalog.types[place]) for catalog in (self._migrated, self._modelled)]
        before, after = (int(length[1]) if length else 0 for length in lengths)
        return 0 < before < after


_LENGTH = re.compile(r"character varying\((\d+)\)")


def _clause(default: str | None) -> DefaultClause | None:
    return DefaultClause(text(default)) if default else None


def _dropped(place: Place) -> DropConstraintOp:
    table, name = place
    return DropConstraintOp(conv(name), table, type_="check")


def _add(place: Place, definition: str) -> str:
    table, name = place
    return f"ALTER TABLE {_quoted(table)} ADD CONSTRAINT {_quoted(name)} {definition}"


def _execute(sql: str) -> ExecuteSQLOp:
    """Escapes `:name`, which would be a parameter of the statement."""
    return ExecuteSQLOp(re.sub(r"(?<!:):(?=\w)", r"\:", sql))


def _quoted(name: str) -> str:
    return DIALECT.identifier_preparer.quote(name)
