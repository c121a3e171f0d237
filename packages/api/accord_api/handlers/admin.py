"""AdminService: accounts of the installation, and the audit log."""

from datetime import datetime
from functools import partial
from typing import ClassVar, Final
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from accord.admin.v1 import admin_pb2 as pb
from accord.admin.v1.admin_pb2_grpc import AdminServiceServicer
from accord.errors.v1.errors_pb2 import Reason
from accord_api import account_tokens
from accord_api.account_deletion import end_account
from accord_api.administrators import ADMINISTRATOR, account_not_found, changing, require_administrator
from accord_api.dependencies import Dependencies
from accord_api.new_passwords import check_new_password, set_password
from accord_api.session_messages import fill_session, to_session
from accord_api.sign_ins import is_banned
from accord_db.engine.database import Transaction
from accord_db.engine.ids import uuid7
from accord_db.queries import accounts, audit, managed_accounts, sessions
from accord_db.queries.audit import EventFilters
from accord_db.queries.managed_accounts import AccountFilters, Search
from accord_db.schema import Account, AuditEvent
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.messages import MessageMapper, to_datetime

_fill_account: Final = MessageMapper(pb.ManagedAccount).fill
_fill_event: Final = MessageMapper(pb.AuditEvent).fill
_ROLES: Final = {
    "person": pb.AccountRole.ACCOUNT_ROLE_PERSON,
    ADMINISTRATOR: pb.AccountRole.ACCOUNT_ROLE_ADMINISTRATOR,
}
_ROLE_NAMES: Final = {role: name for name, role in _ROLES.items()}


class AdminService(AdminServiceServicer):
    resources: ClassVar = {pb.AuditEvent: AuditEvent, pb.ManagedAccount: Account}

    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._sessions = dependencies.sessions
        self._passwords = dependencies.passwords
        self._outbox = dependencies.outbox
        self._paginator = dependencies.paginator

    async def ListAccounts(self, request: pb.ListAccountsRequest, context: Context) -> pb.ListAccountsResponse:
        search = _search(request)
        page = self._paginator.page(request, order_by=search.by if search else "id")
        rows = await managed_accounts.list_accounts(
            self._db,
            page=page,
            search=search,
            filters=AccountFilters(
                role=_ROLE_NAMES.get(request.role),
                banned=request.banned if request.HasField("banned") else None,
                show_deleted=request.show_deleted,
            ),
        )
        response = pb.ListAccountsResponse()
        response.next_page_token = page.fill(response.accounts, rows, self._fill_message)
        return response

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.GetAccountResponse:
        account_id = UUID(request.account_id)
        account = await managed_accounts.get_any_account(self._db, account_id=account_id)
        if account is None:
            raise account_not_found(account_id)
        return pb.GetAccountResponse(account=self._to_message(account))

    async def CreateAccount(self, request: pb.CreateAccountRequest, context: Context) -> pb.CreateAccountResponse:
        account_id, password_hash = uuid7(), None
        call().note(target=account_id, stated_reason=request.reason)
        if request.HasField("password"):
            check_new_password(self._passwords, "password", request.password, email=request.email)
            password_hash = await self._passwords.hash(request.password)
        async with self._db.transaction() as tx:
            await require_administrator(tx)
            account = await accounts.insert_account(
                tx,
                account_id=account_id,
                email=request.email,
                display_name=request.display_name,
                password_hash=password_hash,
                password_change_required=password_hash is not None,
            )
            if account is None:
                raise RpcError(Reason.REASON_ACCOUNT_EXISTS)
            if request.email_verified:
                account = await accounts.verify_email(tx, account_id=account_id) or account
        return pb.CreateAccountResponse(account=self._to_message(account))

    async def SetAccountPassword(
        self, request: pb.SetAccountPasswordRequest, context: Context
    ) -> pb.SetAccountPasswordResponse:
        account_id = UUID(request.account_id)
        call().note(target=account_id, stated_reason=request.reason)
        found = await accounts.get_account(self._db, account_id=account_id)
        if found is None:
            raise account_not_found(account_id)
        check_new_password(self._passwords, "new_password", request.new_password, email=found.email)
        new_hash = await self._passwords.hash(request.new_password)
        async with changing(self._db, self._sessions, account_id) as (tx, account):
            if account_id == caller().account_id or account.role == ADMINISTRATOR:
                raise RpcError(Reason.REASON_PASSWORD_NOT_SETTABLE, account_id=str(account_id))
            account = await set_password(tx, self._outbox, account, new_hash, change_required=True)
            await account_tokens.void(tx, account_id, *account_tokens.ALL)
            await self._sessions.revoke_all(tx, account_id)
        return pb.SetAccountPasswordResponse(account=self._to_message(account))

    async def DeleteAccount(self, request: pb.DeleteAccountRequest, context: Context) -> pb.DeleteAccountResponse:
        account_id = UUID(request.account_id)
        call().note(target=account_id, stated_reason=request.reason)
        async with changing(self._db, self._sessions, account_id, takes_administrator=True) as (tx, _):
            account = await accounts.delete_account(tx, account_id=account_id)
            await end_account(tx, self._sessions, account_id)
        assert account is not None  # it is locked
        return pb.DeleteAccountResponse(account=self._to_message(account))

    async def BanAccount(self, request: pb.BanAccountRequest, context: Context) -> pb.BanAccountResponse:
        account_id = UUID(request.account_id)
        call().note(target=account_id, stated_reason=request.reason)
        async with changing(self._db, self._sessions, account_id, takes_administrator=True) as (tx, _):
            banned = await accounts.ban_account(
                tx, account_id=account_id, reason=request.reason, until=_time(request, "until")
            )
            await self._sessions.revoke_all(tx, account_id)
        assert banned is not None  # it is locked
        return pb.BanAccountResponse(account=self._to_message(banned))

    async def UnbanAccount(self, request: pb.UnbanAccountRequest, context: Context) -> pb.UnbanAccountResponse:
        account_id = UUID(request.account_id)
        call().note(target=account_id)
        async with changing(self._db, self._sessions, account_id) as (tx, account):
            if account.banned_at is not None:
                account = await accounts.unban_account(tx, account_id=account_id) or account
        return pb.UnbanAccountResponse(account=self._to_message(account))

    async def SetAccountRole(self, request: pb.SetAccountRoleRequest, context: Context) -> pb.SetAccountRoleResponse:
        account_id, role = UUID(request.account_id), _ROLE_NAMES[request.role]
        call().note(target=account_id)
        takes = role != ADMINISTRATOR
        async with changing(self._db, self._sessions, account_id, takes_administrator=takes) as (tx, account):
            if role == ADMINISTRATOR and account.email_verified_at is None:
                raise RpcError(Reason.REASON_EMAIL_NOT_VERIFIED)
            if account.role != role:
                account = await accounts.update_role(tx, account_id=account_id, role=role) or account
                await sessions.revoke_impersonations(tx, account_id=account_id)
        return pb.SetAccountRoleResponse(account=self._to_message(account))

    async def RevokeAccountSessions(
        self, request: pb.RevokeAccountSessionsRequest, context: Context
    ) -> pb.RevokeAccountSessionsResponse:
        account_id = UUID(request.account_id)
        call().note(target=account_id)
        async with changing(self._db, self._sessions, account_id) as (tx, _):
            revoked = await self._sessions.revoke_all(tx, account_id)
        return pb.RevokeAccountSessionsResponse(revoked_count=revoked)

    async def ListAccountSessions(
        self, request: pb.ListAccountSessionsRequest, context: Context
    ) -> pb.ListAccountSessionsResponse:
        account_id, page = UUID(request.account_id), self._paginator.page(request)
        if await managed_accounts.get_any_account(self._db, account_id=account_id) is None:
            raise account_not_found(account_id)
        rows = await sessions.list_sessions(self._db, account_id=account_id, page=page, show_ended=request.show_ended)
        response, fill = pb.ListAccountSessionsResponse(), partial(fill_session, calling=caller().session_id)
        response.next_page_token = page.fill(response.sessions, rows, fill, key=lambda row: row.session)
        return response

    async def RevokeAccountSession(
        self, request: pb.RevokeAccountSessionRequest, context: Context
    ) -> pb.RevokeAccountSessionResponse:
        account_id, session_id = UUID(request.account_id), UUID(request.session_id)
        call().note(target=session_id)
        async with changing(self._db, self._sessions, account_id) as (tx, _):
            revoked = await self._sessions.revoke(tx, session_id=session_id, account_id=account_id)
            if not revoked and await sessions.get_session(tx, session_id=session_id, account_id=account_id) is None:
                raise RpcError(Reason.REASON_SESSION_NOT_FOUND, session_id=str(session_id))
        return pb.RevokeAccountSessionResponse()

    async def ImpersonateAccount(
        self, request: pb.ImpersonateAccountRequest, context: Context
    ) -> pb.ImpersonateAccountResponse:
        account_id = UUID(request.account_id)
        call().note(target=account_id, stated_reason=request.reason)
        async with self._db.transaction() as tx:
            await _lock_still_signed_in(tx, account_id)
            return await self._impersonate(tx, account_id)

    async def _impersonate(self, tx: Transaction, account_id: UUID) -> pb.ImpersonateAccountResponse:
        me = caller()
        async with changing(tx, self._sessions, account_id) as (_, account):
            if account_id == me.account_id or account.role == ADMINISTRATOR or is_banned(account, self._db.clock):
                raise RpcError(Reason.REASON_NOT_IMPERSONABLE, account_id=str(account_id))
            # Without peer and user agent: the user sees this session, and may learn who the administrator is but not where.
            token, session = await self._sessions.open(
                tx, account_id, authenticated_at=me.authenticated_at, impersonator_id=me.account_id
            )
        return pb.ImpersonateAccountResponse(session_token=token, session=to_session(session))

    async def StopImpersonating(
        self, request: pb.StopImpersonatingRequest, context: Context
    ) -> pb.StopImpersonatingResponse:
        me = caller()
        if me.impersonator_id is None:
            raise RpcError(Reason.REASON_NOT_IMPERSONATING)
        call().note(target=me.account_id)
        async with self._db.transaction() as tx:
            await self._sessions.revoke(tx, session_id=me.session_id, account_id=me.account_id)
        return pb.StopImpersonatingResponse()

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Context) -> pb.ListAuditEventsResponse:
        page = self._paginator.page(request, order_by="id desc")
        rows = await audit.list_events(self._db, page=page, **_event_filters(request))
        response = pb.ListAuditEventsResponse()
        response.next_page_token = page.fill(response.events, rows, _fill_event)
        return response

    def _to_message(self, account: Account) -> pb.ManagedAccount:
        message = pb.ManagedAccount()
        self._fill_message(message, account)
        return message

    def _fill_message(self, message: pb.ManagedAccount, account: Account) -> None:
        _fill_account(message, account)
        message.role, message.banned = _ROLES[account.role], is_banned(account, self._db.clock)


async def _lock_still_signed_in(tx: Transaction, account_id: UUID) -> None:
    """Locks this account and the caller's, in one order. Ending all sessions of the caller locks the account too: either it
    finds the session that is opened now, or it is not opened. Raises CREDENTIAL_INVALID."""
    me = caller()
    await accounts.lock_administrators(tx, account_id=account_id)
    session = await sessions.get_session(tx, session_id=me.session_id, account_id=me.account_id)
    if session is None or session.revoked_at is not None:
        raise RpcError(Reason.REASON_CREDENTIAL_INVALID)


def _search(request: pb.ListAccountsRequest) -> Search | None:
    match request.WhichOneof("search"):
        case "email_prefix":
            return Search("email", request.email_prefix)
        case "display_name_prefix":
            return Search("display_name", request.display_name_prefix)
        case _:
            return None


def _event_filters(request: pb.ListAuditEventsRequest) -> EventFilters:
    return EventFilters(
        account_id=_id(request.account_id),
        actor_id=_id(request.actor_id),
        organization_id=_id(request.organization_id),
        method=request.method or None,
        target=request.target or None,
        occurred_from=_time(request, "occurred_from"),
        occurred_before=_time(request, "occurred_before"),
    )


def _id(text: str) -> UUID | None:
    return UUID(text) if text else None


def _time(request: Message, field: str) -> datetime | None:
    if not request.HasField(field):
        return None
    time: Timestamp = getattr(request, field)
    return to_datetime(time)
