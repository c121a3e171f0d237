"""`accord account ban` and `accord account unban`. Gateways that serve apply the change at once."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID

from accord_db.engine.clock import DatabaseClock
from accord_db.engine.database import Database, Transaction
from accord_db.queries import accounts, sessions
from accord_gateway.cli.commands import audit_event, get_account_locked, run_on_database
from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings

Action = Literal["ban", "unban"]
_MAX_REASON_LENGTH: Final = 500


@dataclass(frozen=True, slots=True)
class Ban:
    """`until` is None for a ban without an end."""

    reason: str | None = None
    until: datetime | None = None


def parse_time(text: str) -> datetime:
    """ISO 8601, in UTC unless it has a time zone. Raises StartupError."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise _not_in_future(text) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _not_in_future(until: str) -> StartupError:
    return StartupError(f"--until must be a time in the future, such as 2030-01-31T18:00Z (it is {until}).")


def change_account(settings: Settings, action: Action, email: str, ban: Ban) -> int:
    """Returns the number of sessions that ended. Raises StartupError, also if the account does not exist."""

    async def change(database: Database) -> int:
        if ban.until is not None and database.clock.until(ban.until) <= 0:
            raise _not_in_future(ban.until.isoformat())
        async with database.transaction() as tx:
            return await _change(tx, database.clock, action, email, ban)

    if action == "unban" and ban != Ban():
        raise StartupError("--until and --reason apply to bans only.")
    if len(ban.reason or "") > _MAX_REASON_LENGTH:
        raise StartupError(f"--reason must have at most {_MAX_REASON_LENGTH} characters.")
    return run_on_database(settings, "account", change)


async def _change(tx: Transaction, clock: DatabaseClock, action: Action, email: str, ban: Ban) -> int:
    account_id = (await get_account_locked(tx, email)).id
    await _set_ban(tx, account_id, ban if action == "ban" else None)
    # After `unban` too: a sign-in that began before the ban may have opened a session since.
    ended = await sessions.revoke_sessions_of_account(tx, account_id=account_id)
    await sessions.notify_account_changed(tx, account_id=account_id)
    await audit_event(tx, clock, f"accord account {action}", account_id, stated_reason=ban.reason)
    return len(ended)


async def _set_ban(tx: Transaction, account_id: UUID, ban: Ban | None) -> None:
    if ban is None:
        await accounts.unban_account(tx, account_id=account_id)
    else:
        await accounts.ban_account(tx, account_id=account_id, reason=ban.reason, until=ban.until)
