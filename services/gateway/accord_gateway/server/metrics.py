"""The figures of this gateway on a port of their own, for Prometheus."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings


@contextmanager
def served(settings: Settings, registry: CollectorRegistry = REGISTRY) -> Iterator[None]:
    """Serves the figures from threads, so that a slow scrape delays no call. Does nothing if there is no port."""
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
    """The figures of all workers, added up: each writes its own into files in one folder (prometheus_client's
    multi-process mode)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clear(self) -> None:
        """What a former gateway left would be counted again. Raises StartRefused."""
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise StartupError(
                f"Workers have nowhere to count: {error}. Set STATE_FOLDER to a folder of yours."
            ) from None

    def forget_live(self, pid: int) -> None:
        """Takes a dead worker out of the figures that describe the present, such as open connections; what it has
        counted stays counted."""
        for file in self.folder.glob(f"gauge_live*_{pid}.db"):
            with suppress(FileNotFoundError):
                file.unlink()

    def registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self.folder))  # type: ignore[no-untyped-call]  # it has no annotations
        return registry
