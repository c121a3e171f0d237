"""The figures to reach, and whether they were."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final, NamedTuple

from benchmarks.calls import NO_DATABASE
from benchmarks.table import FASTAPI, GRPCIO, Results, Samples, medians, ratio
from benchmarks.targets import FRONTS

ACCORD: Final = FRONTS["accord"]
OTHER: Final = (FRONTS["other"],)
BY_API_KEY: Final = "GetTask of an organization, by API key"


class Figure(NamedTuple):
    """`measured` must be at most `limit`, or at least that if `least`."""

    name: str
    measured: float
    limit: float
    unit: str = ""
    least: bool = False

    @property
    def missed(self) -> bool:
        return self.measured < self.limit if self.least else self.measured > self.limit


def verdicts(results: Results) -> Iterator[str]:
    return rows([*_speed(results), *_resources(results)])


def rows(figures: Sequence[Figure]) -> Iterator[str]:
    yield "| figure | target | measured | |"
    yield "|---|---:|---:|---|"
    for figure in figures:
        digits, unit = _digits(figure.limit), figure.unit
        bound = "≥" if figure.least else "≤"
        verdict = "**missed**" if figure.missed else "met"
        target, measured = f"{figure.limit:.{digits}f}{unit}", f"{figure.measured:.{digits}f}{unit}"
        yield f"| {figure.name} | {bound} {target} | {measured} | {verdict} |"


def _digits(limit: float) -> int:
    return 2 if 0 < limit < 10 else 0


def _speed(results: Results) -> Iterator[Figure]:
    operations = results.operations
    empty: Samples = {}
    get, canned = operations.get("GetTask", empty), operations.get(NO_DATABASE, empty)
    yield from _compared("no database, server CPU : grpcio", canned, ACCORD, GRPCIO, 0.25)
    yield from _compared("GetTask, server CPU : grpcio", get, ACCORD, GRPCIO, 0.45)
    for front in ("rest", "connect"):
        yield from _compared(f"GetTask, {FRONTS[front]}, server CPU : gRPC on grpcio", get, FRONTS[front], GRPCIO, 1.0)
    for name in ("GetTask", "ListTasks", "CreateTask"):
        samples = operations.get(name, empty)
        yield from _compared(f"{name}, server CPU : FastAPI", samples, ACCORD, FASTAPI, 1 / 3)
        yield from _compared(f"{name}, with PostgreSQL : other checkout", samples, ACCORD, OTHER, 1.0, together=True)
    yield from _compared(
        "GetTask, row-level security, with PostgreSQL", get, ACCORD, (FRONTS["unsecured"],), 1.15, together=True
    )
    key = operations.get(BY_API_KEY, empty)
    if ACCORD in key and ACCORD in get:
        by_key, by_session = medians(key[ACCORD]).server, medians(get[ACCORD]).server
        yield Figure("GetTask of an organization by API key : own by session", by_key / by_session, 1.1)


def _compared(
    name: str, samples: Samples, target: str, others: Sequence[str], limit: float, *, together: bool = False
) -> Iterator[Figure]:
    measured = ratio(samples, target, others, together=together)
    if measured is not None:
        yield Figure(name, measured, limit)


def _resources(results: Results) -> Iterator[Figure]:
    memory, (grpcio,) = results.memory, GRPCIO
    if ACCORD in memory and grpcio in memory:
        yield Figure("memory after the load, that on grpcio at most", memory[ACCORD][1], memory[grpcio][1], " MiB")
    if ACCORD in results.starts:
        yield Figure("first response after the start", median(results.starts[ACCORD]), 1.0, " s")
