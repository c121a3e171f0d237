"""Follows docs/adding_a_feature.md by hand, word for word, in a copy of the repository. tests/tools/test_generator.py runs the commands
of its first part."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
# mypy's cache is copied: it would need most of the time.
NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".venv", ".accord", ".hypothesis", ".pytest_cache", ".ruff_cache", ".import_linter_cache"),
    *("benchmarks", "node_modules"),
)
# Of the tests that concern the feature: hostile messages take minutes, generated requests for every operation six seconds.
NOT_RUN = "hostile or large or test_openapi_conformance"


@dataclass(frozen=True)
class Block:
    """A code block of the page: its language, the file that is named above it if there is one, and its text."""

    language: str
    path: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """A file's name applies to all blocks up to the next text."""
    path = ""
    for part in re.split(r"^(```\w+\n.*?^```\n)", page, flags=re.MULTILINE | re.DOTALL):
        if code := re.fullmatch(r"```(\w+)\n(.*)```\n", part, flags=re.DOTALL):
            yield Block(code[1], path, code[2])
        elif part.strip():
            named = re.search(r"^\*\*`([^`]+)`\*\*\s*\Z", part, flags=re.MULTILINE)
            path = named[1] if named else ""


class Copy:
    """A copy of the repository, with an environment that has its packages and the libraries of the original."""

    def __init__(self, root: Path) -> None:
        shutil.copytree(ROOT, root, ignore=NOT_COPIED)
        self.root = root
        self._copy_environment(Path(sys.prefix), root / ".venv")
        self.environment = environment({}) | {"PYTHON": "true"}  # make does not set up .venv

    def _copy_environment(self, original: Path, copy: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", copy], check=True)
        libraries = Path(sysconfig.get_path("purelib"))
        here = copy / libraries.relative_to(original)
        for entry in libraries.iterdir():
            if not entry.match("*accord*.pth"):  # they lead to the original's packages
                (here / entry.name).symlink_to(entry)
        members = [
            path.parent
            for kind in ("packages", "services", "tools")
            for path in (self.root / kind).glob("*/pyproject.toml")
        ]
        (here / "copy.pth").write_text("".join(f"{folder}\n" for folder in members))
        for program in (original / "bin").iterdir():
            if not (copied := copy / "bin" / program.name).exists():
                copy_program(program, copied, original, copy)

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

    def check(self, feature: str, files: list[str]) -> None:
        """Runs what `make check args=…` runs, for these files: the others have not changed."""
        *quick, tests = check.STEPS
        commands = [
            f"{command} {' '.join(files) if tool in ('ruff', 'mypy') else ''}" for tool, command in map(of, quick)
        ]
        with ThreadPoolExecutor(2) as pool:
            for done in pool.map(self.run, commands):
                assert done is not None
        assert tests.command == ("pytest",)
        assert "passed" in self.run(f".venv/bin/python -m pytest -q -n0 --feature={feature} -k 'not ({NOT_RUN})'")

    @contextmanager
    def serving(self) -> Iterator[GatewayProcess]:
        # Outside the copy, whose path is too long for a socket.
        with TemporaryDirectory(prefix="accord-") as folder, Path(folder, "log").open("wb") as log:
            settings = {"PORT": str(free_port()), "STATE_FOLDER": folder, "SERVER": "accord"}
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


def of(step: check.Step) -> tuple[str, str]:
    """A step's program, and its command."""
    program, *arguments = step.command
    return program, " ".join([f".venv/bin/{program}", *arguments])


def copy_program(program: Path, copied: Path, original: Path, environment: Path) -> None:
    """A script names its interpreter in the first line. Other programs are the same."""
    text = program.read_bytes()
    if text.startswith(f"#!{original}".encode()):
        copied.write_bytes(text.replace(str(original).encode(), str(environment).encode(), 1))
        copied.chmod(0o755)
    else:
        copied.symlink_to(program)


@pytest.mark.skipif((ROOT / "proto/accord/projects").exists(), reason="the page has been followed in this repository")
def test_following_the_page_word_for_word_works(tmp_path: Path) -> None:
    copy, page = Copy(tmp_path / "accord"), list(blocks(PAGE.read_text().partition("## By hand")[2]))
    files = sorted({block.path for block in page if block.path.endswith(".py")})
    followed = set[str]()
    for block in page:
        if block.path:
            copy.write(block)
        elif "curl" in block.text:
            assert '"settings":{"theme":"dark"}' in called(copy, block.text)
            followed.add("curl")
        else:
            for command in block.text.splitlines():
                if command.startswith("make check args="):
                    copy.check(command.partition("=")[2], files)
                else:
                    copy.run(command)
                followed.add(command.partition(" args=")[0].partition(" m=")[0])
    assert followed == {"make stubs", "make migration", "make fmt", "make check", "curl"}


def called(copy: Copy, command: str) -> str:
    """The output of the calls of a user who has signed up and in."""
    with copy.serving() as gateway:
        sign_in = re.compile(r"^curl .*/v1/accounts .*\nTOKEN=.*/v1/sessions .*\n", re.MULTILINE)
        typed = eventually(lambda: sign_in.search(gateway.output), gateway)
        return copy.run(typed[0] + command.replace("127.0.0.1:50051", gateway.address))
