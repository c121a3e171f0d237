"""The caller's account. It may have been deleted since the call was authenticated; then CREDENTIAL_INVALID is raised."""

from accord.errors.v1.errors_pb2 import Reason
from accord_db.engine.database import Executor, Transaction
from accord_db.queries import accounts
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


def deleted() -> RpcError:
    return RpcError(Reason.REASON_CREDENTIAL_INVALID)
