"""The example calls the gateway from a separate environment that has only the client and contract packages of Accord."""

import asyncio
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest

from accord_db.engine.database import Database
from tests.factories import signed_in_person

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "packages/client/examples/tasks.py"
ACCORD = ("accord-contract", "accord-client")
# Their direct and indirect dependencies.
DEPENDENCIES = ("grpcio", "protobuf", "googleapis-common-protos", "typing-extensions")

Python = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """An environment with the two packages, installed from wheels without a network."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "venv", with_pip=False)
    [packages] = (folder / "venv/lib").glob("python*/site-packages")
    members = [str(ROOT / "packages" / name.removeprefix("accord-")) for name in ACCORD]
    pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", *members)
    pip("install", "--no-deps", f"--target={packages}", *map(str, folder.glob("*.whl")))
    for name in DEPENDENCIES:
        link_files(name, packages)

    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [folder / "venv/bin/python", *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )

    return run


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", arguments[0], "--no-index"]
    subprocess.run([*command, *arguments[1:]], check=True, cwd=ROOT)


def link_files(name: str, packages: Path) -> None:
    """Links the files of an installed package, because it cannot be downloaded without a network."""
    for file in distribution(name).files or ():
        target = packages / file
        if ".." not in file.parts and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(Path(str(file.locate())).resolve())


async def test_example_calls_the_gateway(gateway: tuple[object, str], database: Database, python: Python) -> None:
    person = await signed_in_person(database)
    arguments = (str(EXAMPLE), "--plain-text", gateway[1], "Water the plants")
    done = await asyncio.to_thread(python, *arguments, ACCORD_SESSION_TOKEN=person.token)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["open: Water the plants", "done: Water the plants"]
    assert done.returncode == 0


async def test_example_prints_the_error(gateway: tuple[object, str], database: Database, python: Python) -> None:
    person = await signed_in_person(database)
    for title, token, message, code in (
        ("", person.token, "title", 2),
        ("Water the plants", "acs_nonsense", "(CREDENTIAL_INVALID)", 3),
    ):
        arguments = (str(EXAMPLE), "--plain-text", gateway[1], title)
        done = await asyncio.to_thread(python, *arguments, ACCORD_SESSION_TOKEN=token)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode == code


def test_client_does_not_install_other_packages_of_accord(python: Python) -> None:
    done = python(
        "-c",
        "import accord_client.aio, importlib.util as u;"
        "print([name for name in ('accord_db', 'accord_auth', 'accord_api', 'accord_gateway') if u.find_spec(name)])",
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_packages_declare_their_dependencies(python: Python) -> None:
    script = "from importlib.metadata import requires; print(*requires('accord-client'), *requires('accord-contract'))"
    assert set(python("-c", script).stdout.split()) <= {*ACCORD, *DEPENDENCIES}


def test_client_has_the_marker_of_typed_packages(python: Python) -> None:
    script = "from importlib.resources import files; print((files('accord_client') / 'py.typed').is_file())"
    assert python("-c", script).stdout == "True\n"
