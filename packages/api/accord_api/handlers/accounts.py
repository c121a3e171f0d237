"""AccountService: signs people up, in and out."""

from typing import Final

from grpc.aio import ServicerContext

from accord.accounts.v1.accounts_pb2 import (
    Account,
    GetSessionRequest,
    GetSessionResponse,
    Session,
    SignInRequest,
    SignInResponse,
    SignOutRequest,
    SignOutResponse,
    SignUpRequest,
    SignUpResponse,
)
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceServicer
from accord.errors.v1.errors_pb2 import Reason
from accord_api.messages import Filler
from accord_api.pipeline.call import call
from accord_api.pipeline.peer import peer_address
from accord_auth.caller import caller
from accord_auth.passwords import Passwords
from accord_auth.refused import FieldViolation, Refused, invalid
from accord_auth.sessions import Sessions
from accord_db.database import Database
from accord_db.ids import uuid7
from accord_db.queries import accounts, sessions

_to_account: Final = Filler(Account)
_to_session: Final = Filler(Session)


class AccountService(AccountServiceServicer):
    def __init__(self, database: Database, sessions: Sessions, passwords: Passwords) -> None:
        self._db = database
        self._sessions = sessions
        self._passwords = passwords

    async def SignUp(
        self,
        request: SignUpRequest,
        context: ServicerContext[SignUpRequest, SignUpResponse],
    ) -> SignUpResponse:
        if faults := self._passwords.faults(request.password):
            raise invalid(*(FieldViolation("password", fault) for fault in faults))
        password_hash = await self._passwords.hash(request.password)
        async with self._db.transaction() as tx:
            account = await accounts.insert_account(
                tx,
                account_id=uuid7(),
                email=request.email,
                display_name=request.display_name,
                password_hash=password_hash,
            )
        if account is not None:
            call().note(account_id=account.id, target=account.id)
        return SignUpResponse()

    async def SignIn(
        self,
        request: SignInRequest,
        context: ServicerContext[SignInRequest, SignInResponse],
    ) -> SignInResponse:
        account = await accounts.get_account_by_email(self._db, email=request.email)
        known = await self._passwords.verify(account.password_hash if account else None, request.password)
        if account is None or not known:
            raise Refused(Reason.REASON_SIGN_IN_REFUSED)
        async with self._db.transaction() as tx:
            if self._passwords.needs_rehash(account.password_hash):
                await accounts.update_password_hash(
                    tx,
                    account_id=account.id,
                    password_hash=await self._passwords.hash(request.password),
                )
            token, session = await self._sessions.open(
                account.id, peer=peer_address(call().peer), user_agent=call().user_agent
            )
        call().note(account_id=account.id, target=session.id)
        return SignInResponse(session_token=token, session=_to_session(session))

    async def SignOut(
        self,
        request: SignOutRequest,
        context: ServicerContext[SignOutRequest, SignOutResponse],
    ) -> SignOutResponse:
        me = caller()
        async with self._db.transaction():
            await self._sessions.revoke(session_id=me.session_id, account_id=me.account_id)
        call().note(target=me.session_id)
        return SignOutResponse()

    async def GetSession(
        self,
        request: GetSessionRequest,
        context: ServicerContext[GetSessionRequest, GetSessionResponse],
    ) -> GetSessionResponse:
        me = caller()
        session = await sessions.get_session(self._db, session_id=me.session_id, account_id=me.account_id)
        account = await accounts.get_account(self._db, account_id=me.account_id)
        if session is None or account is None:  # deleted since the call was let in
            raise Refused(Reason.REASON_CREDENTIAL_INVALID)
        return GetSessionResponse(session=_to_session(session), account=_to_account(account))
