"""The migrations, read from their files without alembic, which takes 0.4 s to import: a process with a current database does
not need it."""

import re
from dataclasses import dataclass
from pathlib import Path

VERSIONS = Path(__file__).parent.parent / "migrations" / "versions"

_REVISION = re.compile(r"^revision\b[^=\n]*=\s*[\"']([^\"']+)", re.MULTILINE)
_DOWN_REVISION = re.compile(r"^down_revision\b[^=\n]*=\s*(\([^)]*\)|.*)", re.MULTILINE)
_QUOTED = re.compile(r"[\"']([^\"']+)[\"']")


class MigrationError(Exception):
    """The message states the problem and what to do."""


@dataclass(frozen=True)
class Revisions:
    known: frozenset[str]
    head: str | None


def read_revisions(versions: Path = VERSIONS) -> Revisions:
    """Raises MigrationError if there is more than one last migration."""
    known, followed = set[str](), set[str]()
    for file in versions.glob("*.py"):
        text = file.read_text()
        known.update(_REVISION.findall(text))
        for before in _DOWN_REVISION.findall(text):
            followed.update(_QUOTED.findall(before))
    heads = sorted(known - followed)
    if len(heads) > 1:
        raise MigrationError(_CONFLICT.format(heads=" and ".join(heads), before=heads[-2], last=heads[-1]))
    return Revisions(frozenset(known), heads[0] if heads else None)


_CONFLICT = (
    "there is more than one last migration: {heads}. Merged branches have each added one. In the file {last}_….py set "
    'down_revision = "{before}", make sure that it is still correct after that one, and run `make check`.'
)
