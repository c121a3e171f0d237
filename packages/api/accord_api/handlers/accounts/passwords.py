from accord.accounts.v1 import accounts_pb2 as pb
from accord.errors.v1.errors_pb2 import Reason
from accord_api import account_tokens
from accord_api.account_tokens import CHANGE_EMAIL, RESET_PASSWORD, SECOND_STEP
from accord_api.handlers.accounts.base import AccountParts
from accord_api.outbox import Mail
from accord_api.own_account import get_own_account
from accord_api.sign_ins import is_banned, require_verified_hash
from accord_db.engine.database import Transaction
from accord_db.engine.folding import fold_email
from accord_db.queries import accounts, providers
from accord_db.schema import Account
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError


class AccountPasswords(AccountParts):
    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Context) -> pb.ChangePasswordResponse:
        me = caller()
        call().note(account_id=me.account_id, target=me.account_id)
        account = await get_own_account(self._db)
        self._check_new_password("new_password", request.new_password, email=account.email)
        if not await self._passwords.verify(account.password_hash, request.current_password):
            raise RpcError(Reason.REASON_PASSWORD_WRONG)
        new_hash = await self._passwords.hash(request.new_password)
        async with self._db.transaction() as tx:
            now = await accounts.get_account_locked(tx, account_id=account.id)
            if now is None:  # deleted since the password was verified
                raise RpcError(Reason.REASON_PASSWORD_WRONG)
            require_verified_hash(now, account)
            await self._set_password(tx, account, new_hash)
            # A pending change of address too: an intruder may have requested it.
            await account_tokens.void(tx, account.id, CHANGE_EMAIL, RESET_PASSWORD, SECOND_STEP)
            await self._sessions.revoke_all(tx, account.id, but=me.session_id)
        return pb.ChangePasswordResponse()

    async def RequestPasswordReset(
        self, request: pb.RequestPasswordResetRequest, context: Context
    ) -> pb.RequestPasswordResetResponse:
        async with self._db.transaction() as tx:
            account = await accounts.get_account_by_email_locked(tx, email=request.email)
            if account is not None:
                call().note(account_id=account.id, target=account.id)
            # An account without a password, which signs in with providers, gets one this way.
            wanted = account is not None and not is_banned(account, self._db.clock)
            await self._mail_token(
                tx, RESET_PASSWORD, Mail.RESET_PASSWORD, account if wanted else None, to=fold_email(request.email)
            )
        return pb.RequestPasswordResetResponse()

    async def ResetPassword(self, request: pb.ResetPasswordRequest, context: Context) -> pb.ResetPasswordResponse:
        found = await account_tokens.find(self._db, request.token, RESET_PASSWORD)
        self._check_new_password("new_password", request.new_password, email=found.email)
        new_hash = await self._passwords.hash(request.new_password)
        async with self._db.transaction() as tx:
            account = await account_tokens.use(tx, found)
            await self._set_password(tx, account, new_hash)
            if account.email_verified_at is None:
                # The address was unverified: its owner may not be the user who signed up and linked identities.
                await providers.delete_linked_providers_of_account(tx, account_id=account.id)
            await accounts.update_email_verified(tx, account_id=account.id, email=found.email)
            await account_tokens.void(tx, account.id, *account_tokens.ALL)
            await self._sessions.revoke_all(tx, account.id)
        return pb.ResetPasswordResponse()

    async def _set_password(self, tx: Transaction, account: Account, new_hash: str) -> None:
        await accounts.update_password_hash(tx, account_id=account.id, password_hash=new_hash)
        await self._outbox.post(tx, Mail.PASSWORD_CHANGED, to=account.email, display_name=account.display_name)
