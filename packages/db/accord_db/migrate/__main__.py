"""Applies, reverts, writes and checks migrations. Without `--database-url` it starts a temporary embedded PostgreSQL."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

from alembic.util import CommandError

from accord_db.engine.errors import DatabaseError
from accord_db.engine.libpq_environment import drop_ignored_variables
from accord_db.engine.row_level_security import tenant_problems
from accord_db.migrate import MigrationError, alembic_commands, apply, current_and_head
from accord_db.migrate.apply import revert
from accord_db.migrate.autogenerate import generate
from accord_db.migrate.drift import check_drift
from accord_db.migrate.lint import lint
from accord_db.migrate.scratch import scratch_server
from accord_db.schema import metadata
from accord_postgres import EmbeddedPostgresError


def main() -> int:
    arguments = _parser().parse_args()
    try:
        with _server(arguments) as dsn:
            return _COMMANDS[arguments.command](dsn, arguments)
    except (MigrationError, CommandError, DatabaseError, EmbeddedPostgresError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _server(arguments: argparse.Namespace) -> AbstractContextManager[str]:
    if arguments.command in _OFFLINE or arguments.database_url:
        return nullcontext(arguments.database_url or "")
    drop_ignored_variables(os.environ, embedded=True)  # noqa: TID251  # for libpq, not read
    return scratch_server()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m accord_db.migrate", description=__doc__)
    parser.add_argument("--database-url", help="a libpq URL")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("apply", help="apply all migrations to the database")
    commands.add_parser("revert", help="revert the last migration of the database")
    commands.add_parser("new", help="write a migration from the models").add_argument("message")
    commands.add_parser("check", help="list differences between models and migrations, and unsafe statements")
    sql = commands.add_parser("sql", help="print the SQL of the migrations")
    sql.add_argument("--after", default="base", help="begin after this migration (default: %(default)s)")
    sql.add_argument("--until", default="head", help="end with this migration (default: %(default)s)")
    commands.add_parser("history", help="list the migrations, oldest first")
    return parser


def _apply(dsn: str, arguments: argparse.Namespace) -> int:
    changed = apply(dsn)
    print("migrated to" if changed else "already up to date, at", current_and_head(dsn)[0])
    return 0


def _revert(dsn: str, arguments: argparse.Namespace) -> int:
    revert(dsn)
    print("reverted to", current_and_head(dsn)[0])
    return 0


def _new(dsn: str, arguments: argparse.Namespace) -> int:
    draft = generate(dsn, arguments.message)
    print(draft.sql)
    print(f"-- {draft.path}: review it before you commit it.")
    if draft.validation:
        print(f"-- {draft.validation}: validates the new CHECKs after the lock of the first migration is released.")
    if draft.is_empty and not draft.missing:
        print("-- models and migrations do not differ, so the migration is empty: fill it in or delete it.")
    _print_all("-- write by hand", draft.missing)
    _print_all("-- unsafe on a database in use", draft.warnings)
    _print_all("-- no tenant", tenant_problems(metadata))
    return 0


def _check(dsn: str, arguments: argparse.Namespace) -> int:
    differences, warnings, unbound = check_drift(dsn), lint(), tenant_problems(metadata)
    _print_all("models and migrations differ", differences)
    _print_all("unsafe on a database in use", warnings)
    _print_all("no tenant", unbound)
    return 1 if differences or warnings or unbound else 0


def _sql(dsn: str, arguments: argparse.Namespace) -> int:
    print(alembic_commands.sql(after=arguments.after, until=arguments.until))
    return 0


def _history(dsn: str, arguments: argparse.Namespace) -> int:
    for script in alembic_commands.history():
        print(script.revision, script.doc)
    return 0


def _print_all(heading: str, lines: Iterable[str]) -> None:
    for line in lines:
        print(f"{heading}: {line}")


_COMMANDS: dict[str, Callable[[str, argparse.Namespace], int]] = {
    "apply": _apply,
    "revert": _revert,
    "new": _new,
    "check": _check,
    "sql": _sql,
    "history": _history,
}
_OFFLINE = {"sql", "history"}

if __name__ == "__main__":
    sys.exit(main())
