"""Turns a new process into a PostgreSQL program: changes its identity, binds it to its parent, then calls exec.

launch.py runs this file as a script. A `preexec_fn`, which runs between fork and exec, could deadlock on a lock that a thread of
the owner held during the fork.

Arguments: the owner's pid, a working folder, an identity (`same`, `account:UID:GID` or `namespace:UID:GID`), a program.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1


def main(owner: str, folder: str, identity: str, *program: str) -> None:
    become(*identity.split(":"))
    # After the identity, since the kernel clears the signal when the identity changes.
    die_with(int(owner))
    attempt(f"enter {folder}", lambda: os.chdir(folder))
    attempt(f"run {program[0]}", lambda: os.execve(program[0], program, {"LC_ALL": "C"}))  # noqa: S606 - without a shell


def become(kind: str, uid: str = "", gid: str = "") -> None:
    if kind == "namespace":
        attempt("open a user namespace", lambda: enter_namespace(uid, gid))
    elif kind == "account":
        attempt(f"become uid {uid}", lambda: drop_to(int(uid), int(gid)))


def enter_namespace(uid: str, gid: str) -> None:
    """The process sees itself as `uid`. Outside of the namespace it keeps its identity, and so do the files it creates."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    system_call("unshare", CLONE_NEWUSER)
    write("/proc/self/setgroups", "deny")  # required before an unprivileged gid_map, user_namespaces(7)
    write("/proc/self/gid_map", f"{gid} {outer_gid} 1")
    write("/proc/self/uid_map", f"{uid} {outer_uid} 1")


def drop_to(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with(owner: int) -> None:
    """If the owner dies, the kernel sends SIGINT, PostgreSQL's fast and clean shutdown. Linux only."""
    if sys.platform == "linux":
        system_call("prctl", PR_SET_PDEATHSIG, signal.SIGINT)
    if os.getppid() != owner:  # the owner died before prctl
        sys.exit("the owner of this server has ended")


def system_call(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123 - importing pathlib would take a fifth of this program's time
        file.write(text)


def attempt(description: str, step: Callable[[], None]) -> None:
    try:
        step()
    except OSError as error:
        sys.exit(f"cannot {description}: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
