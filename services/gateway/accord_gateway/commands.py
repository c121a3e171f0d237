"""How commands such as `accord rotate-keys` get at the database, beside the gateways that use it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from accord_db.database import Database, DatabaseSettings
from accord_db.errors import DatabaseError
from accord_gateway import logs, preparation
from accord_gateway.settings import Settings

T = TypeVar("T")


def carry_out(settings: Settings, name: str, work: Callable[[Database], Awaitable[T]]) -> T:
    """What comes of the work, for which the database has to be there and migrated. Raises StartRefused."""
    logs.configure(settings)
    with preparation.visited(settings) as addresses:
        preparation.require_migrated(addresses, migrate=False)
        try:
            return ask(addresses.direct, name, work)
        except DatabaseError as error:
            raise preparation.unreachable(error) from None


def ask(dsn: str, name: str, work: Callable[[Database], Awaitable[T]]) -> T:
    """Over one connection, which PostgreSQL knows by `name`. Raises DatabaseError."""

    async def connected() -> T:
        settings = DatabaseSettings(dsn=dsn, pool_size=1, application_name=f"accord-{name}")
        database = await Database.connect(settings)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(connected())
