from accord.accounts.v1 import accounts_pb2 as pb
from accord.errors.v1.errors_pb2 import Reason
from accord_api import account_tokens
from accord_api.handlers.accounts.base import AccountParts, to_account
from accord_api.own_account import get_own_account
from accord_api.session_messages import to_session
from accord_api.sign_ins import is_banned
from accord_db.queries import accounts, sessions
from accord_db.schema import Account
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.pipeline.rate_limits import limit_account


class SigningIn(AccountParts):
    async def SignIn(self, request: pb.SignInRequest, context: Context) -> pb.SignInResponse:
        account = await self._authenticated(request)
        if self._verified_email_required and account.email_verified_at is None:
            raise RpcError(Reason.REASON_EMAIL_NOT_VERIFIED)
        new_hash = await self._new_hash(account, request.password)
        async with self._db.transaction() as tx:
            token, session, second_step_token = await self._sign_ins.open(tx, account)
            if new_hash is not None:
                await accounts.renew_password_hash(tx, account_id=account.id, password_hash=new_hash)
        return pb.SignInResponse(
            session_token=token,
            session=to_session(session) if session else None,
            second_step_token=second_step_token,
        )

    async def _authenticated(self, request: pb.SignInRequest) -> Account:
        """Does one lookup and one verification in every case. Raises SIGN_IN_REFUSED."""
        account = await accounts.get_account_by_email(self._db, email=request.email)
        if account is not None:
            call().note(account_id=account.id, target=account.id)
        known = await self._passwords.verify(account.password_hash if account else None, request.password)
        if account is None or not known or is_banned(account, self._db.clock):
            raise RpcError(Reason.REASON_SIGN_IN_REFUSED)
        return account

    async def _new_hash(self, account: Account, password: str) -> str | None:
        """A new hash if the stored one was made with other cost parameters, else None."""
        outdated = account.password_hash is not None and self._passwords.needs_rehash(account.password_hash)
        return await self._passwords.hash(password) if outdated else None

    async def CompleteSignIn(self, request: pb.CompleteSignInRequest, context: Context) -> pb.CompleteSignInResponse:
        waiting = await account_tokens.find(self._db, request.second_step_token, account_tokens.SECOND_STEP)
        await limit_account(waiting.account_id)
        async with self._db.transaction() as tx:
            if not await self._second_factors.verify(
                tx, waiting.account_id, code=request.code, recovery_code=request.recovery_code
            ):
                raise RpcError(Reason.REASON_CODE_WRONG)
            token, session = await self._sign_ins.complete(tx, waiting)
        return pb.CompleteSignInResponse(session_token=token, session=to_session(session))

    async def SignOut(self, request: pb.SignOutRequest, context: Context) -> pb.SignOutResponse:
        me = caller()
        async with self._db.transaction() as tx:
            await self._sessions.revoke(tx, session_id=me.session_id, account_id=me.account_id)
        call().note(target=me.session_id)
        return pb.SignOutResponse()

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        me = caller()
        session = await sessions.get_session(self._db, session_id=me.session_id, account_id=me.account_id)
        account = await get_own_account(self._db)
        if session is None:  # deleted by the clean-up since the call was authenticated
            raise RpcError(Reason.REASON_CREDENTIAL_INVALID)
        response = pb.GetSessionResponse(session=to_session(session), account=to_account(account))
        response.session.status, response.session.current = pb.SessionStatus.SESSION_STATUS_ACTIVE, True
        return response
