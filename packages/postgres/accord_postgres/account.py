"""The operating system account that runs PostgreSQL. PostgreSQL rejects root; initdb rejects users without a passwd entry."""

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from accord_postgres.binaries import binaries
from accord_postgres.errors import EmbeddedPostgresError
from accord_postgres.launch import launch


@dataclass(frozen=True, slots=True)
class SystemAccount:
    title: str
    owner: int
    """The uid of the data folder's owner, outside of any user namespace."""
    identity: str
    """The argument of trampoline.py."""


def choose_account(folder: Path) -> SystemAccount:
    """The first account that can run PostgreSQL. Prefers the owner of existing data. Raises EmbeddedPostgresError if none can."""
    require_own_folder(folder)
    errors: list[str] = []
    for account in candidates(data_owner(folder)):
        error = check(account, folder)
        if error is None:
            return account
        errors.append(f"\n  {account.title}: {error}")
    raise EmbeddedPostgresError(
        f"{rejection()}, and no other account works:{''.join(errors)}\n"
        "Run as a normal user, or move the checkout to a folder that every account can reach (not under /root), "
        "or set DATABASE_URL."
    )


def rejection() -> str:
    if os.geteuid() == 0:
        return "PostgreSQL refuses to run as root"
    return f"PostgreSQL refuses to run as uid {os.geteuid()}, which has no entry in /etc/passwd"


def require_own_folder(folder: Path) -> None:
    """Root can change the owner of a folder; other users cannot."""
    uid = os.geteuid()
    owners = {path.stat().st_uid for path in (folder, folder / "data") if path.exists()}
    if uid != 0 and owners - {uid}:
        raise EmbeddedPostgresError(
            f"{folder} belongs to uid {min(owners - {uid})}, and this is uid {uid}: it was created by another user, or with "
            f"sudo. Run `sudo chown -R {uid} {folder}`, or remove it to start with an empty database."
        )


def data_owner(folder: Path) -> int:
    data = folder / "data"
    return data.stat().st_uid if data.exists() else os.geteuid()


def candidates(data_owner: int) -> Iterator[SystemAccount]:
    own_uid = os.geteuid()
    if own_uid != 0 and has_entry(own_uid):
        yield SystemAccount("this user", own_uid, "same")
    if own_uid == 0 and data_owner != 0:
        yield account_of(data_owner)
    if sys.platform == "linux":
        yield SystemAccount("a user namespace", own_uid, "namespace:{}:{}".format(*ids_of_nobody()))
    if own_uid == 0:
        uid, gid = ids_of_nobody()
        yield SystemAccount("the account nobody", uid, f"account:{uid}:{gid}")


def account_of(uid: int) -> SystemAccount:
    group = pwd.getpwuid(uid).pw_gid if has_entry(uid) else uid
    return SystemAccount(f"the owner of the data, uid {uid}", uid, f"account:{uid}:{group}")


def ids_of_nobody() -> tuple[int, int]:
    """The uid and the gid of the unprivileged account `nobody`. 65534 is the kernel's overflow id."""
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return entry.pw_uid, entry.pw_gid


def has_entry(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def check(account: SystemAccount, folder: Path) -> str | None:
    """The error message if the account cannot use the identity, the folder or the programs; otherwise None."""
    process = launch(
        [binaries() / "postgres", "--version"],
        identity=account.identity,
        folder=folder.parent,
        output=subprocess.PIPE,
    )
    output, _ = process.communicate()
    return None if process.returncode == 0 else output.decode(errors="replace").strip()


def change_owner(folder: Path, owner: int) -> None:
    """Does nothing unless run by root. Recursive only if the data folder has another owner."""
    if os.geteuid() != 0:
        return
    paths = folder.iterdir() if data_owner(folder) == owner else folder.rglob("*")
    # A folder changes after its contents, so that the next start repeats an interrupted change.
    for path in reversed([folder, *paths]):
        os.chown(path, owner, -1, follow_symlinks=False)
