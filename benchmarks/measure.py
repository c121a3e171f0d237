"""Measures several targets in turn (A B A B …), so that other load on the machine affects all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.calls import call_once
from benchmarks.data import PEOPLE, Person
from benchmarks.load import CONNECTIONS, STREAMS, Volley, fire
from benchmarks.processes import Usage
from benchmarks.targets import Target

WARM_UP_SECONDS = 1.0
FIRST_CALLS = 640


class Sample(NamedTuple):
    """One round of one target. CPU in microseconds a call, latency in milliseconds."""

    server: float
    postgres: float
    rate: float
    p50: float
    p99: float


class Operation(NamedTuple):
    """A call, how many users make it at a time, and the targets that are compared: all that can, if none are named."""

    name: str
    call: str
    people: int = 1
    fronts: Sequence[str] = ()


class Measuring:
    def __init__(self, rounds: int, seconds: float, postgres_pid: int, folder: Path) -> None:
        self._rounds = rounds
        self._seconds = seconds
        self._postgres_pid = postgres_pid
        self._folder = folder

    def visit(self, operation: Operation, targets: Sequence[Target]) -> dict[str, list[Sample]]:
        runs = [_Run(operation, target, self._folder, self._postgres_pid) for target in targets]
        for run in runs:
            run.warm_up(self._seconds)
        samples: dict[str, list[Sample]] = {run.target.name: [] for run in runs}
        for number in range(self._rounds):
            for run in runs if number % 2 == 0 else reversed(runs):
                sample = run.round(number)
                samples[run.target.name].append(sample)
                print(f"{operation.name} {number + 1}/{self._rounds}  {run.target.name:30}{_shown(sample)}", flush=True)
        return samples


class _Run:
    """One operation on one target."""

    def __init__(self, operation: Operation, target: Target, folder: Path, postgres_pid: int) -> None:
        self.target = target
        self._operation = operation
        self._call = target.calls[operation.call]
        self._folder = folder
        self._postgres_pid = postgres_pid
        self._calls = FIRST_CALLS
        self._size = 0

    def warm_up(self, seconds: float) -> None:
        """Checks a response, and finds how many calls fit into a round."""
        self._size = call_once(self.target.server.port, self._call, self._people(0)[0])
        for length in (WARM_UP_SECONDS, seconds):
            rate = self._calls / self._fire(0).seconds
            self._calls = _divisible(rate * length)

    def round(self, number: int) -> Sample:
        server, postgres, before = self.target.server.pid, self._postgres_pid, Usage()
        volley = self._fire(number)
        after = Usage()
        return Sample(
            server=(after.seconds(server) - before.seconds(server)) * 1e6 / self._calls,
            postgres=(after.seconds(postgres) - before.seconds(postgres)) * 1e6 / self._calls,
            rate=self._calls / volley.seconds,
            p50=volley.p50,
            p99=volley.p99,
        )

    def _fire(self, number: int) -> Volley:
        requests = [self._call.request(person) for person in self._people(number)]
        volley = fire(self.target.server.port, requests, self._calls, self._folder)
        if volley.size < 0.98 * self._size:  # h2load sees no gRPC status; but an error has no message
            raise SystemExit(f"{self.target.name}: {self._operation.name} returned another response than before")
        return volley

    def _people(self, number: int) -> list[Person]:
        """Other users in each round. Users who write are not those who read, whose 1,000 tasks stay unchanged."""
        half, at_a_time = PEOPLE // 2, self._operation.people
        first = half if self._operation.call == "CreateTask" else 0
        places = (first + (number * at_a_time + place) % half for place in range(at_a_time))
        return [self.target.people[place] for place in places]


def _divisible(calls: float) -> int:
    part = CONNECTIONS * STREAMS
    return max(part, int(calls) // part * part)


def _shown(sample: Sample) -> str:
    return f"{sample.server:6.0f} + {sample.postgres:4.0f} µs a call, {sample.rate:6.0f} calls/s"
