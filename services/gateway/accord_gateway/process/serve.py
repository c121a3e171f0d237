"""`accord serve`: one process that serves, or a supervisor with several workers.

Slow imports are in the functions: with several workers, the supervisor first starts one, and both import at the same time.
"""

import asyncio
import signal
import socket
from collections.abc import Sequence

from accord_gateway.process.worker_handle import WorkerHandle
from accord_gateway.server import ports
from accord_gateway.server.metrics import WorkerMetrics, serve_metrics
from accord_gateway.settings import Settings
from accord_gateway.shutdown import Shutdown


def serve(settings: Settings) -> None:
    """Returns after the shutdown. Raises StartupError."""
    _interrupt_on_sigterm()
    _require_free_ports(settings)
    if settings.workers == 1:
        _serve_in_this_process(settings)
    else:
        _serve_with_workers(settings)


def _interrupt_on_sigterm() -> None:
    """Until the event loop handles SIGTERM, it raises KeyboardInterrupt, which closes what is open."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _require_free_ports(settings: Settings) -> None:
    if settings.port and not settings.unix_socket:
        ports.require_free(settings.host, settings.port, "PORT")
    if settings.metrics_port:
        ports.require_free(settings.metrics_host, settings.metrics_port, "METRICS_PORT")


def _serve_in_this_process(settings: Settings) -> None:
    from accord_gateway import event_loop, lifecycle, logs
    from accord_gateway.cli.banner import announce
    from accord_gateway.process.background_tasks import running
    from accord_gateway.process.postgres import postgres_tasks
    from accord_gateway.startup import prepare

    async def run() -> None:
        shutdown = Shutdown()
        shutdown.handle_signals()
        async with running(*postgres_tasks(postgres)):
            await lifecycle.serve(config, shutdown, lambda port: announce(settings, port))

    logs.configure(settings)
    with prepare(settings) as (config, postgres), serve_metrics(settings):
        event_loop.run(run())


def _serve_with_workers(settings: Settings) -> None:
    """Workers share a TCP port by SO_REUSEPORT, so that the kernel spreads connections evenly, and inherit a unix socket."""
    if settings.unix_socket:
        with ports.bind_unix_socket(settings.unix_socket) as sock:
            _supervise(settings, WorkerMetrics(settings.state_folder / "metrics-unix"), [sock])
    else:
        with ports.reserve(settings.host, settings.port) as port:
            settings = settings.model_copy(update={"port": port})
            _supervise(settings, WorkerMetrics(settings.state_folder / f"metrics-{port}"), [])


def _supervise(settings: Settings, metrics: WorkerMetrics, sockets: Sequence[socket.socket]) -> None:
    metrics.clear()
    first = WorkerHandle(metrics.folder, sockets)
    from accord_gateway import logs
    from accord_gateway.cli.banner import announce
    from accord_gateway.process.background_tasks import running
    from accord_gateway.process.postgres import postgres_tasks
    from accord_gateway.process.supervisor import Supervisor
    from accord_gateway.startup import prepare

    async def run() -> None:
        shutdown = Shutdown()
        shutdown.handle_signals()
        async with running(*postgres_tasks(postgres)):
            await Supervisor(first, config, metrics, shutdown, sockets).run(lambda: announce(settings, settings.port))

    logs.configure(settings)
    with prepare(settings) as (config, postgres), serve_metrics(settings, metrics.registry()):
        asyncio.run(run())
