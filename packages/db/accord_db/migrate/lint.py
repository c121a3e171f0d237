"""What a migration would do to a database in use, as squawk sees it."""

import subprocess
import sys
from pathlib import Path

from alembic.script import Script

from . import scripts
from .errors import MigrationError
from .revisions import VERSIONS

_RULES = VERSIONS.parent / "squawk.toml"


def lint(versions: Path = VERSIONS, *, only: str | None = None) -> list[str]:
    """A warning a line. A migration may set `unsafe`, a rule and the reason to break it, for itself."""
    return [
        warning
        for script in scripts.history(versions)
        if only in (None, script.revision)
        for warning in _warnings(script, versions)
    ]


def _warnings(script: Script, versions: Path) -> list[str]:
    unsafe: dict[str, str] = getattr(script.module, "unsafe", {})
    if unreasoned := [rule for rule, reason in unsafe.items() if not reason.strip()]:
        raise MigrationError(f"{script.path}: say why it may break {', '.join(unreasoned)}")
    command = [str(_squawk()), "-c", str(_RULES), "--reporter", "gcc", "--stdin-filepath", Path(script.path).name]
    excluded = [f"--exclude={rule}" for rule in unsafe]
    after = script.down_revision or "base"
    assert isinstance(after, str)  # a list would be a merge, which read_revisions has no use for
    statements = scripts.sql(versions, after=after, until=script.revision)
    squawk = subprocess.run([*command, *excluded], input=statements, text=True, capture_output=True, check=False)
    if squawk.returncode and not squawk.stdout:
        raise MigrationError(f"squawk failed: {squawk.stderr}")
    return squawk.stdout.splitlines()


def _squawk() -> Path:
    squawk = Path(sys.executable).with_name("squawk")
    if not squawk.exists():
        raise MigrationError(f"{squawk} is missing: `make setup` installs it")
    return squawk
