"""`accord account ban` and `accord account unban`: keep somebody out, and let them in again. For those who operate."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID

from accord_db.engine.clock import DatabaseClock
from accord_db.engine.database import Database, Transaction
from accord_db.queries import accounts, sessions
from accord_gateway.cli.commands import audit_event, carry_out, get_account_locked
from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings

Action = Literal["ban", "unban"]
_LONGEST_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class Ban:
    """For good, unless it is said until when."""

    reason: str | None = None
    until: datetime | None = None


def parse_time(text: str) -> datetime:
    """In ISO 8601; UTC without a time zone. Raises StartupError."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise _not_in_future(text) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _not_in_future(until: str) -> StartupError:
    return StartupError(f"--until takes a time in the future, such as 2030-01-31T18:00Z, not {until}.")


def change_account(settings: Settings, action: Action, email: str, ban: Ban) -> int:
    """How many sessions were ended. It works beside gateways, which hear of it. Raises StartRefused, also if there is no
    such account."""

    async def work(database: Database) -> int:
        if ban.until is not None and database.clock.until(ban.until) <= 0:
            raise _not_in_future(ban.until.isoformat())
        async with database.transaction() as tx:
            return await _change(tx, database.clock, action, email, ban)

    if action == "unban" and ban != Ban():
        raise StartupError("--until and --reason are for bans.")
    if len(ban.reason or "") > _LONGEST_REASON:
        raise StartupError(f"--reason takes {_LONGEST_REASON} characters at most.")
    return carry_out(settings, "account", work)


async def _change(tx: Transaction, clock: DatabaseClock, action: Action, email: str, ban: Ban) -> int:
    account_id = (await get_account_locked(tx, email)).id
    await _ban(tx, account_id, ban if action == "ban" else None)
    # Also when the ban is lifted: a sign-in that was under way as it began may have opened one since.
    ended = await sessions.revoke_sessions_of_account(tx, account_id=account_id)
    await sessions.notify_account_changed(tx, account_id=account_id)
    await audit_event(tx, clock, f"accord account {action}", account_id, stated_reason=ban.reason)
    return len(ended)


async def _ban(tx: Transaction, account_id: UUID, ban: Ban | None) -> None:
    if ban is None:
        await accounts.unban_account(tx, account_id=account_id)
    else:
        await accounts.ban_account(tx, account_id=account_id, reason=ban.reason, until=ban.until)
