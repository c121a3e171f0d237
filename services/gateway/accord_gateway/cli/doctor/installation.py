"""Checks that the installed packages and the generated code are those of this release."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from accord_gateway.cli.doctor.finding import Finding

CHECKOUT = Path(__file__).parents[5]  # if the gateway is installed from one; the files below exist only there
LOCK = CHECKOUT / "requirements.lock"
STUBS = CHECKOUT / "tools" / "stubs.py"
OLDEST_PYTHON = (3, 11)
MAX_NAMED = 5  # packages in one finding


def findings() -> Iterator[Finding]:
    yield _python()
    if LOCK.is_file():
        yield _packages()
    yield _contract()
    if STUBS.is_file():
        yield _stubs()


def _python() -> Finding:
    too_old = sys.version_info < OLDEST_PYTHON
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    return Finding(python, "Install Python 3.11 or later, and run `make setup` with it." if too_old else "")


def _packages() -> Finding:
    # Lines with a condition (`; sys_platform == …`) are for some machines only.
    locked = re.findall(r"^([\w.-]+)==(\S+) \\$", LOCK.read_text(), flags=re.MULTILINE)
    different = [difference for name, expected in locked if (difference := _difference(name, expected))]
    if not different:
        return Finding(f"the {len(locked)} packages of requirements.lock")
    more = f" and {len(different) - MAX_NAMED} more" if len(different) > MAX_NAMED else ""
    return Finding(f"packages: {', '.join(different[:MAX_NAMED])}{more}", "Run `make setup`.")


def _difference(name: str, expected: str) -> str | None:
    try:
        installed = version(name)
    except PackageNotFoundError:
        return f"{name} is missing"
    return None if installed == expected else f"{name} is {installed} instead of {expected}"


def _contract() -> Finding:
    """Importing generated code fails if grpcio or protobuf is older than the version that generated it."""
    versions = f"grpcio {version('grpcio')} and protobuf {version('protobuf')}"
    try:
        from accord_rpc.contract import contract_services

        services = contract_services()
    except Exception as error:  # noqa: BLE001  # each one means that a gateway cannot start
        return Finding(f"the generated contract does not work with {versions}: {error}", "Run `make setup stubs`.")
    return Finding(f"the generated contract, {len(services)} services, with {versions}")


def _stubs() -> Finding:
    check = subprocess.run([sys.executable, STUBS, "--check"], capture_output=True, text=True)
    if check.returncode:
        return Finding(f"stubs: {(check.stdout or check.stderr).strip()}", "Run `make stubs` and commit the result.")
    return Finding("the generated contract matches proto/")
