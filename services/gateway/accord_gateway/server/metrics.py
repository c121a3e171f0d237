"""The metrics port for Prometheus, and the metrics of several workers."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings


@contextmanager
def serve_metrics(settings: Settings, registry: CollectorRegistry = REGISTRY) -> Iterator[None]:
    """Serves until the block ends, from threads, so that a slow scrape delays no call. METRICS_PORT=0 serves nothing."""
    if not settings.metrics_port:
        yield
        return
    server, _ = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class WorkerMetrics:
    """The sum of the metrics of all workers. Each worker writes files in one folder (prometheus_client's multi-process mode)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clear(self) -> None:
        """Removes the files of a former gateway, which would be added. Raises StartupError."""
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise StartupError(
                f"Cannot create the folder for the metrics of workers: {error}. Set STATE_FOLDER to a writable folder."
            ) from None

    def forget_live(self, pid: int) -> None:
        """Removes the gauges of an ended worker that describe the present, such as open connections. Its counters stay."""
        for file in self.folder.glob(f"gauge_live*_{pid}.db"):
            with suppress(FileNotFoundError):
                file.unlink()

    def registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self.folder))  # type: ignore[no-untyped-call]  # it has no annotations
        return registry
