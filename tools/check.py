"""Everything that is demanded of a change, the quickest first. It stops at the first fault and says how to mend it."""

import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sysconfig.get_path("scripts"))


class Step(NamedTuple):
    name: str
    command: tuple[str, ...]
    mend: str
    live: bool = False  # what it prints is worth reading while it runs, and when all is well


STEPS = (
    Step("format", ("ruff", "format", "--check"), "make fmt"),
    Step("lint", ("ruff", "check"), "make fmt, which mends what can be mended without you"),
    Step("strict types", ("mypy",), "edit, then make types"),
    Step("import walls", ("lint-imports",), "move the import; the walls stand in pyproject.toml"),
    Step("fresh stubs", ("python", "tools/stubs.py", "--check"), "make stubs"),
    Step("contract: style", ("python", "tools/contract.py", "lint"), "edit proto/, then make stubs"),
    Step("contract: nothing breaks", ("python", "tools/contract.py", "breaking"), "add a field, method or version"),
    Step(
        "migrations: drift, safety", ("python", "-m", "accord_db.migrate", "check"), "make migration m='what changes'"
    ),
    Step("tests", ("pytest",), "make test", live=True),
)


def main() -> int:
    began = time.monotonic()
    for step in STEPS:
        if not passes(step):
            print(f"\n{step.name} failed. To mend it: {step.mend}", file=sys.stderr)
            return 1
    print(f"All is well, in {time.monotonic() - began:.0f} s.")
    return 0


def passes(step: Step) -> bool:
    print(f"{step.name:.<28} ", end="\n" if step.live else "", flush=True)
    began = time.monotonic()
    program, *arguments = step.command
    output = None if step.live else subprocess.PIPE
    done = subprocess.run(
        [str(PROGRAMS / program), *arguments], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, text=True
    )
    print(
        f"{step.name + ' ' if step.live else ''}{'failed' if done.returncode else 'ok'}  {time.monotonic() - began:.1f} s"
    )
    if done.returncode and done.stdout:
        print(done.stdout, end="")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
