"""Packages of npm that tests run."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest


def installed(folder: Path) -> str:
    """The path of node. Installs the packages of `folder` once, exactly as locked. Skips the test without Node.js."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node.js and npm are not both installed")
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        locked, installed = (folder / "package-lock.json").read_bytes(), folder / "node_modules" / ".accord-lock"
        if not installed.exists() or installed.read_bytes() != locked:
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
            subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL)
            installed.write_bytes(locked)
    return node
