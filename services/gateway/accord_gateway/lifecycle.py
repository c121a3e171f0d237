"""The life of a serving process: connect, serve, and shut down without an error for any caller."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog

from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.errors import DatabaseError
from accord_db.engine.listen import Listener
from accord_db.queries.cleanup import Retention, expired_rows
from accord_gateway.errors import StartupError
from accord_gateway.mail.wiring import mail_sender
from accord_gateway.process.background_tasks import running
from accord_gateway.process.cleanup import CleanUp, clean_up_metrics
from accord_gateway.process.disk_full import report_full_disk
from accord_gateway.process.garbage_collector import keep_what_started
from accord_gateway.process.malloc import return_free_memory, return_large_blocks
from accord_gateway.server.gateway import Gateway, Runtime, build_server
from accord_gateway.server.health import monitor_database
from accord_gateway.shutdown import Shutdown
from accord_gateway.startup import ServeConfig, gateway_role, unreachable

CLOSE_SECONDS = 5.0


async def serve(
    config: ServeConfig, shutdown: Shutdown, announce: Callable[[int], None], sockets: Sequence[socket.socket] = ()
) -> None:
    """Returns after the shutdown. Calls `announce` with the port once it accepts calls. Bound `sockets` take the place of PORT.
    Raises StartupError."""
    return_large_blocks()
    async with connect(config) as runtime:
        gateway = build_server(runtime)
        sender = mail_sender(runtime)
        await runtime.listener.start()  # after everything has subscribed
        port = gateway.server.listen(sockets)
        await gateway.server.start()
        gateway.health.set_serving(True)
        keep_what_started()
        async with running(sender.run()):  # until the end of the drain, during which calls may still add mail
            async with running(
                monitor_database(gateway.health, runtime.database.ping),
                report_full_disk(lambda: runtime.database.disk_full_errors),
                return_free_memory(),
                _clean_up(runtime),
            ):
                announce(port)
                await shutdown.requested.wait()
            await drain(gateway, shutdown, runtime.settings.drain_seconds)


@asynccontextmanager
async def connect(config: ServeConfig) -> AsyncIterator[Runtime]:
    """Closes the connections at the end of the block. Raises StartupError."""
    try:
        database = await Database.connect(_database_settings(config))
    except DatabaseError as error:
        raise unreachable(error) from None
    listener = Listener(config.addresses.direct)
    try:
        yield Runtime(config.settings, config.secret_key, database, listener)
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await listener.close()
                await database.close()


def _database_settings(config: ServeConfig) -> DatabaseSettings:
    settings = config.settings
    return DatabaseSettings(
        dsn=config.addresses.pooled,
        pool_size=settings.db_pool_size,
        pool_wait=settings.db_pool_wait.total_seconds(),
        # All calls that are served may wait. Others are refused before.
        pool_queue=max(settings.max_concurrent_calls, DatabaseSettings.pool_queue),
        statement_timeout=settings.db_statement_timeout.total_seconds(),
        prepare=not settings.db_pooler,
        role=gateway_role(settings),
    )


def _clean_up(runtime: Runtime) -> Coroutine[Any, Any, None]:
    settings = runtime.settings
    try:
        expired = expired_rows(
            deleted_accounts_kept=settings.deleted_accounts_kept,
            deleted_organizations_kept=settings.deleted_organizations_kept,
            deleted_rows_kept=Retention(settings.deleted_rows_kept, settings.deleted_rows_kept_in),
        )
    except ValueError as error:
        raise StartupError(f"DELETED_ROWS_KEPT_IN names {error}") from None
    return CleanUp(runtime.database, expired, clean_up_metrics()).repeat(settings.cleanup_interval)


async def drain(gateway: Gateway, shutdown: Shutdown, seconds: float) -> None:
    """Rejects new calls, and lets running calls finish for at most `seconds`, unless the shutdown is forced."""
    structlog.get_logger().info("retiring" if shutdown.retiring else "stopping", drain_seconds=seconds)
    gateway.health.stop(serving=shutdown.retiring)
    await shutdown.wait_unless_forced(gateway.server.stop(seconds))
    await gateway.server.stop(None)  # cancels the calls that remain
