"""Checks migrations with squawk for statements that are unsafe on a database in use."""

import subprocess
import sys
from pathlib import Path

from alembic.script import Script

from accord_db.migrate import alembic_commands
from accord_db.migrate.revisions import VERSIONS, MigrationError

_RULES = VERSIONS.parent / "squawk.toml"


def lint(versions: Path = VERSIONS, *, only: str | None = None) -> list[str]:
    """One warning per line. A migration can accept rules for itself: `unsafe` maps each rule to the reason."""
    return [
        warning
        for script in alembic_commands.history(versions)
        if only in (None, script.revision)
        for warning in _warnings(script, versions)
    ]


def _warnings(script: Script, versions: Path) -> list[str]:
    unsafe: dict[str, str] = getattr(script.module, "unsafe", {})
    if unreasoned := [rule for rule, reason in unsafe.items() if not reason.strip()]:
        raise MigrationError(f"{script.path}: `unsafe` needs a reason for {', '.join(unreasoned)}")
    after = script.down_revision or "base"
    assert isinstance(after, str)  # a list would be a merge, which read_revisions rejects
    # In the SQL, because --exclude would replace the rules that squawk.toml excludes.
    accepted = f"-- squawk-ignore-file {', '.join(unsafe)}\n" if unsafe else ""
    statements = accepted + alembic_commands.sql(versions, after=after, until=script.revision)
    command = [str(_squawk()), "-c", str(_RULES), "--reporter", "gcc", "--stdin-filepath", Path(script.path).name]
    squawk = subprocess.run(command, input=statements, text=True, capture_output=True, check=False)
    if squawk.returncode and not squawk.stdout:
        raise MigrationError(f"squawk failed: {squawk.stderr}")
    return squawk.stdout.splitlines()


def _squawk() -> Path:
    squawk = Path(sys.executable).with_name("squawk")
    if not squawk.exists():
        raise MigrationError(f"{squawk} is missing: `make setup` installs it")
    return squawk
