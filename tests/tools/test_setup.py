import importlib.util
import platform
from pathlib import Path

import pytest

import setup


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one package, whose environment is up to date."""
    member = tmp_path / "packages/db"
    member.mkdir(parents=True)
    (member / "pyproject.toml").write_text('[project]\nname = "accord-db"\n')
    (tmp_path / "requirements.lock").write_text("grpcio==1.85.1 \\\n    --hash=sha256:00\nSQLAlchemy==2.1.9\n")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "LOCK", tmp_path / "requirements.lock")
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup, "STAMP", tmp_path / ".venv/complete")
    setup.STAMP.write_text(setup.stamp())
    return tmp_path


@pytest.mark.usefixtures("checkout")
def test_environment_is_up_to_date_when_nothing_has_changed() -> None:
    assert setup.up_to_date()


@pytest.mark.parametrize("path", ["requirements.lock", "packages/db/pyproject.toml"])
def test_environment_is_out_of_date_when_a_dependency_has_changed(checkout: Path, path: str) -> None:
    with (checkout / path).open("a") as file:
        file.write("# changed\n")
    assert not setup.up_to_date()


@pytest.mark.parametrize("path", [".venv/complete", ".venv/bin/python"])
def test_environment_is_out_of_date_when_it_was_interrupted(checkout: Path, path: str) -> None:
    (checkout / path).unlink()
    assert not setup.up_to_date()


@pytest.mark.usefixtures("checkout")
def test_environment_is_out_of_date_for_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version_tuple", lambda: ("3", "99", "0"))
    assert not setup.up_to_date()


def test_python_that_is_too_old_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "OLDEST", (4, 0))
    assert setup.main() == 1
    assert "is too old: Accord needs 4.0 or later" in capsys.readouterr().err


def test_python_without_ensurepip_is_told_which_package_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert setup.main() == 1
    assert f"apt install python{setup.python_version()}-venv" in capsys.readouterr().err


def test_command_that_fails_is_shown_with_its_last_lines_and_advice() -> None:
    with pytest.raises(setup.SetupError, match=r"(?s)No space left on device.*make room"):
        setup.run(["sh", "-c", "echo No space left on device; exit 1"], lambda line: None)


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(
    "line",
    [
        "Collecting sqlalchemy==2.1.9",
        "Collecting sqlalchemy==2.1.9 (from -r requirements.lock (line 3))",
        "Requirement already satisfied: SQLAlchemy==2.1.9 in ./.venv/lib",
        "Processing /some where/sqlalchemy-2.1.9-cp311-cp311-linux_x86_64.whl",
    ],
)
def test_progress_counts_a_package_once_however_pip_speaks_of_it(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "PLAIN_TICK", -1)
    progress = setup.Progress(setup.locked_names())
    progress.follow(line)
    progress.follow(line)
    assert capsys.readouterr().out.splitlines()[-1].endswith("[##########..........] 1/2  sqlalchemy")
