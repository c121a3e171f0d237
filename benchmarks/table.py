"""The results as a table, which docs/performance.md has too."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from benchmarks.measure import Sample
from benchmarks.targets import FRONTS

COLUMNS: Final = (
    "|                               | server µs | PostgreSQL µs | both : Go | server : grpcio | server : FastAPI "
    "| calls/s | p50 ms | p99 ms |"
)
RULE: Final = (
    "|-------------------------------|----------:|--------------:|----------:|----------------:|-----------------:"
    "|--------:|-------:|-------:|"
)
# The peer that keeps sessions in memory is the one that has them without a database.
GO: Final = (FRONTS["go"], FRONTS["go-cached"])
GRPCIO: Final = (FRONTS["grpcio"],)
FASTAPI: Final = (FRONTS["fastapi"],)

Samples = Mapping[str, Sequence[Sample]]


class Results(NamedTuple):
    """Samples by operation and target; resident MiB by server, idle and after the load; and the seconds that each start took."""

    operations: Mapping[str, Samples]
    memory: Mapping[str, tuple[float, float]]
    starts: Mapping[str, Sequence[float]]


def table(results: Results) -> Iterator[str]:
    yield COLUMNS
    yield RULE
    for operation, samples in results.operations.items():
        yield f"| **{operation}** | | | | | | | | |"
        yield from _rows(samples)
    yield ""
    yield "| | MiB at start | MiB after the load | seconds to the first response |"
    yield "|---|---:|---:|---:|"
    for server, (idle, loaded) in results.memory.items():
        seconds = f"{median(results.starts[server]):.2f}" if server in results.starts else ""
        yield f"| {server} | {idle:.0f} | {loaded:.0f} | {seconds} |"


def _rows(samples: Samples) -> Iterator[str]:
    for target, each in samples.items():
        sample = medians(each)
        ratios = (
            ratio(samples, target, GO, together=True),
            ratio(samples, target, GRPCIO),
            ratio(samples, target, FASTAPI),
        )
        shown = [f"{value:.2f}" if value else "" for value in ratios]
        yield (
            f"| {target:29} | {sample.server:9.0f} | {sample.postgres:13.0f} | {shown[0]:>9} | {shown[1]:>15} | {shown[2]:>16} "
            f"| {sample.rate:7.0f} | {sample.p50:6.1f} | {sample.p99:6.1f} |"
        )


def ratio(samples: Samples, target: str, others: Sequence[str], *, together: bool = False) -> float | None:
    """Of the CPU per call of a target to that of the first of `others` that was measured: the median over the rounds, of which each
    saw the same load of the machine. None if there is none. `together`: with PostgreSQL."""
    other = next((name for name in others if name in samples), None)
    if other is None or target not in samples:
        return None
    return median(
        _cpu(mine, together) / _cpu(its, together)
        for mine, its in zip(samples[target], samples[other], strict=True)
        if _cpu(its, together)
    )


def _cpu(sample: Sample, together: bool) -> float:
    return sample.server + sample.postgres if together else sample.server


def medians(samples: Sequence[Sample]) -> Sample:
    return Sample(*(median(figures) for figures in zip(*samples, strict=True)))
