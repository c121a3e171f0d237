"""The caller's account. It may have been deleted since the call was authenticated; then CREDENTIAL_INVALID is raised."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from accord.errors.v1.errors_pb2 import Reason
from accord_auth.sessions import Sessions
from accord_db.engine.database import Database, Executor, Transaction
from accord_db.queries import accounts, sessions
from accord_db.schema import Account
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError


async def get_own_account(db: Executor) -> Account:
    account = await accounts.get_account(db, account_id=caller().account_id)
    if account is None:
        raise deleted()
    return account


async def get_own_account_locked(tx: Transaction) -> Account:
    """Locked until the transaction ends."""
    account = await accounts.get_account_locked(tx, account_id=caller().account_id)
    if account is None:
        raise deleted()
    return account


@asynccontextmanager
async def changing_own(db: Database, live_sessions: Sessions) -> AsyncIterator[Transaction]:
    """A transaction that locks the account. Changes of its credentials hold from the next call on, in every process."""
    account_id = caller().account_id
    try:
        async with db.transaction() as tx:
            await get_own_account_locked(tx)
            await sessions.notify_account_changed(tx, account_id=account_id)
            yield tx
    finally:
        # Also after a cancellation or a lost connection during the commit.
        live_sessions.forget(account_id)


def deleted() -> RpcError:
    return RpcError(Reason.REASON_CREDENTIAL_INVALID)
