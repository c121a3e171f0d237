from accord.accounts.v1 import accounts_pb2 as pb
from accord.errors.v1.errors_pb2 import Reason
from accord_api import account_tokens
from accord_api.account_tokens import CHANGE_EMAIL, RESET_PASSWORD, SECOND_STEP
from accord_api.handlers.accounts.base import AccountParts
from accord_api.new_passwords import check_new_password, set_password
from accord_api.outbox import Mail
from accord_api.own_account import get_own_account
from accord_api.sign_ins import is_banned, require_verified_hash
from accord_db.engine.folding import fold_email
from accord_db.queries import accounts, providers
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import FieldViolation, RpcError, invalid


class AccountPasswords(AccountParts):
    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Context) -> pb.ChangePasswordResponse:
        me = caller()
        call().note(account_id=me.account_id, target=me.account_id)
        account = await get_own_account(self._db)
        check_new_password(self._passwords, "new_password", request.new_password, email=account.email)
        if not await self._passwords.verify(account.password_hash, request.current_password):
            raise RpcError(Reason.REASON_PASSWORD_WRONG)
        if account.password_change_required and request.new_password == request.current_password:
            raise invalid(FieldViolation("new_password", "The password must differ from the current one."))
        new_hash = await self._passwords.hash(request.new_password)
        async with self._db.transaction() as tx:
            now = await accounts.get_account_locked(tx, account_id=account.id)
            if now is None:  # deleted since the password was verified
                raise RpcError(Reason.REASON_PASSWORD_WRONG)
            require_verified_hash(now, account)
            await set_password(tx, self._outbox, account, new_hash)
            # A pending change of address too: an intruder may have requested it.
            await account_tokens.void(tx, account.id, CHANGE_EMAIL, RESET_PASSWORD, SECOND_STEP)
            await self._sessions.revoke_all(tx, account.id, but=me.session_id)
            if me.password_change_required:
                await self._sessions.end_password_change(tx, session_id=me.session_id, account_id=account.id)
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
        check_new_password(self._passwords, "new_password", request.new_password, email=found.email)
        new_hash = await self._passwords.hash(request.new_password)
        async with self._db.transaction() as tx:
            account = await account_tokens.use(tx, found)
            await set_password(tx, self._outbox, account, new_hash)
            if account.email_verified_at is None:
                # The address was unverified: its owner may not be the user who signed up and linked identities.
                await providers.delete_linked_providers_of_account(tx, account_id=account.id)
            await accounts.update_email_verified(tx, account_id=account.id, email=found.email)
            await account_tokens.void(tx, account.id, *account_tokens.ALL)
            await self._sessions.revoke_all(tx, account.id)
        return pb.ResetPasswordResponse()
