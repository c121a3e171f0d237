"""Whether what is installed is what this release was made with."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from accord_gateway.cli.doctor.finding import Finding

CHECKOUT = Path(__file__).parents[5]  # where the gateway is installed from one; elsewhere there is nothing to compare
LOCK = CHECKOUT / "requirements.lock"
STUBS = CHECKOUT / "tools" / "stubs.py"
OLDEST_PYTHON = (3, 11)
MOST_NAMED = 5


def findings() -> Iterator[Finding]:
    yield _python()
    if LOCK.is_file():
        yield _packages()
    yield _contract()
    if STUBS.is_file():
        yield _stubs()


def _python() -> Finding:
    too_old = sys.version_info < OLDEST_PYTHON
    found = f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    return Finding(found, "Install Python 3.11 or later, and run `make setup` with it." if too_old else "")


def _packages() -> Finding:
    # Lines with a condition (`; sys_platform == …`) are for some machines only.
    locked = re.findall(r"^([\w.-]+)==(\S+) \\$", LOCK.read_text(), flags=re.MULTILINE)
    different = [difference for name, wanted in locked if (difference := _difference(name, wanted))]
    if not different:
        return Finding(f"the {len(locked)} packages of requirements.lock")
    more = f" and {len(different) - MOST_NAMED} more" if len(different) > MOST_NAMED else ""
    return Finding(f"packages: {', '.join(different[:MOST_NAMED])}{more}", "Run `make setup`.")


def _difference(name: str, wanted: str) -> str | None:
    try:
        found = version(name)
    except PackageNotFoundError:
        return f"{name} is missing"
    return None if found == wanted else f"{name} is {found} instead of {wanted}"


def _contract() -> Finding:
    """Generated code refuses to be imported by a grpcio or protobuf older than what generated it."""
    versions = f"grpcio {version('grpcio')} and protobuf {version('protobuf')}"
    try:
        from accord_rpc.contract import contract_services

        services = contract_services()
    except Exception as error:  # noqa: BLE001  # whatever it is, nothing can be served
        return Finding(f"the generated contract does not work with {versions}: {error}", "Run `make setup stubs`.")
    return Finding(f"the generated contract, {len(services)} services, with {versions}")


def _stubs() -> Finding:
    done = subprocess.run([sys.executable, STUBS, "--check"], capture_output=True, text=True)
    if done.returncode:
        return Finding(f"stubs: {(done.stdout or done.stderr).strip()}", "Run `make stubs`, and commit what it writes.")
    return Finding("the generated contract is what proto/ says")
