from accord.accounts.v1 import accounts_pb2 as pb
from accord_api.account_tokens import VERIFY_EMAIL
from accord_api.handlers.accounts.base import AccountParts
from accord_api.new_passwords import check_new_password
from accord_api.outbox import Mail
from accord_db.engine.database import Transaction
from accord_db.engine.ids import uuid7
from accord_db.queries import accounts
from accord_rpc.call import Context, call


class SigningUp(AccountParts):
    async def SignUp(self, request: pb.SignUpRequest, context: Context) -> pb.SignUpResponse:
        check_new_password(self._passwords, "password", request.password, email=request.email)
        password_hash = await self._passwords.hash(request.password)
        async with self._db.transaction() as tx:
            account = await accounts.insert_account(
                tx,
                account_id=uuid7(),
                email=request.email,
                display_name=request.display_name,
                password_hash=password_hash,
            )
            # Three statements in either case: the duration must not reveal whether the account is new.
            if account is None:
                await self._notify_owner(tx, request.email)
            else:
                call().note(account_id=account.id, target=account.id)
                await self._mail_token(tx, VERIFY_EMAIL, Mail.VERIFY_EMAIL, account, to=account.email)
        return pb.SignUpResponse()

    async def _notify_owner(self, tx: Transaction, email: str) -> None:
        owner = await accounts.get_account_by_email(tx, email=email)
        if owner is None:  # deleted since the conflict
            return
        call().note(account_id=owner.id, target=owner.id)
        await self._outbox.post(tx, Mail.ACCOUNT_EXISTS, to=owner.email, display_name=owner.display_name)
