"""Connects the supervisor with the parts of the process: sockets, metrics, log and requests to reload."""

from collections.abc import Callable

from accord_gateway import logs
from accord_gateway.errors import StartupError
from accord_gateway.process.configuration import WorkerConfig, unchangeable
from accord_gateway.process.generation import Generation, ThisProcess
from accord_gateway.process.listening import ListeningSockets
from accord_gateway.process.reloads import Reloads, reload_on_hangup, reload_requests
from accord_gateway.process.supervisor import Supervisor
from accord_gateway.process.worker_handle import WorkerHandle
from accord_gateway.process.workers import Workers
from accord_gateway.server.metrics import WorkerMetrics
from accord_gateway.settings import Settings
from accord_gateway.shutdown import Shutdown
from accord_gateway.startup import ServeConfig


class Supervision:
    """`settings` are those that were read, and `config` those of workers. `first` is a worker that already runs and imports modules,
    since before there was a configuration. None: this process serves until the first reload."""

    def __init__(
        self,
        settings: Settings,
        config: ServeConfig,
        sockets: ListeningSockets,
        metrics: WorkerMetrics,
        first: WorkerHandle | None,
    ) -> None:
        self._settings = settings
        self._config = config
        self._sockets = sockets
        self._metrics = metrics
        self._started = [] if first is None else [first]

    async def run(self, announce: Callable[[int], None]) -> None:
        """Returns after the shutdown. Raises StartupError."""
        shutdown = Shutdown()
        shutdown.handle_signals()
        supervisor = Supervisor(self._first(), self._successor, self._replaced, self._sockets.close, shutdown)
        reloads = Reloads(supervisor.reload)
        reload_on_hangup(reloads, shutdown.requested.set)
        async with reload_requests(reloads, self._settings.state_folder):
            await supervisor.run(lambda port: announce(port or self._sockets.port))

    def _first(self) -> Generation:
        if not self._started:
            return ThisProcess(self._config, self._sockets.of_worker(0))
        config = WorkerConfig.of(self._config)
        self._metrics.count_workers()

        async def configure(_: WorkerHandle) -> WorkerConfig:
            return config

        return Workers(self._settings.workers, self._new_worker, self._metrics.forget, configure)

    def _successor(self) -> Workers:
        """Raises StartupError."""
        if self._settings.server == "grpcio":
            raise StartupError(
                "SERVER=grpcio cannot hand its connections over. Restart the gateway, or set SERVER=accord."
            )
        self._metrics.create()
        running = unchangeable(self._settings)
        return Workers(
            self._settings.workers, self._new_worker, self._metrics.forget, lambda worker: worker.prepare(running)
        )

    def _new_worker(self, number: int) -> WorkerHandle:
        return self._started.pop() if self._started else self._start_worker(number)

    def _start_worker(self, number: int) -> WorkerHandle:
        return WorkerHandle(self._metrics.folder, self._sockets.of_worker(number))

    def _replaced(self, workers: Workers) -> None:
        log = {"log_level": workers.config.log_level, "log_format": workers.config.log_format}
        logs.configure(self._settings.model_copy(update=log))
        self._metrics.count_workers()
