"""Measures everything in one run of some minutes."""

import argparse
import json
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from accord_postgres import EmbeddedPostgres
from benchmarks import go_peer
from benchmarks.calls import NO_DATABASE
from benchmarks.data import fill
from benchmarks.load import require_h2load
from benchmarks.measure import Measuring, Operation
from benchmarks.peer import environment
from benchmarks.processes import resident_mib
from benchmarks.table import Results, table
from benchmarks.targets import FRONTS, ROOT, Programs, Target, all_targets, seconds_to_first_response
from benchmarks.verdicts import verdicts

OPERATIONS: Final = (
    Operation("GetTask", "GetTask"),
    # A single user would favour servers with caches.
    Operation("GetTask, 8 people", "GetTask", people=8, fronts=("fastapi", "go", "accord", "unsecured")),
    Operation("GetTask of an organization, by API key", "GetTask by API key"),
    Operation("ListTasks", "ListTasks"),
    Operation("CreateTask", "CreateTask"),
    # Together they stay below the rate limit of one user.
    Operation(NO_DATABASE, NO_DATABASE, people=4),
)
CALLS: Final = tuple(dict.fromkeys(operation.call for operation in OPERATIONS))
SERVERS: Final = ("accord", "grpcio")
STARTS: Final = 5


def main() -> None:
    chosen = _arguments()
    _require_linux()
    require_h2load()
    state = ROOT / ".accord"
    folder = _emptied(state / "bench")
    results = measure(chosen, _programs(chosen, state), folder)
    shutil.rmtree(folder)  # which stays, with what the servers printed, if something went wrong
    print("\n" + "\n".join([*table(results), "", *verdicts(results)]))
    if chosen.out:
        chosen.out.write_text(json.dumps(results._asdict(), indent=1))


def _programs(chosen: argparse.Namespace, state: Path) -> Programs:
    fronts: Collection[str] = chosen.fronts
    return Programs(
        environment.python(state / "bench-peer") if "fastapi" in fronts else Path(),
        go_peer.build(state / "bench-go") if {"go", "go-cached"}.intersection(fronts) else None,
        chosen.other and chosen.other.absolute() / ".venv/bin/python",
    )


def measure(chosen: argparse.Namespace, programs: Programs, folder: Path) -> Results:
    print("Starting PostgreSQL and filling two databases …", flush=True)
    with EmbeddedPostgres(folder / "postgres") as postgres:
        databases = fill(postgres.dsn)
        measuring = Measuring(chosen.rounds, chosen.seconds, postgres.pid or 0, folder)
        print("Starting the servers …", flush=True)
        with all_targets(databases, programs, folder, chosen.fronts, chosen.calls) as targets:
            idle = _memory(targets)
            operations = {
                operation.name: measuring.visit(operation, measured)
                for operation in OPERATIONS
                if operation.call in chosen.calls and (measured := _measured(operation, targets))
            }
            loaded = _memory(targets)
        print("Starting the gateway again and again …", flush=True)
        starts = {
            FRONTS[server]: [seconds_to_first_response(databases, folder, server) for _ in range(STARTS)]
            for server in SERVERS
            if server in chosen.fronts
        }
        return Results(operations, {name: (idle[name], loaded[name]) for name in loaded}, starts)


def _measured(operation: Operation, targets: Sequence[Target]) -> list[Target]:
    names = {FRONTS[front] for front in operation.fronts or FRONTS}
    return [target for target in targets if operation.call in target.calls and target.name in names]


def _memory(targets: Sequence[Target]) -> dict[str, float]:
    """Of each server once, under the name of the first target, without those that have no database."""
    servers = {target.server: target.name for target in reversed(targets) if NO_DATABASE not in target.calls}
    return {name: resident_mib(server.pid) for server, name in reversed(servers.items())}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("calls", nargs="*", metavar="CALL", help=f"all by default: {', '.join(CALLS)}")
    parser.add_argument(
        "--fronts", type=_fronts, default=tuple(FRONTS), help=f"all by default, else some of {','.join(FRONTS)}"
    )
    parser.add_argument("--rounds", type=int, default=5, help="visits of each target, of which the median counts")
    parser.add_argument("--seconds", type=float, default=1.5, help="about how long a visit lasts")
    parser.add_argument(
        "--other", type=Path, metavar="FOLDER", help="a checkout of another commit, after `make setup`, to compare with"
    )
    parser.add_argument("--out", type=Path, help="a file for all samples, as JSON")
    chosen = parser.parse_args()
    if unknown := set(chosen.calls) - set(CALLS):
        parser.error(f"unknown: {', '.join(unknown)}. The calls are {', '.join(CALLS)}.")
    chosen.calls = chosen.calls or CALLS
    return chosen


def _fronts(given: str) -> Sequence[str]:
    fronts = given.split(",")
    if unknown := set(fronts) - FRONTS.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}. There are {', '.join(FRONTS)}.")
    return fronts


def _require_linux() -> None:
    if sys.platform != "linux":
        raise SystemExit("CPU time and memory are read from /proc, which only Linux has.")


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
