"""The metrics port for Prometheus, and the metrics of workers."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from prometheus_client import REGISTRY, CollectorRegistry, Metric, start_http_server
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings


class WorkerMetrics(Collector):
    """Those of this process until it has workers, and then the sum of theirs. Each worker writes files in one folder
    (prometheus_client's multi-process mode)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._created = False
        self._lock = Lock()  # collecting and forgetting run in different threads
        self._source: Collector | CollectorRegistry = REGISTRY

    def create(self) -> None:
        """Creates the folder, without the files of a former gateway, which would be added. Raises StartupError."""
        if self._created:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise StartupError(
                f"Cannot create the folder for the metrics of workers: {error}. Set STATE_FOLDER to a writable folder."
            ) from None
        self._created = True

    def count_workers(self) -> None:
        if self._source is REGISTRY:
            # Registers itself in its constructor, and is called directly.
            self._source = MultiProcessCollector(CollectorRegistry(), str(self.folder))  # type: ignore[no-untyped-call]  # it has no annotations

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            return list(self._source.collect())

    def forget(self, pid: int) -> None:
        """Removes the gauges of an ended worker that describe the present, such as open connections. Its counters and histograms go
        into one file for all that have ended, so that reloads do not add files that each scrape reads."""
        with self._lock:
            for file in self.folder.glob(f"gauge_live*_{pid}.db"):
                file.unlink(missing_ok=True)
            for kind in ("counter", "histogram"):
                file = self.folder / f"{kind}_{pid}.db"
                if file.exists():
                    _add(file, self.folder / f"{kind}_ended.db")
                    file.unlink()


def _add(source: Path, target: Path) -> None:
    total = MmapedDict(str(target))  # type: ignore[no-untyped-call]  # it has no annotations
    for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(str(source)):  # type: ignore[no-untyped-call]
        total.write_value(key, total.read_value(key)[0] + value, timestamp)  # type: ignore[no-untyped-call]
    total.close()  # type: ignore[no-untyped-call]


@contextmanager
def serve_metrics(settings: Settings, metrics: WorkerMetrics) -> Iterator[None]:
    """Serves until the block ends, from threads, so that a slow scrape delays no call. METRICS_PORT=0 serves nothing."""
    if not settings.metrics_port:
        yield
        return
    registry = CollectorRegistry()
    registry.register(metrics)
    server, _ = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
