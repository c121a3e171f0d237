"""Writes the next migration from the differences between the models and the migrations."""

import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import MetaData

from accord_db.migrate import alembic_commands
from accord_db.migrate.apply import apply
from accord_db.migrate.comparison import Catalog, Comparison
from accord_db.migrate.drift import check_drift, create_models
from accord_db.migrate.lint import lint
from accord_db.migrate.revisions import VERSIONS, MigrationError, read_revisions
from accord_db.migrate.scratch import scratch_database
from accord_db.migrate.state import connected
from accord_db.schema import metadata as accord_metadata

# alembic's comments around the generated statements, which are removed.
_NOTICES = re.compile(r"^ *# ### .* ###\n", re.MULTILINE)
_UPGRADE = re.compile(r"^def upgrade\(\) -> None:\n", re.MULTILINE)


@dataclass(frozen=True)
class Draft:
    """A migration to review. `validation` is a second migration, which validates the CHECKs that the first one adds to existing
    tables. `missing` lists differences that neither contains, such as the expression of a computed column; `warnings` lists
    statements that are unsafe on a database in use. A comment in the file has both."""

    path: Path
    validation: Path | None
    is_empty: bool
    sql: str
    missing: list[str]
    warnings: list[str]


def generate(dsn: str, message: str, *, metadata: MetaData = accord_metadata, versions: Path = VERSIONS) -> Draft:
    """Uses scratch databases on the server of `dsn`, and does not change that database."""
    before = read_revisions(versions).head or "base"
    path, comparison = _write(dsn, message, metadata, versions)
    is_empty = re.search(r"^    pass$", path.read_text(), re.MULTILINE) is not None
    _rewrite(path, _NOTICES, "")
    if comparison.unsafe:
        _rewrite(path, _UPGRADE, f"unsafe = {comparison.unsafe!r}\n\n\ndef upgrade() -> None:\n")
    warnings = lint(versions, only=read_revisions(versions).head)
    validation = _write_validation(comparison, message, versions)
    missing = _missing(dsn, metadata, versions)
    if missing or warnings:
        _rewrite(path, _UPGRADE, f"def upgrade() -> None:\n{_comment(missing, warnings)}")
    _format(path, fix_imports=not is_empty)
    return Draft(path, validation, is_empty, alembic_commands.sql(versions, after=before), missing, warnings)


def _write(dsn: str, message: str, metadata: MetaData, versions: Path) -> tuple[Path, Comparison]:
    with scratch_database(dsn) as by_migrations, scratch_database(dsn) as by_models:
        apply(by_migrations, versions=versions)
        create_models(by_models, metadata)
        with connected(by_migrations) as migrated, connected(by_models) as modelled:
            comparison = Comparison(metadata, Catalog.read(migrated), Catalog.read(modelled))
            return alembic_commands.write(migrated, message, comparison, versions), comparison


def _write_validation(comparison: Comparison, message: str, versions: Path) -> Path | None:
    if not comparison.to_validate:
        return None
    path = alembic_commands.write_statements(comparison.to_validate, f"Validate {message}", versions)
    _format(path, fix_imports=True)
    return path


def _missing(dsn: str, metadata: MetaData, versions: Path) -> list[str]:
    try:
        return check_drift(dsn, metadata=metadata, versions=versions)
    except MigrationError as error:
        return [f"it does not run: {error}"]


def _comment(missing: Iterable[str], warnings: Iterable[str]) -> str:
    rules = dict.fromkeys(warning.partition(": warning: ")[2].partition(" ")[0] for warning in warnings)
    lines = [
        "`make check` rejects this migration. Write by hand:",
        *(f"  {line}" for missed in missing for line in missed.splitlines()),
        *(f"  a reason for {rule} in `unsafe`, or another statement" for rule in rules),
    ]
    return "".join(f"    # {line}\n" for line in lines)


def _rewrite(path: Path, pattern: re.Pattern[str], replacement: str) -> None:
    path.write_text(pattern.sub(lambda _: replacement, path.read_text()))


def _format(path: Path, *, fix_imports: bool) -> None:
    """As `make fmt` does. An empty migration keeps its imports."""
    ruff = [sys.executable, "-m", "ruff"]
    if fix_imports:
        subprocess.run([*ruff, "check", "--quiet", "--fix-only", path], check=False)
    subprocess.run([*ruff, "format", "--quiet", path], check=False)
