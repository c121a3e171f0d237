"""Measures everything in one run of some minutes."""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from accord_postgres import EmbeddedPostgres
from benchmarks.data import fill
from benchmarks.load import require_h2load
from benchmarks.measure import Measuring, Operation
from benchmarks.peer import environment
from benchmarks.processes import resident_mib
from benchmarks.table import Results, table
from benchmarks.targets import ROOT, Target, all_targets, seconds_to_first_response

OPERATIONS: Final = (
    Operation("GetTask", "GetTask"),
    # A single user would favour servers with caches.
    Operation("GetTask, 8 people", "GetTask", people=8),
    Operation("GetTask of an organization, by API key", "GetTask by API key"),
    Operation("ListTasks", "ListTasks"),
    Operation("CreateTask", "CreateTask"),
    Operation("no database", "no database"),
)
CALLS: Final = tuple(dict.fromkeys(operation.call for operation in OPERATIONS))
STARTS: Final = 5


def main() -> None:
    chosen = _arguments()
    _require_linux()
    require_h2load()
    state = ROOT / ".accord"
    folder = _emptied(state / "bench")
    results = measure(chosen, environment.python(state / "bench-peer"), folder)
    shutil.rmtree(folder)  # which stays, with what the servers printed, if something went wrong
    print("\n" + "\n".join(table(results)))
    if chosen.out:
        chosen.out.write_text(json.dumps(results._asdict(), indent=1))


def measure(chosen: argparse.Namespace, peer_python: Path, folder: Path) -> Results:
    print("Starting PostgreSQL and filling two databases …", flush=True)
    with EmbeddedPostgres(folder / "postgres") as postgres:
        databases = fill(postgres.dsn)
        measuring = Measuring(chosen.rounds, chosen.seconds, postgres.pid or 0, folder)
        print("Starting the servers …", flush=True)
        with all_targets(databases, peer_python, folder) as targets:
            operations = {
                operation.name: measuring.visit(operation, _measured(operation, targets))
                for operation in OPERATIONS
                if operation.call in chosen.only
            }
            memory = {target.name: resident_mib(target.server.pid) for target in targets}
        print("Starting the gateway again and again …", flush=True)
        return Results(operations, memory, [seconds_to_first_response(databases, folder) for _ in range(STARTS)])


def _measured(operation: Operation, targets: Sequence[Target]) -> list[Target]:
    return [target for target in targets if operation.call in target.calls]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="visits of each target, of which the median counts")
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long a visit lasts")
    parser.add_argument("--only", nargs="+", choices=CALLS, default=CALLS, metavar="CALL")
    parser.add_argument("--out", type=Path, help="a file for all samples, as JSON")
    return parser.parse_args()


def _require_linux() -> None:
    if sys.platform != "linux":
        raise SystemExit("CPU time and memory are read from /proc, which only Linux has.")


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
