from typing import Final

from accord.accounts.v1 import accounts_pb2 as pb
from accord.errors.v1.errors_pb2 import Reason
from accord_api.account_deletion import end_account
from accord_api.administrators import ADMINISTRATOR, require_another
from accord_api.handlers.accounts.base import AccountParts, to_account
from accord_api.own_account import deleted, get_own_account
from accord_db.queries import accounts
from accord_db.queries.accounts import AccountChanges
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.masks import MaskedChanges
from accord_rpc.messages import etag_of

_changes: Final = MaskedChanges(pb.UpdateAccountRequest, AccountChanges)


class Profiles(AccountParts):
    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.GetAccountResponse:
        return pb.GetAccountResponse(account=to_account(await get_own_account(self._db)))

    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: Context) -> pb.UpdateAccountResponse:
        me = caller().account_id
        call().note(account_id=me, target=me)
        async with self._db.transaction() as tx:
            account = await accounts.update_account(
                tx,
                account_id=me,
                changes=_changes(request),
                etag=etag_of(request.account),
            )
            if account is None:
                # Either the account is deleted, or it has another etag.
                await get_own_account(tx)
                raise RpcError(Reason.REASON_ETAG_MISMATCH)
        return pb.UpdateAccountResponse(account=to_account(account))

    async def DeleteAccount(self, request: pb.DeleteAccountRequest, context: Context) -> pb.DeleteAccountResponse:
        me = caller().account_id
        call().note(account_id=me, target=me)
        async with self._db.transaction() as tx:
            if caller().administrator:
                await require_another(tx, me)
            account = await accounts.delete_account(tx, account_id=me)
            if account is None:
                raise deleted()
            if (
                account.role == ADMINISTRATOR and not caller().administrator
            ):  # has become one since the call was authenticated
                await require_another(tx, me)
            await end_account(tx, self._sessions, me)
        return pb.DeleteAccountResponse()
