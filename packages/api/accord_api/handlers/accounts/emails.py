from accord.accounts.v1 import accounts_pb2 as pb
from accord_api import account_tokens
from accord_api.account_tokens import CHANGE_EMAIL, VERIFY_EMAIL
from accord_api.handlers.accounts.base import AccountParts
from accord_api.outbox import Mail
from accord_api.own_account import get_own_account_locked
from accord_api.sign_ins import is_banned
from accord_db.engine.database import Transaction
from accord_db.engine.errors import AlreadyExists
from accord_db.engine.folding import fold_email
from accord_db.queries import accounts
from accord_db.schema import Account, TokenPurpose
from accord_rpc.call import Context, call
from accord_rpc.caller import caller


class Emails(AccountParts):
    async def VerifyEmail(self, request: pb.VerifyEmailRequest, context: Context) -> pb.VerifyEmailResponse:
        found = await account_tokens.find(self._db, request.token, VERIFY_EMAIL, CHANGE_EMAIL)
        try:
            async with self._db.transaction() as tx:
                account = await account_tokens.use(tx, found)
                if found.purpose is TokenPurpose.CHANGE_EMAIL:
                    await self._change_email(tx, account, found.email)
                elif not await accounts.update_email_verified(tx, account_id=account.id, email=found.email):
                    raise account_tokens.invalid_token()
        except AlreadyExists:
            # Another account has taken the address. The token stays unused, and works if the address becomes free in time.
            raise account_tokens.invalid_token() from None
        return pb.VerifyEmailResponse()

    async def _change_email(self, tx: Transaction, account: Account, new_email: str) -> None:
        await accounts.update_email(tx, account_id=account.id, email=new_email)
        # They were mailed to the former address.
        await account_tokens.void(tx, account.id, *account_tokens.MAILED)
        await self._outbox.post(
            tx, Mail.EMAIL_CHANGED, to=account.email, display_name=account.display_name, new_email=new_email
        )

    async def ResendVerificationEmail(
        self, request: pb.ResendVerificationEmailRequest, context: Context
    ) -> pb.ResendVerificationEmailResponse:
        async with self._db.transaction() as tx:
            account = await accounts.get_account_by_email_locked(tx, email=request.email)
            if account is not None:
                call().note(account_id=account.id, target=account.id)
            waits = account is not None and account.email_verified_at is None and not is_banned(account, self._db.clock)
            await self._mail_token(
                tx, VERIFY_EMAIL, Mail.VERIFY_EMAIL, account if waits else None, to=fold_email(request.email)
            )
        return pb.ResendVerificationEmailResponse()

    async def ChangeEmail(self, request: pb.ChangeEmailRequest, context: Context) -> pb.ChangeEmailResponse:
        me, new_email = caller().account_id, fold_email(request.new_email)
        call().note(account_id=me, target=me)
        async with self._db.transaction() as tx:
            account = await get_own_account_locked(tx)
            # Does not check whether the address is taken, which would reveal accounts. VerifyEmail, which only its owner can call, does.
            await self._mail_token(tx, CHANGE_EMAIL, Mail.CHANGE_EMAIL, account, to=new_email)
            await self._outbox.post(
                tx,
                Mail.EMAIL_CHANGE_REQUESTED,
                to=account.email,
                display_name=account.display_name,
                new_email=new_email,
            )
        return pb.ChangeEmailResponse()
