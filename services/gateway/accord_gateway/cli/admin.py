"""`accord admin grant` and `accord admin revoke`. Only these commands create the first administrator or remove the last one."""

from typing import Final, Literal

from accord_db.engine.clock import DatabaseClock
from accord_db.engine.database import Database, Transaction
from accord_db.queries import accounts, sessions
from accord_gateway.cli.commands import audit_event, get_account_locked, run_on_database
from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings

Action = Literal["grant", "revoke"]
_ROLES: Final = {"grant": "administrator", "revoke": "person"}


def change_administrator(settings: Settings, action: Action, email: str) -> None:
    """Gateways that serve apply it from the account's next call. Raises StartupError, also if the account does not exist or, for
    `grant`, its e-mail address is not verified: anyone can sign up with any address."""

    async def change(database: Database) -> None:
        async with database.transaction() as tx:
            await _change(tx, database.clock, action, email)

    run_on_database(settings, "admin", change)


async def _change(tx: Transaction, clock: DatabaseClock, action: Action, email: str) -> None:
    account = await get_account_locked(tx, email)
    if action == "grant" and account.email_verified_at is None:
        raise StartupError(f"The address {email} is not verified. Verify it first.")
    if account.role != _ROLES[action]:
        await accounts.update_role(tx, account_id=account.id, role=_ROLES[action])
        await sessions.revoke_impersonations(tx, account_id=account.id)
        await sessions.notify_account_changed(tx, account_id=account.id)
    await audit_event(tx, clock, f"accord admin {action}", account.id)
