"""Makes .venv: every package of requirements.lock with its hash checked, then this project's own, editable.

It needs nothing but a Python with venv, does nothing when nothing has changed, and begins anew after an interruption.
It stays readable for older Pythons than it works with, so that it can say what is missing there.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import selectors
import shutil
import subprocess
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
STAMP = VENV / "complete"  # written last: an environment without it was interrupted
TICK = 0.2  # seconds between two drawings of the progress line on a terminal
PLAIN_TICK = 5  # and between two plain lines elsewhere
LOOKED_AT = re.compile(
    r"(?:Collecting|Processing|Requirement already satisfied:) (?:.*/)?([\w.-]+?)(?:==|-\d)"
)  # pip's
LOG_TAIL = 15  # lines of pip's that are worth showing when it fails


class SetupError(Exception):
    """Why there is no environment, and what to do about it."""


def main() -> int:
    try:
        require_python()
        if not up_to_date():
            with LOCK.open() as lock:
                wait_for_turn(lock)
                if not up_to_date():
                    make_environment()
    except PermissionError as error:
        print(f"\n{error}\nSomebody else made .venv: remove it, then `make setup` again.", file=sys.stderr)
        return 1
    except (SetupError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: `make setup` begins anew.", file=sys.stderr)
        return 130
    return 0


def require_python() -> None:
    this, wanted = f"Python {platform.python_version()} ({sys.executable})", ".".join(map(str, OLDEST))
    if sys.version_info < OLDEST:
        raise SetupError(
            f"{this} is too old: Accord needs {wanted} or later.\n"
            f"If there is a newer one, name it: make setup PYTHON=python{wanted}\n"
            f"If not, install one first: apt install python{wanted}-venv, dnf install python{wanted}, brew install python"
        )
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise SetupError(
            f"{this} cannot make virtual environments: Debian and Ubuntu keep that part in a package of its own.\n"
            f"Install it, then try again: sudo apt install python{python_version()}-venv"
        )


def wait_for_turn(lock: IO[str]) -> None:
    """Two terminals may say `make` at once."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another terminal is making .venv: waiting for it.", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def python_version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def up_to_date() -> bool:
    return STAMP.is_file() and (VENV / "bin" / "python").exists() and STAMP.read_text() == stamp()


def stamp() -> str:
    """What the environment is tied to and a digest of what is in it, a line each."""
    content = hashlib.sha256()
    for path in (LOCK, *(member / "pyproject.toml" for member in members())):
        content.update(path.read_bytes())
    return f"{foundation()}\n{content.hexdigest()}\n"


def foundation() -> str:
    """Compiled packages are tied to a version of Python, the programs in bin/ to the folder they were installed in."""
    return f"{platform.python_implementation()} {python_version()} {platform.machine()} {ROOT}"


def members() -> list[Path]:
    return sorted(path.parent for kind in ("packages", "services") for path in (ROOT / kind).glob("*/pyproject.toml"))


def make_environment() -> None:
    progress = Progress(locked_names())
    if not (STAMP.is_file() and STAMP.read_text().startswith(foundation() + "\n")):
        progress.begin(f"making .venv with Python {platform.python_version()}")
        run([sys.executable, "-m", "venv", "--clear", str(VENV)], progress.follow)
    STAMP.unlink(missing_ok=True)
    progress.begin("installing requirements.lock")
    # Wheels only: to build a package is to run its code, with tools of its choice that no hash has been checked of.
    pip("install", "--only-binary=:all:", "--require-hashes", f"--requirement={LOCK}", follow=progress.follow)
    progress.begin("installing Accord's own packages")
    editable = (f"--editable={member}" for member in members())
    pip("install", "--no-deps", "--no-build-isolation", *editable, follow=progress.follow)
    if left_over := sorted(installed_names() - wanted_names()):
        pip("uninstall", "--yes", *left_over, follow=progress.follow)
    STAMP.write_text(stamp())
    progress.end(f"ready: {len(installed_names())} packages in .venv")


def pip(command: str, *arguments: str, follow: Callable[[str], None]) -> None:
    python = str(VENV / "bin" / "python")
    run([python, "-m", "pip", "--disable-pip-version-check", "--no-input", command, *arguments], follow)


def run(command: list[str], follow: Callable[[str], None]) -> None:
    """Hands every line that the command prints to `follow`, and "" whenever it has printed none for a tick."""
    log: deque[str] = deque(maxlen=LOG_TAIL)
    unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=unbuffered, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        for line in lines_and_ticks(process.stdout):
            log.extend(filter(None, [line]))
            follow(line)
    if process.returncode:
        raise SetupError("\n".join((*log, "", advice("\n".join(log)))))


def lines_and_ticks(output: IO[bytes]) -> Iterator[str]:
    unfinished = b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if not selector.select(TICK):
                yield ""
                continue
            received = os.read(output.fileno(), 65536)
            *lines, unfinished = (unfinished + received).split(b"\n")
            yield from (line.decode(errors="replace").rstrip() for line in lines)
            if not received:
                yield from filter(None, [unfinished.decode(errors="replace")])
                return


def advice(log: str) -> str:
    for sign, meaning in (
        ("DO NOT MATCH THE HASHES", "A download is not what requirements.lock names: ask who runs your package index."),
        ("No space left", "The disk is full: make room, then `make setup` again."),
        ("from versions: none", "The package index was not reached, or has no build of this package for this machine."),
    ):
        if sign in log:
            return meaning
    return "If the network was the cause, `make setup` again: what has been downloaded is kept."


def locked_names() -> list[str]:
    """What requirements.lock names. It may name a package twice, for different machines."""
    return [normal(name) for name in re.findall(r"^([\w.-]+)==", LOCK.read_text(), re.MULTILINE)]


def wanted_names() -> set[str]:
    return {*locked_names(), *map(project_name, members()), "pip", "setuptools"}


def installed_names() -> set[str]:
    return {normal(path.name.split("-")[0]) for path in site_packages().glob("*.dist-info")}


def project_name(member: Path) -> str:
    """The name as pyproject.toml has it, by a pattern since the oldest Python that may run this has no tomllib."""
    found = re.search(r'^name = "(.+)"', (member / "pyproject.toml").read_text(), re.MULTILINE)
    return normal(found[1]) if found else ""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def site_packages() -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(VENV)}))


class Progress:
    """One line that is drawn again and again on a terminal; elsewhere a plain line now and then."""

    def __init__(self, locked: list[str]) -> None:
        self._live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._began = self._printed = time.monotonic()
        self._waiting = set(locked)  # what pip has not come to yet
        self._stage = self._package = ""
        self._total, self._collected, self._unpacking = len(locked), 0, False

    def begin(self, stage: str) -> None:
        self._stage, self._package, self._unpacking = stage, "", False
        self._show(milestone=True)

    def follow(self, line: str) -> None:
        """Understands pip's lines: it collects package by package, then unpacks all of them without a word."""
        found = LOOKED_AT.match(line)
        if line.startswith("Ignoring "):  # a package for other machines
            self._total -= 1
        elif line.startswith("Installing collected packages"):
            self._unpacking = True
        elif found and normal(found[1]) in self._waiting:
            self._package = normal(found[1])
            self._waiting.remove(self._package)
            self._collected += 1
        self._show(milestone=False)

    def end(self, result: str) -> None:
        self.begin(result)
        if self._live:
            print()

    def _show(self, *, milestone: bool) -> None:
        text = f"{time.monotonic() - self._began:4.0f} s  {self._stage}{self._detail()}"
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{text[:width]}", end="", flush=True)
        elif milestone or time.monotonic() - self._printed > PLAIN_TICK:
            print(text, flush=True)
            self._printed = time.monotonic()

    def _detail(self) -> str:
        if self._unpacking and self._package:
            return f"  {self._bar(len(installed_names()))}  unpacking"
        return f"  {self._bar(self._collected)}  {self._package}" if self._package else ""

    def _bar(self, done: int) -> str:
        done = min(done, self._total)
        filled = 20 * done // self._total
        return f"[{'#' * filled}{'.' * (20 - filled)}] {done}/{self._total}"


if __name__ == "__main__":
    sys.exit(main())
