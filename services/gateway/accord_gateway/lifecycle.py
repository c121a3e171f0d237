"""The life of one serving process: connect, serve, and stop so that no caller sees an error."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog

from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.errors import DatabaseError
from accord_db.engine.listen import Listener
from accord_db.queries.cleanup import expired_rows
from accord_gateway.mail.wiring import mail_sender
from accord_gateway.process.background_tasks import running
from accord_gateway.process.cleanup import CleanUp, clean_up_metrics
from accord_gateway.process.malloc import return_large_blocks
from accord_gateway.server.gateway import Gateway, Runtime, build_server, listen
from accord_gateway.server.health import follow
from accord_gateway.shutdown import Shutdown
from accord_gateway.startup import ServeConfig, gateway_role, unreachable

# Before connections are closed, new calls are answered UNAVAILABLE for so long. Clients repeat those; of a call whose
# connection broke under it they cannot tell whether it took effect.
TURN_AWAY_SECONDS = 0.3
CLOSE_SECONDS = 5.0


async def serve(orders: ServeConfig, stop: Shutdown, announce: Callable[[int], None]) -> None:
    """Returns when it was asked to stop, and has. `announce` is told the port once calls can come. Raises
    StartRefused."""
    return_large_blocks()
    async with connected(orders) as parts:
        gateway, sender = build_server(parts), mail_sender(parts)
        await parts.listener.start()  # now that it has been told what to listen for
        port = listen(gateway.server, parts.settings)
        await gateway.server.start()
        gateway.health.set_serving(True)
        async with running(sender.run()):  # to the end of the drain, as calls post mail until then
            async with running(follow(gateway.health, parts.database.ping), _clean_up(parts)):
                announce(port)
                await stop.asked.wait()
            await drain(gateway, stop, parts.settings.drain_seconds)


def _clean_up(parts: Runtime) -> Coroutine[Any, Any, None]:
    due = expired_rows(
        deleted_accounts_kept=parts.settings.deleted_accounts_kept,
        deleted_organizations_kept=parts.settings.deleted_organizations_kept,
    )
    return CleanUp(parts.database, due, clean_up_metrics()).repeat(parts.settings.cleanup_interval)


async def drain(gateway: Gateway, stop: Shutdown, seconds: float) -> None:
    """What is under way may end, for as long as the settings say."""
    structlog.get_logger().info("stopping", drain_seconds=seconds)
    gateway.health.stop()
    gateway.draining.active = True
    await stop.wait_unless_hurried(asyncio.sleep(TURN_AWAY_SECONDS))
    await stop.wait_unless_hurried(gateway.server.stop(seconds))
    await gateway.server.stop(None)  # whatever is left


@asynccontextmanager
async def connected(orders: ServeConfig) -> AsyncIterator[Runtime]:
    """What a server is made of; closed at the end of the block."""
    try:
        database = await Database.connect(_database_settings(orders))
    except DatabaseError as error:
        raise unreachable(error) from None
    listener = Listener(orders.addresses.direct)
    try:
        yield Runtime(orders.settings, orders.secret_key, database, listener)
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await listener.close()
                await database.close()


def _database_settings(orders: ServeConfig) -> DatabaseSettings:
    settings = orders.settings
    return DatabaseSettings(
        dsn=orders.addresses.pooled,
        pool_size=settings.db_pool_size,
        pool_wait=settings.db_pool_wait.total_seconds(),
        statement_timeout=settings.db_statement_timeout.total_seconds(),
        prepare=not settings.db_pooler,
        role=gateway_role(settings),
    )
