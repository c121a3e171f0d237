"""ServiceAccountService: gives programs of the operator an account of their own, and takes it back."""

from typing import Final
from uuid import UUID

from grpc.aio import ServicerContext

from accord.errors.v1.errors_pb2 import Reason
from accord.services.v1.services_pb2 import (
    CreateServiceAccountRequest,
    CreateServiceAccountResponse,
    DisableServiceAccountRequest,
    DisableServiceAccountResponse,
    EnableServiceAccountRequest,
    EnableServiceAccountResponse,
    ListServiceAccountsRequest,
    ListServiceAccountsResponse,
    RotateSecretRequest,
    RotateSecretResponse,
    ServiceAccount,
)
from accord.services.v1.services_pb2_grpc import ServiceAccountServiceServicer
from accord_auth.sessions import Sessions
from accord_auth.tokens import CLIENT_PREFIX, new_token, token_hash
from accord_db import schema
from accord_db.engine.database import Database, Executor
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Cursor
from accord_db.queries import services
from accord_rpc.call import call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.messages import MessageMapper
from accord_rpc.pagination import DEFAULT_PAGE_SIZE, Paginator, fill_page

_fill: Final = MessageMapper(ServiceAccount).fill


class ServiceAccountService(ServiceAccountServiceServicer):
    def __init__(self, database: Database, sessions: Sessions, pages: Paginator) -> None:
        self._db = database
        self._sessions = sessions
        self._pages = pages

    async def CreateServiceAccount(
        self,
        request: CreateServiceAccountRequest,
        context: ServicerContext[CreateServiceAccountRequest, CreateServiceAccountResponse],
    ) -> CreateServiceAccountResponse:
        secret = new_token(CLIENT_PREFIX)
        async with self._db.transaction() as tx:
            account = await services.insert_service_account(
                tx,
                service_account_id=uuid7(),
                name=request.name,
                audiences=list(request.audiences),
                secret_hash=token_hash(secret),
                created_by=caller().account_id,
            )
        call().note(target=account.id)
        return CreateServiceAccountResponse(service_account=_to_service_account(account), client_secret=secret)

    async def ListServiceAccounts(
        self,
        request: ListServiceAccountsRequest,
        context: ServicerContext[ListServiceAccountsRequest, ListServiceAccountsResponse],
    ) -> ListServiceAccountsResponse:
        page_size = request.page_size or DEFAULT_PAGE_SIZE
        found = await services.list_service_accounts(
            self._db,
            limit=page_size + 1,  # one more than asked tells whether there is a next page
            after=self._pages.place(request, request.page_token, times=True),
        )
        response = ListServiceAccountsResponse()
        last = fill_page(response.service_accounts, found, page_size, _tell)
        if last is not None:
            response.next_page_token = self._pages.token(request, Cursor(last.created_at, last.id))
        return response

    async def RotateSecret(
        self,
        request: RotateSecretRequest,
        context: ServicerContext[RotateSecretRequest, RotateSecretResponse],
    ) -> RotateSecretResponse:
        account_id, secret = UUID(request.service_account_id), new_token(CLIENT_PREFIX)
        call().note(target=account_id)
        async with self._db.transaction() as tx:
            account = await services.update_secret(
                tx,
                service_account_id=account_id,
                etag=UUID(request.etag),
                secret_hash=token_hash(secret),
                overlap=request.overlap.ToTimedelta(),
            )
            if account is None:
                raise await _why_not(tx, account_id)
        return RotateSecretResponse(service_account=_to_service_account(account), client_secret=secret)

    async def DisableServiceAccount(
        self,
        request: DisableServiceAccountRequest,
        context: ServicerContext[DisableServiceAccountRequest, DisableServiceAccountResponse],
    ) -> DisableServiceAccountResponse:
        account_id = UUID(request.service_account_id)
        call().note(target=account_id)
        try:
            async with self._db.transaction() as tx:
                account = await services.disable_service_account(tx, service_account_id=account_id)
                account = account or await services.get_service_account(tx, service_account_id=account_id)
        finally:
            # Also when we were cancelled or cut off while it was committed.
            self._sessions.forget(account_id)
        if account is None:
            raise _not_found(account_id)
        return DisableServiceAccountResponse(service_account=_to_service_account(account))

    async def EnableServiceAccount(
        self,
        request: EnableServiceAccountRequest,
        context: ServicerContext[EnableServiceAccountRequest, EnableServiceAccountResponse],
    ) -> EnableServiceAccountResponse:
        account_id = UUID(request.service_account_id)
        call().note(target=account_id)
        async with self._db.transaction() as tx:
            account = await services.enable_service_account(tx, service_account_id=account_id)
            account = account or await services.get_service_account(tx, service_account_id=account_id)
        if account is None:
            raise _not_found(account_id)
        return EnableServiceAccountResponse(service_account=_to_service_account(account))


def _to_service_account(account: schema.ServiceAccount) -> ServiceAccount:
    message = ServiceAccount()
    _tell(message, account)
    return message


def _tell(message: ServiceAccount, account: schema.ServiceAccount) -> None:
    _fill(message, account)
    message.audiences[:] = account.audiences


def _not_found(service_account_id: UUID) -> RpcError:
    return RpcError(Reason.REASON_SERVICE_ACCOUNT_NOT_FOUND, service_account_id=str(service_account_id))


async def _why_not(db: Executor, service_account_id: UUID) -> RpcError:
    if await services.get_service_account(db, service_account_id=service_account_id) is None:
        return _not_found(service_account_id)
    return RpcError(Reason.REASON_ETAG_MISMATCH)
