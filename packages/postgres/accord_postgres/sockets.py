"""The folder of the unix socket. The server trusts every client that can enter it, and listens nowhere else."""

import hashlib
import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from accord_postgres.errors import EmbeddedPostgresError

PORT = 5432
MAX_PATH = 107 if sys.platform == "linux" else 103  # bytes of sockaddr_un.sun_path without its closing NUL


def socket_folder(folder: Path) -> Path:
    """Inside the folder, or, if its path cannot be addressed, in the temporary folder under a name derived from it."""
    inside = folder / "socket"
    if addressable(inside):
        return inside
    mark = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    outside = Path(tempfile.gettempdir()).resolve() / f"accord-{os.geteuid()}-{mark}"
    if addressable(outside):
        return outside
    raise EmbeddedPostgresError(
        f"Neither {inside} nor {outside} can hold a unix socket (at most {MAX_PATH} bytes, no comma): "
        "move the checkout to a shorter path, or set TMPDIR to one."
    )


def addressable(folder: Path) -> bool:
    """Whether the path is short enough and without a comma, which separates hosts in libpq."""
    path = os.fsencode(folder / f".s.PGSQL.{PORT}")
    return len(path) <= MAX_PATH and b"," not in path


def make_private(folder: Path, *, owner: int) -> None:
    """Creates the folder, or accepts an existing one that no other user can write to."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        require_private(folder, os.fstat(descriptor), {owner, os.geteuid()})
        os.fchown(descriptor, owner, -1)
    finally:
        os.close(descriptor)


def require_private(folder: Path, status: os.stat_result, owners: set[int]) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in owners or mode != 0o700:
        raise EmbeddedPostgresError(
            f"{folder} belongs to uid {status.st_uid} with mode {mode:o}, but must belong to uid {min(owners)} with mode 700: "
            "another user created or opened it. Remove it, or set TMPDIR to another folder."
        )


def remove_leftovers(folder: Path) -> None:
    """Removes the socket and its lock file, which remain after a power cut or kill -9. PostgreSQL trusts the pid in the file."""
    for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
        (folder / name).unlink(missing_ok=True)
