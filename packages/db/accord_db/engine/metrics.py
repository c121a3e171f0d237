from dataclasses import dataclass
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from accord_db.engine.errors import DISK_FULL

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Metrics of the database. Use `metrics()`: a registry accepts each name once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["operation", "table"]
        self.queries = Counter("db_queries_total", "Statements that were run.", labels, registry=registry)
        self.duration = Histogram(
            "db_query_duration_seconds",
            "Time from sending a statement to its last row.",
            labels,
            buckets=_BUCKETS,
            registry=registry,
        )
        self.errors = Counter("db_errors_total", "Statements that failed.", ["sqlstate"], registry=registry)
        self.pool_size = Gauge(
            "db_connection_pool_size", "Connections open.", registry=registry, multiprocess_mode="livesum"
        )
        self.disk_full = 0
        """Statements of this process that failed for want of space on the server's disk."""
        self._meters: dict[tuple[str, str], Meter] = {}

    def count_error(self, sqlstate: str | None) -> None:
        self.errors.labels(sqlstate or "none").inc()
        if sqlstate == DISK_FULL:
            self.disk_full += 1

    def meter(self, operation: str, table: str) -> "Meter":
        meter = self._meters.get((operation, table))
        if meter is None:
            meter = Meter(self.queries.labels(operation, table), self.duration.labels(operation, table))
            self._meters[operation, table] = meter
        return meter


@dataclass(frozen=True, slots=True)
class Meter:
    """The metrics of one operation on one table, cached because the lookup by labels costs as much as the increment."""

    queries: Counter
    duration: Histogram


@cache
def metrics(registry: CollectorRegistry = REGISTRY) -> Metrics:
    return Metrics(registry)
