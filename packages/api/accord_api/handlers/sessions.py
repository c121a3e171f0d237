"""SessionService: lists, ends and renews sessions of the caller's account."""

from functools import partial
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord.sessions.v1 import sessions_pb2 as pb
from accord.sessions.v1.sessions_pb2_grpc import SessionServiceServicer
from accord_api.dependencies import Dependencies
from accord_api.own_account import get_own_account_locked
from accord_api.session_messages import fill_session
from accord_api.sign_ins import require_verified_hash
from accord_db.engine.database import Transaction
from accord_db.queries import accounts, sessions
from accord_db.queries.sessions import SessionWithStatus
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError


class SessionService(SessionServiceServicer):
    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._sessions = dependencies.sessions
        self._passwords = dependencies.passwords
        self._second_factors = dependencies.second_factors
        self._paginator = dependencies.paginator

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        me = caller()
        session_id = UUID(request.session_id) if request.session_id else me.session_id
        found = await sessions.get_session_with_status(self._db, session_id=session_id, account_id=me.account_id)
        if found is None:
            raise _not_found(session_id)
        response = pb.GetSessionResponse()
        fill_session(response.session, found, calling=me.session_id)
        return response

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        me = caller()
        page = self._paginator.page(request)
        rows = await sessions.list_sessions(
            self._db, account_id=me.account_id, page=page, show_ended=request.show_ended
        )
        response = pb.ListSessionsResponse()
        response.next_page_token = page.fill(
            response.sessions, rows, partial(fill_session, calling=me.session_id), key=lambda row: row.session
        )
        return response

    async def RevokeSession(self, request: pb.RevokeSessionRequest, context: Context) -> pb.RevokeSessionResponse:
        me, session_id = caller().account_id, UUID(request.session_id)
        call().note(target=session_id)
        async with self._db.transaction() as tx:
            revoked = await self._sessions.revoke(tx, session_id=session_id, account_id=me)
            if not revoked and await sessions.get_session(tx, session_id=session_id, account_id=me) is None:
                raise _not_found(session_id)
        return pb.RevokeSessionResponse()

    async def RevokeOtherSessions(
        self, request: pb.RevokeOtherSessionsRequest, context: Context
    ) -> pb.RevokeOtherSessionsResponse:
        me = caller()
        call().note(target=me.account_id)
        async with self._db.transaction() as tx:
            # Opening a session of the account locks it too, so that none is missed.
            await get_own_account_locked(tx)
            revoked = await self._sessions.revoke_all(tx, me.account_id, but=me.session_id)
        return pb.RevokeOtherSessionsResponse(revoked_count=revoked)

    async def Reauthenticate(self, request: pb.ReauthenticateRequest, context: Context) -> pb.ReauthenticateResponse:
        me = caller()
        call().note(target=me.session_id)
        account = await accounts.get_account(self._db, account_id=me.account_id)
        if not await self._passwords.verify(account.password_hash if account else None, request.password):
            raise RpcError(Reason.REASON_PASSWORD_WRONG)
        async with self._db.transaction() as tx:
            now = await accounts.get_account_locked(tx, account_id=me.account_id)
            if account is None or now is None:  # deleted since the password was verified
                raise RpcError(Reason.REASON_PASSWORD_WRONG)
            require_verified_hash(now, account)
            if now.password_change_required:  # an administrator knows the password, so that it proves nothing
                raise RpcError(Reason.REASON_PASSWORD_CHANGE_REQUIRED)
            await self._verify_second_factor(tx, request)
            renewed = await self._sessions.renew(
                tx, session_id=me.session_id, account_id=me.account_id, authenticated_at=me.authenticated_at
            )
        if renewed is None:  # revoked or renewed since the call was authenticated
            raise RpcError(Reason.REASON_CREDENTIAL_INVALID)
        token, session = renewed
        response = pb.ReauthenticateResponse(session_token=token)
        fill_session(response.session, SessionWithStatus(session, "active"), calling=me.session_id)
        return response

    async def SetClientMetadata(
        self, request: pb.SetClientMetadataRequest, context: Context
    ) -> pb.SetClientMetadataResponse:
        me = caller()
        session = await sessions.update_client_metadata(
            self._db, session_id=me.session_id, account_id=me.account_id, client_metadata=request.client_metadata
        )
        if session is None:  # revoked since the call was authenticated
            raise RpcError(Reason.REASON_CREDENTIAL_INVALID)
        response = pb.SetClientMetadataResponse()
        fill_session(response.session, SessionWithStatus(session, "active"), calling=me.session_id)
        return response

    async def _verify_second_factor(self, tx: Transaction, request: pb.ReauthenticateRequest) -> None:
        me = caller().account_id
        if not await self._second_factors.is_enabled(tx, me):
            return
        if not await self._second_factors.verify(tx, me, code=request.code, recovery_code=request.recovery_code):
            raise RpcError(Reason.REASON_CODE_WRONG)


def _not_found(session_id: UUID) -> RpcError:
    """Also for a session of another account, whose existence must not be revealed."""
    return RpcError(Reason.REASON_SESSION_NOT_FOUND, session_id=str(session_id))
