"""`accord serve`: one process that serves, or a supervisor with several workers.

Slow imports are in the functions: with several workers, the supervisor first starts one, and both import at the same time.
"""

import asyncio
import signal

from accord_gateway.process.listening import ListeningSockets, listening_sockets
from accord_gateway.process.reloads import hangup_reloads
from accord_gateway.process.worker_handle import WorkerHandle
from accord_gateway.server import ports
from accord_gateway.server.metrics import WorkerMetrics, serve_metrics
from accord_gateway.settings import Settings


def serve(settings: Settings) -> None:
    """Returns after the shutdown. Raises StartupError."""
    _handle_signals_during_start()
    _require_free_ports(settings)
    with listening_sockets(settings) as sockets:
        _supervise(settings, sockets, WorkerMetrics(settings.state_folder / f"metrics-{sockets.port or 'unix'}"))


def _handle_signals_during_start() -> None:
    """Until the event loop handles them. SIGTERM raises KeyboardInterrupt, which closes what is open."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if hangup_reloads():
        signal.signal(signal.SIGHUP, lambda *_: None)  # workers would inherit SIG_IGN


def _require_free_ports(settings: Settings) -> None:
    if settings.port and not settings.unix_socket:
        ports.require_free(settings.host, settings.port, "PORT")
    if settings.metrics_port:
        ports.require_free(settings.metrics_host, settings.metrics_port, "METRICS_PORT")


def _supervise(settings: Settings, sockets: ListeningSockets, metrics: WorkerMetrics) -> None:
    first = _first_worker(sockets, metrics) if settings.workers > 1 else None
    from accord_gateway import logs
    from accord_gateway.cli.banner import announce
    from accord_gateway.process.background_tasks import running
    from accord_gateway.process.postgres import postgres_tasks
    from accord_gateway.process.supervision import Supervision
    from accord_gateway.startup import prepare

    async def run() -> None:
        async with running(*postgres_tasks(postgres)):
            supervision = Supervision(settings, config, sockets, metrics, first)
            await supervision.run(lambda port: announce(settings, port))

    logs.configure(settings)
    own = settings.model_copy(update={"port": sockets.port or settings.port})
    with prepare(own) as (config, postgres), serve_metrics(settings, metrics):
        if first is None:
            from accord_gateway import event_loop

            event_loop.run(run())
        else:
            asyncio.run(run())


def _first_worker(sockets: ListeningSockets, metrics: WorkerMetrics) -> WorkerHandle:
    metrics.create()
    return WorkerHandle(metrics.folder, sockets.of_worker(0))
