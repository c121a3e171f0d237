"""A copy of the repository, for tests that change it."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.gateway.conftest import GatewayProcess, environment
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
# mypy's cache is copied: it would need most of the time.
NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".venv", ".accord", ".hypothesis", ".pytest_cache", ".ruff_cache", ".import_linter_cache"),
    *("benchmarks", "node_modules"),
)


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

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["sh", "-euc", command], cwd=self.root, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

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


def copy_program(program: Path, copied: Path, original: Path, environment: Path) -> None:
    """A script names its interpreter in the first line. Other programs are the same."""
    text = program.read_bytes()
    if text.startswith(f"#!{original}".encode()):
        copied.write_bytes(text.replace(str(original).encode(), str(environment).encode(), 1))
        copied.chmod(0o755)
    else:
        copied.symlink_to(program)
