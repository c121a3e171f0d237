"""Checks a change: format, lint, types, contract, migrations, tests. Stops at the first failure and names the remedy.

check.py          checks everything
check.py tasks    checks everything, but runs only the tests that concern the feature `tasks`
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from features import unknown_features

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sysconfig.get_path("scripts"))


class Step(NamedTuple):
    name: str
    command: tuple[str, ...]
    remedy: str


class Result(NamedTuple):
    passed: bool
    output: str
    seconds: float


STEPS = (
    Step("format", ("ruff", "format", "--check"), "make fmt"),
    Step("lint", ("ruff", "check"), "make fmt, which repairs what it can"),
    Step("strict types", ("mypy",), "edit, then make types"),
    Step("package boundaries", ("lint-imports",), "move the import; pyproject.toml lists the boundaries"),
    Step("generated code", ("python", "tools/stubs.py", "--check"), "make stubs"),
    Step("contract: style", ("python", "tools/contract.py", "lint"), "edit proto/, then make stubs"),
    Step("contract: compatibility", ("python", "tools/contract.py", "breaking"), "add a field, method or version"),
    Step("migrations", ("python", "-m", "accord_db.migrate", "check"), "make migration m='what changes'"),
    Step("tests", ("pytest",), "make test"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make check", description="Check a change.")
    parser.add_argument("feature", nargs="*", help="run only the tests that concern this feature")
    features: list[str] = parser.parse_args(arguments).feature
    if error := unknown_features(features):
        print(error, file=sys.stderr)
        return 2
    began = time.monotonic()
    *quick, tests = STEPS
    if failed := first_failure(quick) or run_tests(tests, features):
        print(f"\n{failed.name} failed. To repair it: {failed.remedy}", file=sys.stderr)
        return 1
    print(f"All checks passed in {time.monotonic() - began:.0f} s.")
    return 0


def first_failure(steps: Sequence[Step]) -> Step | None:
    """Runs as many steps at a time as there are cores, and reports them in order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = [(step, pool.submit(run, step)) for step in steps]
        for step, result in results:
            if not reported(step, result):
                pool.shutdown(wait=False, cancel_futures=True)
                return step
    return None


def reported(step: Step, result: "Future[Result]") -> bool:
    print(f"{step.name:.<28} ", end="", flush=True)
    passed, output, seconds = result.result()
    print(f"{'ok' if passed else 'failed'}  {seconds:.1f} s")
    if not passed:
        print(output, end="")
    return passed


def run(step: Step) -> Result:
    began = time.monotonic()
    done = subprocess.run(command(step), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return Result(done.returncode == 0, done.stdout, time.monotonic() - began)


def run_tests(step: Step, features: Sequence[str]) -> Step | None:
    """Shows their progress. Returns the step if it failed."""
    print(f"{step.name:.<28}", flush=True)
    options = [f"--feature={feature}" for feature in features]
    return step if subprocess.run([*command(step), *options], cwd=ROOT).returncode else None


def command(step: Step) -> list[str]:
    program, *arguments = step.command
    return [str(PROGRAMS / program), *arguments]


if __name__ == "__main__":
    sys.exit(main())
