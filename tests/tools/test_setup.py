"""`make setup`: its choice of Python, its use of pip's configuration, and its errors. Packages come from a local folder."""

import ast
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import setup

SOURCE = Path(setup.__file__)
MAKEFILE = SOURCE.parents[1] / "Makefile"

# Writes an editable wheel with nothing but the standard library, in place of hatchling.
BACKEND = """
import zipfile


def build_editable(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{folder}/accord_member-1.0-py3-none-any.whl", "w") as wheel:
        info = "accord_member-1.0.dist-info"
        wheel.writestr("accord_member.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: accord-member\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return "accord_member-1.0-py3-none-any.whl"


build_wheel = build_editable
"""
MEMBER = """
[project]
name = "accord-member"
version = "1.0"

[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


class Checkout:
    """A repository with the real Makefile and set-up script, one locked package and one package in the repository."""

    def __init__(self, around: Path) -> None:
        self.folder = folder = around / "with a space"
        self.elsewhere = around / "elsewhere"
        self.index = around / "index"
        self._bin = around / "bin"
        for path in (self.elsewhere, self.index, self._bin, folder / "packages/member", folder / SOURCE.parent.name):
            path.mkdir(parents=True)
        shutil.copy(MAKEFILE, folder)
        shutil.copy(SOURCE, folder / SOURCE.parent.name)
        (folder / "packages/member/pyproject.toml").write_text(MEMBER)
        (folder / "packages/member/backend.py").write_text(BACKEND)
        self.lock(self.wheel("locked"))

    def wheel(self, name: str) -> Path:
        path = self.index / f"{name}-1.0-py3-none-any.whl"
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{name}.py", "")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        return path

    def lock(self, *wheels: Path) -> None:
        lines = (
            f"{wheel.name.partition('-')[0]}==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
            for wheel in wheels
        )
        (self.folder / "requirements.lock").write_text("".join(lines))

    def default_python(self, script: str) -> None:
        """Sets the script that `python3` runs."""
        program = self._bin / "python3"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def make(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Configures pip to use only the folder of wheels, unless `environment` sets PIP_CONFIG_FILE."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "MAKE"))}
        index = {} if "PIP_CONFIG_FILE" in environment else {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index)}
        home = {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder), "XDG_CONFIG_DIRS": str(self.folder)}
        return subprocess.run(
            ["make", *arguments],
            cwd=self.folder,
            env=others | index | home | {"PATH": f"{self._bin}:{os.environ['PATH']}"} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def setup(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        done = self.make("setup", *arguments, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def interpreter(self) -> Path:
        """The Python that created .venv."""
        return (self.folder / ".venv/bin/python").readlink()

    def installed(self) -> set[str]:
        names = "from importlib.metadata import distributions; print(*(each.name for each in distributions()))"
        done = subprocess.run(
            [self.folder / ".venv/bin/python", "-I", "-c", names], capture_output=True, text=True, check=True
        )
        return set(done.stdout.split()) - {"pip", "setuptools"}

    def uninstall(self) -> None:
        for path in self.folder.glob(".venv/lib/*/site-packages/*"):
            if path.name.startswith(("locked", "accord_member")):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with (self.folder / "requirements.lock").open("a") as lock:
            lock.write("# changed\n")


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    """A checkout whose environment was created with `make setup PYTHON=...`."""
    with TemporaryDirectory(prefix="accord-") as folder:
        checkout = Checkout(Path(folder).resolve())
        checkout.default_python("echo 'python3 was used' >&2; exit 1")
        checkout.setup(f"PYTHON={sys.executable}")
        yield checkout


def test_setup_installs_the_lock_and_the_packages_of_the_repository(checkout: Checkout) -> None:
    assert checkout.installed() == {"locked", "accord-member"}


def test_later_setups_use_the_python_that_created_the_environment(checkout: Checkout) -> None:
    assert "The environment in .venv is ready" in checkout.setup().stdout
    checkout.uninstall()
    checkout.setup()
    assert checkout.installed() == {"locked", "accord-member"}


def test_setup_after_a_failed_installation_uses_the_same_python(checkout: Checkout) -> None:
    checkout.uninstall()
    assert checkout.make("setup", PIP_FIND_LINKS="/nowhere").returncode != 0
    checkout.setup()
    assert checkout.installed() == {"locked", "accord-member"}


def test_environment_is_created_again_only_for_another_python(checkout: Checkout) -> None:
    other = checkout.folder / "other"
    subprocess.run([sys.executable, "-m", "venv", "--copies", "--without-pip", other], check=True)
    checkout.default_python(f'exec "{sys.executable}" "$@"')
    try:
        created = (checkout.folder / ".venv/pyvenv.cfg").stat().st_mtime_ns
        assert "Creating" not in checkout.setup().stdout
        assert "Creating" in checkout.setup(f"PYTHON={other}/bin/python").stdout
        assert "Creating" not in checkout.setup().stdout
        assert (checkout.folder / ".venv/pyvenv.cfg").stat().st_mtime_ns != created
        shutil.rmtree(other)
        assert "Creating" in checkout.setup().stdout, "a Python that has been removed is replaced by python3"
    finally:
        checkout.default_python("echo 'python3 was used' >&2; exit 1")
    checkout.setup()


def test_installation_ignores_the_configured_target_of_pip(checkout: Checkout) -> None:
    other_requirements = checkout.folder / "other.txt"
    other_requirements.write_text("missing==1.0\n")
    checkout.uninstall()
    checkout.setup(
        PIP_USER="1",
        PIP_TARGET=str(checkout.elsewhere),
        PIP_PREFIX=str(checkout.elsewhere),
        PIP_ROOT=str(checkout.elsewhere),
        PIP_PYTHON=str(checkout.elsewhere),
        PIP_REQUIREMENT=str(other_requirements),
        PIP_CONSTRAINT=str(other_requirements),
        PIP_NO_BINARY=":all:",
        PIP_DRY_RUN="1",
        PIP_REQUIRE_VIRTUALENV="1",
        PIP_QUIET="3",
    )
    assert checkout.installed() == {"locked", "accord-member"}
    assert list(checkout.elsewhere.iterdir()) == []


@pytest.mark.parametrize("section", ["global", "install"])
def test_configuration_files_of_pip_set_the_index_and_not_the_target(checkout: Checkout, section: str) -> None:
    file = checkout.folder / "pip.conf"
    file.write_text(
        f"[{section}]\nno-index = true\nfind-links =\n    /nowhere\n    {checkout.index}\n"
        f"user = true\ntarget = {checkout.elsewhere}\nprefix = {checkout.elsewhere}\ndry-run = true\n"
    )
    checkout.uninstall()
    checkout.setup(PIP_CONFIG_FILE=str(file))
    assert checkout.installed() == {"locked", "accord-member"}
    assert list(checkout.elsewhere.iterdir()) == []


def test_error_names_the_unreadable_configuration_file_of_pip(checkout: Checkout) -> None:
    file = checkout.folder / "pip.conf"
    file.write_text("no section\n")
    checkout.uninstall()
    done = checkout.make("setup", PIP_CONFIG_FILE=str(file))
    assert done.returncode != 0
    assert str(file) in done.stderr
    assert "pip cannot read its configuration" in done.stderr
    checkout.setup()


def test_installation_ignores_the_search_path_of_python(checkout: Checkout) -> None:
    (checkout.elsewhere / "pip").mkdir()
    (checkout.elsewhere / "pip/__init__.py").write_text("raise SystemExit('a pip from PYTHONPATH was imported')")
    checkout.uninstall()
    try:
        checkout.setup(
            PYTHONPATH=str(checkout.elsewhere),
            PYTHONHOME=str(checkout.elsewhere),
            PYTHONUSERBASE=str(checkout.elsewhere),
            PYTHONSTARTUP=str(checkout.elsewhere),
        )
    finally:
        shutil.rmtree(checkout.elsewhere / "pip")
    assert checkout.installed() == {"locked", "accord-member"}
    assert list(checkout.elsewhere.iterdir()) == []


def test_packages_that_are_no_longer_in_the_lock_are_removed(checkout: Checkout) -> None:
    checkout.lock(checkout.wheel("locked"), checkout.wheel("dropped"))
    checkout.setup()
    assert "dropped" in checkout.installed()
    checkout.lock(checkout.wheel("locked"))
    checkout.setup()
    assert checkout.installed() == {"locked", "accord-member"}


def test_download_with_another_hash_is_an_error(checkout: Checkout) -> None:
    wheel = checkout.wheel("locked")
    checkout.lock(wheel)
    checkout.uninstall()
    with zipfile.ZipFile(wheel, "a") as changed:
        changed.writestr("extra.py", "")
    done = checkout.make("setup")
    assert done.returncode != 0
    assert "A download differs from requirements.lock" in done.stderr
    checkout.lock(checkout.wheel("locked"))
    checkout.setup()


def test_second_setup_waits_for_the_first(checkout: Checkout) -> None:
    checkout.uninstall()
    script = checkout.folder / SOURCE.parent.name / "setup.py"
    with (checkout.folder / "requirements.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
        try:
            assert second.stdout
            with second.stdout as output:
                assert output.readline() == "Another terminal is creating .venv. Waiting for it.\n"
        finally:
            second.kill()
            second.wait()
    checkout.setup()


def test_script_can_be_parsed_by_unsupported_versions_of_python() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 6))
    assert not any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in ast.walk(tree))


@pytest.fixture
def member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one package, whose environment is up to date."""
    member = tmp_path / "packages/db"
    member.mkdir(parents=True)
    (member / "pyproject.toml").write_text('[project]\nname = "accord-db"\n')
    (tmp_path / "requirements.lock").write_text("grpcio==1.85.1 \\\n    --hash=sha256:00\nSQLAlchemy==2.1.9\n")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "LOCK", tmp_path / "requirements.lock")
    monkeypatch.setattr(setup, "PYTHON", tmp_path / ".venv/bin/python")
    monkeypatch.setattr(setup, "STAMP", tmp_path / ".venv/stamp")
    setup.STAMP.write_text("\n".join([*setup.foundation(), setup.digest()]))
    return tmp_path


@pytest.mark.usefixtures("member")
def test_environment_is_up_to_date_when_nothing_has_changed() -> None:
    assert setup.up_to_date()


@pytest.mark.parametrize("path", ["requirements.lock", "packages/db/pyproject.toml"])
def test_environment_is_out_of_date_when_a_dependency_has_changed(member: Path, path: str) -> None:
    with (member / path).open("a") as file:
        file.write("# changed\n")
    assert not setup.up_to_date()


@pytest.mark.parametrize("path", [".venv/stamp", ".venv/bin/python"])
def test_environment_is_out_of_date_when_a_part_is_missing(member: Path, path: str) -> None:
    (member / path).unlink()
    assert not setup.up_to_date()


@pytest.mark.usefixtures("member")
def test_environment_is_out_of_date_when_it_was_interrupted() -> None:
    setup.STAMP.write_text("\n".join(setup.foundation()))
    assert not setup.up_to_date()


@pytest.mark.usefixtures("member")
def test_environment_is_out_of_date_for_another_version_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version_tuple", lambda: ("3", "99", "0"))
    assert not setup.up_to_date()


def test_python_that_is_too_old_is_reported_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "OLDEST", (4, 0))
    assert setup.main() == 1
    assert "is too old: Accord needs 4.0 or later" in capsys.readouterr().err


def test_python_without_ensurepip_is_reported_with_the_missing_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert setup.main() == 1
    assert f"apt install python{setup.python_version()}-venv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(28, "No space left on device"), "Free some space"),
        (PermissionError(13, "Permission denied"), "Remove it"),
    ],
)
def test_error_of_the_operating_system_is_reported_with_a_remedy(
    error: OSError, remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> bool:
        raise error

    monkeypatch.setattr(setup, "up_to_date", fail)
    assert setup.main() == 1
    assert remedy in capsys.readouterr().err
