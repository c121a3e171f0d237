"""The results as a table, which docs/performance.md has too."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.measure import Sample

COLUMNS = "|                            | server µs |  ratio | PostgreSQL µs |  ratio | calls/s | p50 ms | p99 ms |"
RULE = "|----------------------------|----------:|-------:|--------------:|-------:|--------:|-------:|-------:|"

Samples = Mapping[str, Sequence[Sample]]


class Results(NamedTuple):
    """Samples by operation and target, resident MiB by target, and the seconds that each start took."""

    operations: Mapping[str, Samples]
    memory: Mapping[str, float]
    starts: Sequence[float]


def table(results: Results) -> Iterator[str]:
    yield COLUMNS
    yield RULE
    for operation, samples in results.operations.items():
        yield f"| **{operation}** | | | | | | | |"
        yield from _rows(samples)
    yield ""
    if "no database" in results.operations:
        yield f"The pipeline adds {_added(results.operations['no database']):.0f} µs to a bare grpc.aio call."
    resident = ", ".join(f"{target} {mib:.0f} MiB" for target, mib in results.memory.items())
    yield f"Resident after the load: {resident}."
    yield f"From the gateway's start to its first response: {median(results.starts):.2f} s."


def _rows(samples: Samples) -> Iterator[str]:
    """The first target is what the others are compared with."""
    first = None
    for target, each in samples.items():
        sample = medians(each)
        first = first or sample
        ratios = sample.server / first.server, sample.postgres / first.postgres if first.postgres > 5 else 0
        shown = [f"{ratio:.2f}" if ratio else "" for ratio in ratios]
        yield (
            f"| {target:26} | {sample.server:9.0f} | {shown[0]:>6} | {sample.postgres:13.0f} | {shown[1]:>6} "
            f"| {sample.rate:7.0f} | {sample.p50:6.1f} | {sample.p99:6.1f} |"
        )


def _added(samples: Samples) -> float:
    bare, pipeline = samples.values()
    return median(mine.server - its.server for its, mine in zip(bare, pipeline, strict=True))


def medians(samples: Sequence[Sample]) -> Sample:
    return Sample(*(median(figures) for figures in zip(*samples, strict=True)))
