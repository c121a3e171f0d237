"""Writes the next migration from the differences between the models and the migrations."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import MetaData

from accord_db.migrate import alembic_commands
from accord_db.migrate.apply import apply
from accord_db.migrate.drift import check_drift
from accord_db.migrate.lint import lint
from accord_db.migrate.revisions import VERSIONS, read_revisions
from accord_db.migrate.scratch import scratch_database
from accord_db.migrate.state import connected
from accord_db.schema import metadata as accord_metadata

# alembic's comments around the generated statements, which are removed.
_NOTICES = re.compile(r"^ *# ### .* ###\n", re.MULTILINE)


@dataclass(frozen=True)
class Draft:
    """A migration to review. `missing` lists differences that alembic does not detect, such as a changed CHECK."""

    path: Path
    is_empty: bool
    sql: str
    missing: list[str]
    warnings: list[str]


def generate(dsn: str, message: str, *, metadata: MetaData = accord_metadata, versions: Path = VERSIONS) -> Draft:
    """Uses scratch databases on the server of `dsn`. The database of `dsn` itself does not change."""
    before = read_revisions(versions).head
    with scratch_database(dsn) as scratch:
        apply(scratch, versions=versions)
        with connected(scratch) as connection:
            path = alembic_commands.write(connection, message, metadata=metadata, versions=versions)
    is_empty = re.search(r"^    pass$", path.read_text(), re.MULTILINE) is not None
    _format(path, imports=not is_empty)
    return Draft(
        path=path,
        is_empty=is_empty,
        sql=alembic_commands.sql(versions, after=before or "base"),
        missing=check_drift(dsn, metadata=metadata, versions=versions),
        warnings=lint(versions, only=read_revisions(versions).head),
    )


def _format(path: Path, *, imports: bool) -> None:
    """Formats the file like `make fmt`. An empty migration keeps its unused imports for its author."""
    path.write_text(_NOTICES.sub("", path.read_text()))
    ruff = [sys.executable, "-m", "ruff"]
    if imports:
        subprocess.run([*ruff, "check", "--quiet", "--fix-only", path], check=False)
    subprocess.run([*ruff, "format", "--quiet", path], check=False)
