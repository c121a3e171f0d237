"""The account that runs PostgreSQL, which refuses root; initdb also refuses a user without an entry in /etc/passwd."""

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
class Account:
    title: str
    owner: int
    """The uid of the data folder's owner, outside of any user namespace."""
    identity: str
    """For trampoline.py."""


def choose_account(folder: Path) -> Account:
    """The first account that works. The owner of existing data is preferred."""
    require_own_folder(folder)
    errors: list[str] = []
    for account in candidates(data_owner(folder)):
        error = check(account, folder)
        if error is None:
            return account
        errors.append(f"\n  {account.title}: {error}")
    raise EmbeddedPostgresError(
        f"{refused()}, and no other account works:{''.join(errors)}\n"
        "Run as a normal user, or move the checkout to a folder that every account can reach (not under /root), "
        "or set DATABASE_URL."
    )


def refused() -> str:
    if os.geteuid() == 0:
        return "PostgreSQL refuses to run as root"
    return f"PostgreSQL refuses to run as uid {os.geteuid()}, which has no entry in /etc/passwd"


def require_own_folder(folder: Path) -> None:
    """Root can change the owner of a folder; other users cannot."""
    me = os.geteuid()
    owners = {path.stat().st_uid for path in (folder, folder / "data") if path.exists()}
    if me != 0 and owners - {me}:
        raise EmbeddedPostgresError(
            f"{folder} belongs to uid {min(owners - {me})}, and this is uid {me}: it was created by another user, or with "
            f"sudo. Run `sudo chown -R {me} {folder}`, or remove it to start with an empty database."
        )


def data_owner(folder: Path) -> int:
    data = folder / "data"
    return data.stat().st_uid if data.exists() else os.geteuid()


def candidates(data_owner: int) -> Iterator[Account]:
    me = os.geteuid()
    if me != 0 and has_entry(me):
        yield Account("this user", me, "same")
    if me == 0 and data_owner != 0:
        yield account_of(data_owner)
    if sys.platform == "linux":
        yield Account("a user namespace", me, "namespace:{}:{}".format(*nobody()))
    if me == 0:
        uid, gid = nobody()
        yield Account("the account nobody", uid, f"account:{uid}:{gid}")


def account_of(uid: int) -> Account:
    group = pwd.getpwuid(uid).pw_gid if has_entry(uid) else uid
    return Account(f"the owner of the data, uid {uid}", uid, f"account:{uid}:{group}")


def nobody() -> tuple[int, int]:
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


def check(account: Account, folder: Path) -> str | None:
    """The error message if the identity, the folder or the programs cannot be used by the account; None if all can."""
    process = launch(
        [binaries() / "postgres", "--version"],
        identity=account.identity,
        folder=folder.parent,
        output=subprocess.PIPE,
    )
    output, _ = process.communicate()
    return None if process.returncode == 0 else output.decode(errors="replace").strip()


def hand_over(folder: Path, owner: int) -> None:
    """Makes the account the owner of the folder. Recursive only if the owner of the data changes."""
    if os.geteuid() != 0:
        return
    paths = folder.iterdir() if data_owner(folder) == owner else folder.rglob("*")
    # The data folder after its contents, so that the next start repeats an interrupted run.
    for path in reversed([folder, *paths]):
        os.chown(path, owner, -1, follow_symlinks=False)
