"""The migrations as alembic sees them: run them, print their SQL, write another. Imports alembic, which takes a while."""

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
from sqlalchemy import Connection, MetaData, StaticPool, create_engine
from sqlalchemy.exc import DBAPIError

from accord_db.migrate.errors import MigrationError
from accord_db.migrate.revisions import VERSIONS, read_revisions

_FOLDER = VERSIONS.parent
# For whoever runs the printed SQL by hand: what waits for a table makes everybody else wait behind it.
_BRIEFLY = "SET lock_timeout = '4s';\n\n"


def upgrade(connection: psycopg.Connection[Any], versions: Path = VERSIONS) -> None:
    """Raises the driver's error, the migration that failed rolled back and those before it in place."""
    with _spoken_by_sqlalchemy(connection) as spoken:
        command.upgrade(_config(versions, connection=spoken), "head")


def downgrade(connection: psycopg.Connection[Any], to: str, versions: Path = VERSIONS) -> None:
    with _spoken_by_sqlalchemy(connection) as spoken:
        command.downgrade(_config(versions, connection=spoken), to)


def history(versions: Path = VERSIONS) -> list[Script]:
    """Oldest first."""
    return list(ScriptDirectory.from_config(_config(versions)).walk_revisions())[::-1]


def sql(versions: Path = VERSIONS, *, after: str = "base", until: str = "head") -> str:
    """What the migrations behind `after`, up to `until`, would do."""
    printed = StringIO(_BRIEFLY)
    printed.seek(0, SEEK_END)
    command.upgrade(_config(versions, printed), f"{after}:{until}", sql=True)
    return printed.getvalue()


def write(connection: psycopg.Connection[Any], message: str, *, metadata: MetaData, versions: Path = VERSIONS) -> Path:
    """A migration from what the database has to what the models say; an empty one where they agree."""
    with _spoken_by_sqlalchemy(connection) as spoken:
        config = _config(versions, connection=spoken, metadata=metadata)
        script = command.revision(config, message, autogenerate=True, rev_id=_next_revision(versions))
    assert isinstance(script, Script)
    return Path(script.path)


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
def _spoken_by_sqlalchemy(connection: psycopg.Connection[Any]) -> Iterator[Connection]:
    """The same connection, since the lock that keeps others out is held by it."""
    connection.autocommit = False
    engine = create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool)
    try:
        with engine.connect() as spoken:
            yield spoken
    except CommandError as error:
        raise MigrationError(str(error)) from error
    except DBAPIError as error:
        if error.orig is None:
            raise
        raise error.orig from error
    finally:
        connection.rollback()
        connection.autocommit = True
