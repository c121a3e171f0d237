"""`make check` runs every step, stops at the first failure, and can be limited to a feature."""

import subprocess
from pathlib import Path

import pytest

import check
from check import Step

ROOT = Path(__file__).resolve().parents[2]
CI = (ROOT / ".ci/run").read_text()

PASSES = Step("passes", ("python", "-c", ""), "unused")
FAILS = Step("fails", ("python", "-c", "print('two lines'); raise SystemExit(1)"), "add a line")
TESTS = Step("tests", ("python", "-c", "import sys; print('tests ran with', sys.argv[1:])"), "make test")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """The steps that this test checks with."""
    steps: list[Step] = []
    monkeypatch.setattr(check, "STEPS", steps)
    return steps


def test_check_passes_when_every_step_passes(steps: list[Step], capfd: pytest.CaptureFixture[str]) -> None:
    steps += [PASSES, TESTS]
    assert check.main([]) == 0
    printed = capfd.readouterr().out
    assert "passes...................... ok" in printed
    assert "tests ran with []" in printed


def test_check_stops_before_the_tests_when_a_step_fails(steps: list[Step], capfd: pytest.CaptureFixture[str]) -> None:
    steps += [PASSES, FAILS, TESTS]
    assert check.main([]) == 1
    printed = capfd.readouterr()
    assert "two lines" in printed.out
    assert "tests ran" not in printed.out
    assert "fails failed. To repair it: add a line" in printed.err


def test_check_fails_when_the_tests_fail(steps: list[Step], capfd: pytest.CaptureFixture[str]) -> None:
    steps += [PASSES, FAILS]
    assert check.main([]) == 1
    assert "fails failed" in capfd.readouterr().err


def test_check_of_features_passes_them_to_the_tests(steps: list[Step], capfd: pytest.CaptureFixture[str]) -> None:
    steps += [PASSES, TESTS]
    assert check.main(["tasks", "roles"]) == 0
    assert "tests ran with ['--feature=tasks', '--feature=roles']" in capfd.readouterr().out


def test_make_check_refuses_a_feature_that_does_not_exist() -> None:
    command = ["make", "-s", "check", "args=taskz", "PYTHON=true"]  # PYTHON=true skips the set-up
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "No such feature: taskz. The features are: account_tokens, accounts, " in done.stderr


def test_tests_are_the_last_step_and_the_others_check_the_rest() -> None:
    programs = [step.command[0] for step in check.STEPS]
    assert programs[-1] == "pytest"
    assert {"ruff", "mypy", "lint-imports"} <= set(programs)


def test_ci_checks_everything() -> None:
    assert '  step "make check, on embedded PostgreSQL" make check\n' in CI


def test_ci_sends_the_long_run_of_hostile_messages_once() -> None:
    assert CI.count("--hostile=1000") == 1
