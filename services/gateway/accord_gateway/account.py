"""`accord account ban` and `accord account unban`: keep somebody out, and let them in again. For those who operate."""

from typing import Literal
from uuid import UUID

from accord_db.database import Database, Transaction
from accord_db.ids import uuid7
from accord_db.queries import accounts, audit, sessions
from accord_gateway.commands import carry_out
from accord_gateway.refusals import StartRefused
from accord_gateway.settings import Settings

Action = Literal["ban", "unban"]
_QUERIES = {"ban": accounts.ban_account, "unban": accounts.unban_account}


def change_account(settings: Settings, action: Action, email: str) -> int:
    """How many sessions were ended. It works beside gateways, which hear of it. Raises StartRefused, also if there is no
    such account."""

    async def work(database: Database) -> int:
        async with database.transaction() as tx:
            return await _change(tx, action, email)

    return carry_out(settings, "account", work)


async def _change(tx: Transaction, action: Action, email: str) -> int:
    account_id = await _QUERIES[action](tx, email=email)
    if account_id is None:
        raise StartRefused(f"There is no account with the address {email}.")
    # Also when the ban is lifted: a sign-in that was under way as it began may have opened one since.
    ended = await sessions.revoke_sessions_of_account(tx, account_id=account_id)
    await _audit(tx, action, account_id)
    return len(ended)


async def _audit(tx: Transaction, action: Action, account_id: UUID) -> None:
    """As a call would have been: without who did it, whom nobody but the operating system knows."""
    await audit.insert_event(
        tx,
        event_id=uuid7(),
        account_id=account_id,
        method=f"accord account {action}",
        target=str(account_id),
        peer="command line",
        code="OK",
        request_id=uuid7().hex,
    )
