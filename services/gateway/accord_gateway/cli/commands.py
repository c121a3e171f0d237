"""How commands such as `accord rotate-keys` get at the database, beside the gateways that use it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from accord_db.engine.clock import DatabaseClock
from accord_db.engine.database import Database, DatabaseSettings, Transaction
from accord_db.engine.errors import DatabaseError
from accord_db.engine.ids import uuid7, uuid7_at
from accord_db.queries import accounts, audit
from accord_db.schema import Account
from accord_gateway import logs, startup
from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings

T = TypeVar("T")


def carry_out(settings: Settings, name: str, work: Callable[[Database], Awaitable[T]]) -> T:
    """What comes of the work, for which the database has to be there and migrated. Raises StartRefused."""
    logs.configure(settings)
    with startup.visited(settings) as addresses:
        try:
            startup.require_migrated(addresses, migrate=False)
            return ask(addresses.direct, name, work)
        except DatabaseError as error:
            raise startup.unreachable(error) from None


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


async def get_account_locked(tx: Transaction, email: str) -> Account:
    """Raises StartRefused if there is none."""
    account = await accounts.get_account_by_email_locked(tx, email=email)
    if account is None:
        raise StartupError(f"There is no account with the address {email}.")
    return account


async def audit_event(
    tx: Transaction, clock: DatabaseClock, command: str, account_id: UUID, *, stated_reason: str | None = None
) -> None:
    """As a call would have been: without who did it, whom nobody but the operating system knows."""
    await audit.insert_event(
        tx,
        event_id=uuid7_at(clock.now()),
        account_id=account_id,
        method=command,
        target=str(account_id),
        stated_reason=stated_reason,
        peer="command line",
        code="OK",
        request_id=uuid7().hex,
    )
