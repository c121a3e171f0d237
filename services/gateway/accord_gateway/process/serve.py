"""`accord serve`: one process that serves, or several and one that keeps them running.

What takes long to import is imported where it is needed: by then the first worker is on its way.
"""

import asyncio
import signal

from accord_gateway.process.worker_handle import Worker
from accord_gateway.server import metrics, ports
from accord_gateway.settings import Settings
from accord_gateway.shutdown import Shutdown


def serve(settings: Settings) -> None:
    """Returns when the gateway was asked to stop, and has. Raises StartRefused."""
    # Until there is a loop that handles it better: what was opened so far is closed on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if settings.port:
        ports.require_free(settings.host, settings.port, "PORT")
    if settings.metrics_port:
        ports.require_free(settings.metrics_host, settings.metrics_port, "METRICS_PORT")
    if settings.workers == 1:
        _serve_alone(settings)
    else:
        _serve_with_workers(settings)


def _serve_alone(settings: Settings) -> None:
    from accord_gateway import event_loop, lifecycle, logs
    from accord_gateway.cli import banner
    from accord_gateway.process.background_tasks import running
    from accord_gateway.process.postgres import supervised
    from accord_gateway.startup import prepared

    async def live() -> None:
        stop = Shutdown()
        stop.on_signals()
        async with running(*supervised(postgres)):
            await lifecycle.serve(orders, stop, lambda port: banner.announce(settings, port))

    logs.configure(settings)
    with prepared(settings) as (orders, postgres), metrics.served(settings):
        event_loop.run(live())


def _serve_with_workers(settings: Settings) -> None:
    with ports.reserved(settings.host, settings.port) as port:
        settings = settings.model_copy(update={"port": port})
        figures = metrics.WorkerMetrics(settings.state_folder / f"metrics-{port}")
        figures.clear()
        _supervise(settings, figures, Worker(figures.folder))


def _supervise(settings: Settings, figures: metrics.WorkerMetrics, first: Worker) -> None:
    from accord_gateway import logs
    from accord_gateway.cli import banner
    from accord_gateway.process.background_tasks import running
    from accord_gateway.process.postgres import supervised
    from accord_gateway.process.supervisor import Supervisor
    from accord_gateway.startup import prepared

    async def live() -> None:
        stop = Shutdown()
        stop.on_signals()
        async with running(*supervised(postgres)):
            await Supervisor(first, orders, figures, stop).run(lambda: banner.announce(settings, settings.port))

    logs.configure(settings)
    with prepared(settings) as (orders, postgres), metrics.served(settings, figures.registry()):
        asyncio.run(live())
