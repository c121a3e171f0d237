"""The selection of tests, and the number of processes that run them."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.conftest import pytest_xdist_auto_num_workers

ROOT = Path(__file__).resolve().parents[2]
# One file of each kind.
FILES = (
    "tests/api/test_foreign_ids.py",
    "tests/api/test_matrix.py",
    "tests/api/test_tasks.py",
    "tests/auth/test_sessions.py",
    "tests/client/test_retries.py",
    "tests/db/test_migrations.py",
    "tests/db/test_row_level_security.py",
    "tests/db/test_tasks.py",
    "tests/gateway/test_health.py",
)


def run_pytest(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def selected(*options: str) -> dict[str, int]:
    """The number of selected tests of each file."""
    done = run_pytest("--collect-only", "--quiet", "--numprocesses=0", *options, *FILES)
    assert done.returncode == 0, done.stdout + done.stderr
    files = [line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line]
    return {file: files.count(file) for file in FILES}


def test_tests_that_execute_sql_in_this_process_depend_on_the_server() -> None:
    every_test, depending = selected(), selected("-m", "server")
    for file in ("tests/api/test_tasks.py", "tests/db/test_tasks.py"):
        assert depending[file] == every_test[file] > 0, file
    for file in ("tests/api/test_matrix.py", "tests/auth/test_sessions.py", "tests/db/test_row_level_security.py"):
        assert 0 < depending[file] <= every_test[file], file
    for file in ("tests/client/test_retries.py", "tests/gateway/test_health.py"):
        assert depending[file] == 0 < every_test[file], file


def test_feature_selects_tests_of_every_layer() -> None:
    every_test, concerning = selected(), selected("--feature=tasks")
    for file in ("tests/api/test_matrix.py", "tests/api/test_tasks.py", "tests/db/test_tasks.py"):
        assert concerning[file] == every_test[file] > 0, file
    assert 0 < concerning["tests/api/test_foreign_ids.py"] < every_test["tests/api/test_foreign_ids.py"]
    assert concerning["tests/auth/test_sessions.py"] == 0 < every_test["tests/auth/test_sessions.py"]


def test_unknown_feature_is_an_error() -> None:
    done = run_pytest("--collect-only", "--feature=taskz", "tests/tools/test_features.py")
    assert done.returncode == int(pytest.ExitCode.USAGE_ERROR)
    assert "No such feature: taskz." in done.stderr


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("arguments", "options", "workers"),
    [
        (["tests"], {}, CORES + 1),
        (["tests/db", "tests/api"], {}, CORES + 1),
        (["tests/db/test_ids.py", "tests/db/test_tasks.py"], {}, CORES),
        (["tests"], {"keyword": "tasks"}, CORES),
        (["tests"], {"feature": ["tasks"]}, CORES),
        (["tests/db/test_ids.py"], {}, 0),
        (["tests/db/test_ids.py::test_one"], {}, 0),
        (["tests"], {"capture": "no"}, 0),
        (["tests"], {"matrix": True}, 0),
    ],
)
def test_number_of_workers(arguments: list[str], options: dict[str, object], workers: int) -> None:
    given = {"matrix": False, "capture": "fd", "keyword": "", "feature": []} | options
    config = SimpleNamespace(args=arguments, getoption=given.get, invocation_params=SimpleNamespace(dir=ROOT))
    assert pytest_xdist_auto_num_workers(cast(Any, config)) == workers
