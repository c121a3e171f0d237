"""Changes of accounts by administrators: one at a time per account, announced to all processes, and never so that the last
administrator goes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.sessions import Sessions
from accord_db.engine.database import Database, Transaction, opened
from accord_db.queries import accounts, sessions
from accord_db.schema import Account
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError

ADMINISTRATOR: Final = "administrator"


class Changing(NamedTuple):
    tx: Transaction
    # Before the change.
    account: Account


@asynccontextmanager
async def changing(
    db: Database | Transaction, live_sessions: Sessions, account_id: UUID, *, takes_administrator: bool = False
) -> AsyncIterator[Changing]:
    """A transaction that locks the account. Its changes hold from the next call on, in every process.

    Raises ACCOUNT_NOT_FOUND; LAST_ADMINISTRATOR if `takes_administrator` would remove the last one; PERMISSION_DENIED if the
    caller lost the role while waiting for the locks."""
    try:
        async with opened(db) as tx:
            if takes_administrator:
                await accounts.lock_administrators(tx, account_id=account_id)
            account = await _get_account_locked(tx, account_id)
            await require_administrator(tx)
            if takes_administrator and account.role == ADMINISTRATOR:
                await _require_another(tx, account_id)
            await sessions.notify_account_changed(tx, account_id=account_id)
            yield Changing(tx, account)
    finally:
        # Also after a cancellation or a lost connection during the commit.
        live_sessions.forget(account_id)


async def _get_account_locked(tx: Transaction, account_id: UUID) -> Account:
    """Raises ACCOUNT_NOT_FOUND, also for a deleted account."""
    account = await accounts.get_account_locked(tx, account_id=account_id)
    if account is None:
        raise account_not_found(account_id)
    return account


async def require_administrator(tx: Transaction) -> None:
    """Raises PERMISSION_DENIED if the caller has lost the role since the call was authenticated."""
    if not await accounts.is_administrator(tx, account_id=caller().account_id):
        raise RpcError(Reason.REASON_PERMISSION_DENIED)


async def require_another(tx: Transaction, account_id: UUID) -> None:
    """For an administrator who deletes the account. Call it before the account is locked: it locks all administrators, in one
    order. Raises LAST_ADMINISTRATOR."""
    await accounts.lock_administrators(tx, account_id=account_id)
    await _require_another(tx, account_id)


async def _require_another(tx: Transaction, account_id: UUID) -> None:
    if not await accounts.has_other_administrator(tx, account_id=account_id):
        raise RpcError(Reason.REASON_LAST_ADMINISTRATOR, account_id=str(account_id))


def account_not_found(account_id: UUID) -> RpcError:
    return RpcError(Reason.REASON_ACCOUNT_NOT_FOUND, account_id=str(account_id))
