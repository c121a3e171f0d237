"""Writes the next migration, from what the models say and the migrations do not."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import MetaData

from accord_db.schema import metadata as our_metadata

from . import scripts
from .apply import apply
from .drift import check_drift
from .lint import lint
from .revisions import VERSIONS, read_revisions
from .scratch import scratch_database
from .state import connect

# What alembic says around what it wrote; that it was written by a program and must be read, the reader knows.
_NOTICES = re.compile(r"^ *# ### .* ###\n", re.MULTILINE)


@dataclass(frozen=True)
class Draft:
    """What to review. `missing` is what the models say and alembic cannot see, such as a changed CHECK."""

    path: Path
    is_empty: bool
    sql: str
    missing: list[str]
    warnings: list[str]


def generate(dsn: str, message: str, *, metadata: MetaData = our_metadata, versions: Path = VERSIONS) -> Draft:
    """Asks scratch databases on the server of `dsn`, which is itself left alone."""
    before = read_revisions(versions).head
    with scratch_database(dsn) as scratch:
        apply(scratch, versions=versions)
        with connect(scratch) as connection:
            path = scripts.write(connection, message, metadata=metadata, versions=versions)
    _format(path)
    return Draft(
        path=path,
        is_empty=re.search(r"^    pass$", path.read_text(), re.MULTILINE) is not None,
        sql=scripts.sql(versions, after=before or "base"),
        missing=check_drift(dsn, metadata=metadata, versions=versions),
        warnings=lint(versions, only=read_revisions(versions).head),
    )


def _format(path: Path) -> None:
    path.write_text(_NOTICES.sub("", path.read_text()))
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", "--quiet", "--fix-only", path], check=False)
    subprocess.run([*ruff, "format", "--quiet", path], check=False)
