"""`accord serve`: one process that serves, or several and one that keeps them running."""

import asyncio
import signal

import uvloop

from accord_gateway import hints, logs, metrics, ports
from accord_gateway.metrics import WorkerFigures
from accord_gateway.preparation import prepared
from accord_gateway.settings import Settings
from accord_gateway.stop import Stop
from accord_gateway.workers import Crew, Worker


def serve(settings: Settings) -> None:
    """Returns when the gateway was asked to stop, and has. Raises StartRefused."""
    logs.configure(settings)
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
    from accord_gateway import lifecycle

    async def live() -> None:
        stop = Stop()
        stop.on_signals()
        await lifecycle.serve(orders, stop, lambda port: hints.announce(settings, port))

    with prepared(settings) as orders, metrics.served(settings):
        uvloop.run(live())


def _serve_with_workers(settings: Settings) -> None:
    async def live() -> None:
        stop = Stop()
        stop.on_signals()
        await Crew(first, orders, figures, stop).run(lambda: hints.announce(settings, port))

    with ports.reserved(settings.host, settings.port) as port:
        settings = settings.model_copy(update={"port": port})
        figures = WorkerFigures(settings.state_folder / f"metrics-{port}")
        figures.clear()
        first = Worker(figures.folder)
        with prepared(settings) as orders, metrics.served(settings, figures.registry()):
            asyncio.run(live())
