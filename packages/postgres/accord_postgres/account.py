"""As whom PostgreSQL runs: it refuses root, and initdb refuses a user without an entry in /etc/passwd."""

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
    """The uid that the data folder belongs to, as this process sees it."""
    identity: str
    """What the trampoline has to become."""


def choose_account(folder: Path) -> Account:
    """The first that works, preferring the one that owns the data of an earlier start."""
    require_own_folder(folder)
    faults: list[str] = []
    for account in candidates(data_owner(folder)):
        fault = fault_of(account, folder)
        if fault is None:
            return account
        faults.append(f"\n  {account.title}: {fault}")
    raise EmbeddedPostgresError(
        f"{refused()}, and there is no way around it:{''.join(faults)}\n"
        "Run as a normal user, or move the checkout to a place that every account can reach (not under /root), "
        "or set DATABASE_URL."
    )


def refused() -> str:
    if os.geteuid() == 0:
        return "PostgreSQL refuses to run as root"
    return f"PostgreSQL refuses to run as uid {os.geteuid()}, which has no entry in /etc/passwd"


def require_own_folder(folder: Path) -> None:
    """Root can take over what it finds; anyone else can only use what is theirs."""
    me = os.geteuid()
    owners = {path.stat().st_uid for path in (folder, folder / "data") if path.exists()}
    if me != 0 and owners - {me}:
        raise EmbeddedPostgresError(
            f"{folder} belongs to uid {min(owners - {me})}, and this is uid {me}: it was made by another user, or with "
            f"sudo. Take it over with `sudo chown -R {me} {folder}`, or remove it to begin with an empty database."
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


def fault_of(account: Account, folder: Path) -> str | None:
    """Tries the identity, the way to the folder and the way to the programs. None when all of it works."""
    process = launch(
        [binaries() / "postgres", "--version"],
        identity=account.identity,
        folder=folder.parent,
        output=subprocess.PIPE,
    )
    said, _ = process.communicate()
    return None if process.returncode == 0 else said.decode(errors="replace").strip()


def hand_over(folder: Path, owner: int) -> None:
    """Gives the folder to the account. Whole only if its data changes hands: that is a file or two a table."""
    if os.geteuid() != 0:
        return
    paths = folder.iterdir() if data_owner(folder) == owner else folder.rglob("*")
    for path in reversed([folder, *paths]):  # the data folder after what is in it: a kill in between is made good
        os.chown(path, owner, -1, follow_symlinks=False)
