"""Creates .venv: every package of requirements.lock with its hash checked, then the packages of this repository, editable.

Needs only a Python that has venv. Does nothing when nothing has changed, and starts over after an interruption.
Python 3.6 can still parse and run this file up to the version check, so that it prints advice and not a SyntaxError.
"""

import ast
import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
# Its first line is the interpreter, which the Makefile reads. Its last is the digest, written when all is installed.
STAMP = VENV / "stamp"
PIP_LOG = VENV / "pip.log"

# The options of pip that concern its index. Its other options would change where packages are installed (user, target, prefix),
# which (requirement, constraint, dry-run) or how they are built.
INDEX_OPTIONS = re.compile(
    r"(extra-)?index-url|no-index|find-links|trusted-host|proxy|(client-)?cert|keyring-provider|(default-)?timeout"
    r"|(resume-)?retries|(no-)?cache-dir|no-color|use-(feature|deprecated)"  # truststore, legacy-certs
)

ADVICE = {
    "DO NOT MATCH THE HASHES": "A download differs from requirements.lock. Do not continue; contact the operator of your package "
    "index.",
    "No space left": "The disk is full. Free some space, then run `make setup` again.",
    "from versions: none": "The package index is unreachable, or has no build of this package for this machine.",
    "Permission denied": "Another user owns .venv. Remove it, then run `make setup` again.",
}
NETWORK_ADVICE = "If the network failed, run `make setup` again: finished downloads are kept."


class SetupError(Exception):
    """Why .venv could not be created, and what to do."""


def main() -> int:
    try:
        require_python()
        if not up_to_date():
            with LOCK.open() as lock:
                wait_for_lock(lock.fileno())
                if not up_to_date():
                    create_environment()
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\n{error}\n{advice(str(error))}".rstrip(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. `make setup` starts over.", file=sys.stderr)
        return 130
    return 0


def require_python() -> None:
    this, wanted = f"Python {platform.python_version()} ({sys.executable})", ".".join(map(str, OLDEST))
    if sys.version_info < OLDEST:
        raise SetupError(
            f"{this} is too old: Accord needs {wanted} or later.\n"
            f"If a newer one is installed, name it once: make setup PYTHON=python{wanted}\n"
            f"If not, install one: apt install python{wanted}-venv, dnf install python{wanted}, brew install python"
        )
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise SetupError(
            f"{this} cannot create virtual environments: Debian and Ubuntu package that part separately.\n"
            f"Install it, then try again: sudo apt install python{python_version()}-venv"
        )


def wait_for_lock(descriptor: int) -> None:
    """Two terminals may run `make` at the same time."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another terminal is creating .venv. Waiting for it.", flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def up_to_date() -> bool:
    return PYTHON.exists() and read_stamp() == [*foundation(), digest()]


def read_stamp() -> "list[str]":
    return STAMP.read_text().splitlines() if STAMP.is_file() else []


def foundation() -> "list[str]":
    """What .venv cannot outlive: compiled packages belong to an interpreter, the programs in bin/ to a folder."""
    version = f"{platform.python_implementation()} {python_version()} {platform.machine()}"
    return [os.path.realpath(sys.executable), version, str(ROOT)]


def python_version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def digest() -> str:
    content = hashlib.sha256()
    for path in (LOCK, *(member / "pyproject.toml" for member in members())):
        content.update(path.read_bytes())
    return content.hexdigest()


def members() -> "list[Path]":
    return sorted(
        path.parent for kind in ("packages", "services", "tools") for path in (ROOT / kind).glob("*/pyproject.toml")
    )


def create_environment() -> None:
    if read_stamp()[:3] != foundation() or not PYTHON.exists():
        announce(f"Creating .venv with Python {platform.python_version()}")
        interpreter = os.path.realpath(sys.executable)
        if not run([interpreter, "-I", "-m", "venv", "--clear", str(VENV)], plain_environment()):
            raise SetupError("`python -m venv` failed; its error is above.")
    STAMP.write_text("\n".join(foundation()) + "\n")
    environment = pip_environment()
    announce("Installing requirements.lock")
    # Wheels only: building a package runs its code, with build tools whose hashes nothing has checked.
    pip(environment, "install", "--only-binary=:all:", "--require-hashes", f"--requirement={LOCK}")
    announce("Installing the packages of this repository")
    editable = (f"--editable={member}" for member in members())
    pip(environment, "install", "--quiet", "--no-deps", "--no-build-isolation", *editable)
    left_over = sorted(installed_names() - wanted_names())
    if left_over:
        pip(environment, "uninstall", "--quiet", "--yes", *left_over)
    STAMP.write_text("\n".join([*foundation(), digest()]) + "\n")
    announce(f"Installed {len(installed_names())} packages in .venv")


def announce(step: str) -> None:
    print(step, flush=True)


def pip(environment: "dict[str, str]", command: str, *arguments: str) -> None:
    """pip draws its progress on a terminal. Elsewhere it prints warnings and errors only."""
    PIP_LOG.write_bytes(b"")
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    options = ["--disable-pip-version-check", "--no-input", f"--log={PIP_LOG}", *quiet]
    if not run([str(PYTHON), "-I", "-m", "pip", command, *options, *arguments], environment):
        raise SetupError(advice(PIP_LOG.read_text(errors="replace")) or NETWORK_ADVICE)


def run(command: "list[str]", environment: "dict[str, str]") -> bool:
    return subprocess.run(command, cwd=ROOT, env=environment).returncode == 0


def advice(log: str) -> str:
    return next((meaning for sign, meaning in ADVICE.items() if sign in log), "")


def plain_environment() -> "dict[str, str]":
    """Without PYTHONPATH, PYTHONHOME, PIP_TARGET and the like."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}


def pip_environment() -> "dict[str, str]":
    """With those of pip's variables and files that concern its index."""
    options = {"PIP_" + name.upper().replace("-", "_"): value for name, value in index_options().items()}
    progress = {} if sys.stdout.isatty() else {"PIP_PROGRESS_BAR": "off"}
    return {**plain_environment(), **options, **progress, "PIP_CONFIG_FILE": os.devnull}


def index_options() -> "dict[str, str]":
    kept = {name: value for name, value in os.environ.items() if name == "PIP_CONFIG_FILE" or concerns_index(name)}
    # Options of `pip config list` itself, which a pip.conf could set for it.
    off = {f"PIP_{name}": "0" for name in ("USER", "GLOBAL", "SITE", "QUIET", "VERBOSE")}
    listed = subprocess.run(
        [str(PYTHON), "-I", "-m", "pip", "config", "list"],
        cwd=ROOT,
        env={**plain_environment(), **kept, **off},
        stdout=subprocess.PIPE,
        text=True,
    )
    if listed.returncode:
        raise SetupError("pip cannot read its configuration. Correct the file it names, then run `make setup` again.")
    found = re.findall(r"^(global|install|:env:)\.(\S+?)=(.*)$", listed.stdout, re.MULTILINE)
    found.sort(key=lambda option: ("global", "install", ":env:").index(option[0]))  # pip's order of precedence
    return {name: str(ast.literal_eval(value)) for _, name, value in found if INDEX_OPTIONS.fullmatch(name)}


def concerns_index(variable: str) -> bool:
    option = variable[len("PIP_") :].lower().replace("_", "-")
    return variable.startswith("PIP_") and INDEX_OPTIONS.fullmatch(option) is not None


def locked_names() -> "set[str]":
    """A lock may list a package twice, for different machines."""
    return {normal(name) for name in re.findall(r"^([\w.-]+)==", LOCK.read_text(), re.MULTILINE)}


def wanted_names() -> "set[str]":
    return {*locked_names(), *map(project_name, members()), "pip", "setuptools"}


def installed_names() -> "set[str]":
    return {normal(path.name.split("-")[0]) for path in site_packages().glob("*.dist-info")}


def project_name(member: Path) -> str:
    """From pyproject.toml, by a pattern: tomllib is newer than the oldest Python that runs this file."""
    found = re.search(r'^name = "(.+)"', (member / "pyproject.toml").read_text(), re.MULTILINE)
    return normal(found.group(1)) if found else ""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def site_packages() -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(VENV)}))


if __name__ == "__main__":
    sys.exit(main())
