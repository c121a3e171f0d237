"""The generated stubs, and the files that differ from them."""

from pathlib import Path

import pytest

import stubs


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    return folder_with(
        tmp_path / "fresh", {"accord/tasks/v1/tasks_pb2.py": "new", "accord/notes/v1/notes_pb2.py": "same"}
    )


def folder_with(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_missing_changed_and_obsolete_files_are_stale(fresh: Path, tmp_path: Path) -> None:
    committed = folder_with(
        tmp_path / "committed",
        {
            "accord/gone/v1/gone_pb2.py": "",
            "accord/notes/v1/notes_pb2.py": "same",
            "accord/notes/v1/__pycache__/notes_pb2.pyc": "is ignored",
            "pyproject.toml": "is not generated",
        },
    )
    assert stubs.stale_files(fresh, committed) == ["accord/gone/v1/gone_pb2.py", "accord/tasks/v1/tasks_pb2.py"]


def test_updated_folder_equals_the_fresh_one(fresh: Path, tmp_path: Path) -> None:
    committed = folder_with(
        tmp_path / "committed",
        {
            "accord/gone/v1/gone_pb2.py": "",
            "accord/gone/v1/__pycache__/gone_pb2.pyc": "",
            "accord/tasks/v1/tasks_pb2.py": "old",
        },
    )
    done = [stubs.update_file(path, fresh, committed) for path in stubs.stale_files(fresh, committed)]
    stubs.remove_empty_folders(committed)
    assert done == ["removed", "added", "changed"]
    assert not stubs.stale_files(fresh, committed)
    assert not (committed / "accord/gone").exists()


def test_two_generations_of_one_contract_are_equal(tmp_path: Path) -> None:
    first, second = folder_with(tmp_path / "first", {}), folder_with(tmp_path / "second", {})
    stubs.generate(stubs.SOURCES, first)
    stubs.generate(stubs.SOURCES, second)
    assert stubs.generated_files(first) >= {"accord/tasks/v1/tasks_pb2.py", stubs.OPENAPI}
    assert not stubs.stale_files(first, second)
