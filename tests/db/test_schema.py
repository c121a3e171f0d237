"""Registration of tables."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import accord_db
from accord_db.engine.model import Model
from accord_db.schema import metadata

NOTES = """
from sqlalchemy.orm import Mapped

from accord_db.engine.model import Model, Shared


class Note(Shared, Model):
    __tablename__ = "example_notes"

    text: Mapped[str]
"""


def test_table_in_a_new_file_is_registered_without_an_import(tmp_path: Path) -> None:
    """Otherwise `migrate check` would not compare it, and no migration would create it."""
    shutil.copytree(
        Path(accord_db.__file__).parent, tmp_path / "accord_db", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "accord_db/schema/example_notes.py").write_text(NOTES)
    shown = "from accord_db.schema import metadata; print(*metadata.tables)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", shown], env=environment, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {*metadata.tables, "example_notes"}


def test_metadata_contains_all_models() -> None:
    assert metadata is Model.metadata
    assert {"tasks", "accounts", "recovery_codes"} < metadata.tables.keys()
