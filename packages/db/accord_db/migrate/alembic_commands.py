"""alembic's commands: run migrations, print their SQL, write a new one. Importing alembic takes 0.4 s."""

import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import SEEK_END, StringIO
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, StaticPool, create_engine
from sqlalchemy.exc import DBAPIError

from accord_db.migrate.comparison import Comparison
from accord_db.migrate.revisions import VERSIONS, MigrationError, read_revisions

_FOLDER = VERSIONS.parent
# For printed SQL that an operator runs: a migration that waits for a lock blocks all other users of the table.
_LOCK_TIMEOUT = "SET lock_timeout = '4s';\n\n"


def upgrade(connection: psycopg.Connection[Any], versions: Path = VERSIONS) -> None:
    """Raises the driver's error. The failed migration is rolled back; earlier ones stay applied."""
    with _sqlalchemy(connection) as wrapped:
        command.upgrade(_config(versions, connection=wrapped), "head")


def downgrade(connection: psycopg.Connection[Any], to: str, versions: Path = VERSIONS) -> None:
    with _sqlalchemy(connection) as wrapped:
        command.downgrade(_config(versions, connection=wrapped), to)


def history(versions: Path = VERSIONS) -> list[Script]:
    """Oldest first."""
    return list(ScriptDirectory.from_config(_config(versions)).walk_revisions())[::-1]


def sql(versions: Path = VERSIONS, *, after: str = "base", until: str = "head") -> str:
    """The SQL of the migrations after `after`, up to and including `until`."""
    printed = StringIO(_LOCK_TIMEOUT)
    printed.seek(0, SEEK_END)
    command.upgrade(_config(versions, printed), f"{after}:{until}", sql=True)
    return printed.getvalue()


def write(connection: psycopg.Connection[Any], message: str, comparison: Comparison, versions: Path = VERSIONS) -> Path:
    """A migration from the database to the models, which is empty if they agree."""
    with _sqlalchemy(connection) as wrapped, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Computed default on"
        )  # reported as missing, like all that is not written
        config = _config(versions, connection=wrapped, comparison=comparison)
        script = command.revision(config, message, autogenerate=True, rev_id=_next_revision(versions))
    assert isinstance(script, Script)
    return Path(script.path)


def write_statements(statements: list[str], message: str, versions: Path = VERSIONS) -> Path:
    """A migration that runs the statements, and has nothing to take back."""
    script = command.revision(_config(versions), message, rev_id=_next_revision(versions))
    assert isinstance(script, Script)
    path = Path(script.path)
    calls = "\n".join(f"    op.execute({statement!r})" for statement in statements)
    path.write_text(path.read_text().replace("    pass", calls, 1))
    return path


def _next_revision(versions: Path) -> str:
    known, at = read_revisions(versions).known, datetime.now(UTC)
    while (revision := at.strftime("%Y_%m_%d_%H%M")) in known:
        at += timedelta(minutes=1)
    return revision


def _config(versions: Path, output: StringIO | None = None, **attributes: object) -> Config:
    config = Config(output_buffer=output or StringIO(), cmd_opts=Namespace(quiet=True), attributes=attributes)
    config.set_main_option("script_location", _literal(_FOLDER))
    config.set_main_option("version_locations", _literal(versions))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config


def _literal(path: Path) -> str:
    return str(path).replace("%", "%%")


@contextmanager
def _sqlalchemy(connection: psycopg.Connection[Any]) -> Iterator[Connection]:
    """Wraps the same connection, which holds the lock of migrations."""
    connection.autocommit = False
    engine = create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool)
    try:
        with engine.connect() as wrapped:
            yield wrapped
    except CommandError as error:
        raise MigrationError(str(error)) from error
    except DBAPIError as error:
        if error.orig is None:
            raise
        raise error.orig from error
    finally:
        connection.rollback()
        connection.autocommit = True
