"""What commands such as `accord rotate-keys` have in common: one database connection, accounts by address, audit events."""

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


def run_on_database(settings: Settings, name: str, work: Callable[[Database], Awaitable[T]]) -> T:
    """Runs `work` on the database of the settings, also while gateways serve. Raises StartupError, also if the database is not
    migrated."""
    logs.configure(settings)
    with startup.open_database(settings) as addresses:
        try:
            startup.require_migrated(addresses, migrate=False)
            return run_on_connection(addresses.direct, name, work)
        except DatabaseError as error:
            raise startup.unreachable(error) from None


def run_on_connection(dsn: str, name: str, work: Callable[[Database], Awaitable[T]]) -> T:
    """Runs `work` on a pool of one connection, with `accord-<name>` as its application_name. Raises DatabaseError."""

    async def run() -> T:
        settings = DatabaseSettings(dsn=dsn, pool_size=1, application_name=f"accord-{name}")
        database = await Database.connect(settings)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


async def get_account_locked(tx: Transaction, email: str) -> Account:
    """Raises StartupError if the account does not exist."""
    account = await accounts.get_account_by_email_locked(tx, email=email)
    if account is None:
        raise StartupError(f"No account has the address {email}.")
    return account


async def audit_event(
    tx: Transaction, clock: DatabaseClock, command: str, account_id: UUID, *, stated_reason: str | None = None
) -> None:
    """Like the event of a call, but without a caller: only the operating system knows who ran the command."""
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
