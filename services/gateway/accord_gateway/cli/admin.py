"""`accord admin grant` and `accord admin revoke`: who runs the installation. The first administrator comes from here, and here
the last one may go."""

from typing import Final, Literal

from accord_db.engine.clock import DatabaseClock
from accord_db.engine.database import Database, Transaction
from accord_db.queries import accounts, sessions
from accord_gateway.cli.commands import audit_event, carry_out, get_account_locked
from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings

Action = Literal["grant", "revoke"]
_ROLES: Final = {"grant": "administrator", "revoke": "person"}


def change_administrator(settings: Settings, action: Action, email: str) -> None:
    """It works beside gateways, which hear of it. Raises StartRefused, also if there is no such account, or if whoever is to
    be an administrator has not proved that the address is theirs: it may be anybody who signed up with it."""

    async def work(database: Database) -> None:
        async with database.transaction() as tx:
            await _change(tx, database.clock, action, email)

    carry_out(settings, "admin", work)


async def _change(tx: Transaction, clock: DatabaseClock, action: Action, email: str) -> None:
    account = await get_account_locked(tx, email)
    if action == "grant" and account.email_verified_at is None:
        raise StartupError(
            f"Whoever signed up with {email} has not proved that the address is theirs. Verify it first."
        )
    if account.role != _ROLES[action]:
        await accounts.update_role(tx, account_id=account.id, role=_ROLES[action])
        await sessions.revoke_impersonations(tx, account_id=account.id)
        await sessions.notify_account_changed(tx, account_id=account.id)
    await audit_event(tx, clock, f"accord admin {action}", account.id)
