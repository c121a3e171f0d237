"""Follows docs/adding_a_feature.md word for word, in a copy of the repository."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import check
from tests.gateway.conftest import GatewayProcess, environment, eventually
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/adding_a_feature.md"
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".accord", ".hypothesis", ".*_cache", "__pycache__", "benchmarks", "node_modules"
)


@dataclass(frozen=True)
class Block:
    """A code block of the page: its language, the file that is named above it if there is one, and what it says."""

    language: str
    path: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """A file that is named stands for all blocks up to the next text."""
    path = ""
    for part in re.split(r"^(```\w+\n.*?^```\n)", page, flags=re.MULTILINE | re.DOTALL):
        if code := re.fullmatch(r"```(\w+)\n(.*)```\n", part, flags=re.DOTALL):
            yield Block(code[1], path, code[2])
        elif part.strip():
            named = re.search(r"^\*\*`([^`]+)`\*\*\s*\Z", part, flags=re.MULTILINE)
            path = named[1] if named else ""


class Copy:
    """Of the repository, with the environment of the original."""

    def __init__(self, root: Path) -> None:
        shutil.copytree(ROOT, root, ignore=NOT_COPIED)
        (root / ".venv").symlink_to(sys.prefix)
        self.root = root
        packages = [folder for kind in ("packages", "services") for folder in (root / kind).iterdir()]
        # What is installed is the original: the copy goes before it. And make is not to look after the environment.
        self.environment = environment({}) | {"PYTHONPATH": os.pathsep.join(map(str, packages)), "PYTHON": "true"}

    def write(self, block: Block) -> None:
        file = self.root / block.path
        if block.language == "diff":
            file.write_text(changed(file.read_text(), block.text))
        else:
            assert not file.exists(), f"{block.path} is there already"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["sh", "-euc", command], cwd=self.root, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def check(self, files: list[str]) -> None:
        """What `make check` runs but the tests, on these files: the others are as they were."""
        for step in check.STEPS:
            judged = files if step.command[0] in ("ruff", "mypy") else []
            if step.command != ("pytest",):
                self.run(" ".join([f".venv/bin/{step.command[0]}", *step.command[1:], *judged]))

    @contextmanager
    def serving(self) -> Iterator[GatewayProcess]:
        # Outside the copy, whose path is too long for a socket.
        with TemporaryDirectory(prefix="accord-") as folder, Path(folder, "log").open("wb") as log:
            settings = {"PORT": str(free_port()), "STATE_FOLDER": folder}
            process = subprocess.Popen(
                ["make", "run"],
                cwd=self.root,
                env=self.environment | settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                yield GatewayProcess(process, self.root, Path(folder, "log"))
            finally:
                os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C would
                process.wait()


def changed(before: str, diff: str) -> str:
    lines = [(line[:1], line[1:]) for line in diff.splitlines(keepends=True)]
    old = "".join(text for sign, text in lines if sign != "+")
    assert before.count(old) == 1, f"this is not there, or more than once:\n{old}"
    return before.replace(old, "".join(text for sign, text in lines if sign != "-"))


@pytest.mark.skipif((ROOT / "proto/accord/notes").exists(), reason="somebody has followed it here")
def test_following_it_word_for_word_works(tmp_path: Path) -> None:
    copy, page = Copy(tmp_path / "accord"), list(blocks(PAGE.read_text()))
    files = sorted({block.path for block in page if block.path.endswith(".py")})
    for block in page:
        if block.path:
            copy.write(block)
        elif "buf curl" in block.text:
            assert "Milk and eggs" in called(copy, block.text)
        else:
            for command in block.text.splitlines():
                copy.check(files) if command == "make check" else copy.run(command)


def called(copy: Copy, command: str) -> str:
    """What the call answers to somebody who has signed up and in."""
    with copy.serving() as gateway:
        sign_in = re.compile(r"^.*buf curl .*/SignUp\n.*buf curl .*/SignIn .*\n", re.MULTILINE)
        typed = eventually(lambda: sign_in.search(gateway.output), gateway)
        return copy.run(typed[0] + command.replace("127.0.0.1:50051", gateway.address))
