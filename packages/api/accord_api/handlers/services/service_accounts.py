"""ServiceAccountService: accounts of programs, for administrators."""

from typing import ClassVar, Final
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord.services.v1 import services_pb2 as pb
from accord.services.v1.services_pb2_grpc import ServiceAccountServiceServicer
from accord_api.dependencies import Dependencies
from accord_auth.tokens import CLIENT_PREFIX, new_token, token_hash
from accord_db import schema
from accord_db.engine.database import Executor
from accord_db.engine.ids import uuid7
from accord_db.queries import services
from accord_db.schema import ServiceAccount
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.messages import MessageMapper

_fill: Final = MessageMapper(pb.ServiceAccount).fill


class ServiceAccountService(ServiceAccountServiceServicer):
    resources: ClassVar = {pb.ServiceAccount: ServiceAccount}

    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._sessions = dependencies.sessions
        self._paginator = dependencies.paginator

    async def CreateServiceAccount(
        self, request: pb.CreateServiceAccountRequest, context: Context
    ) -> pb.CreateServiceAccountResponse:
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
        return pb.CreateServiceAccountResponse(service_account=_to_service_account(account), client_secret=secret)

    async def ListServiceAccounts(
        self, request: pb.ListServiceAccountsRequest, context: Context
    ) -> pb.ListServiceAccountsResponse:
        page = self._paginator.page(request)
        rows = await services.list_service_accounts(self._db, page=page)
        response = pb.ListServiceAccountsResponse()
        response.next_page_token = page.fill(response.service_accounts, rows, _fill_message)
        return response

    async def RotateSecret(self, request: pb.RotateSecretRequest, context: Context) -> pb.RotateSecretResponse:
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
        return pb.RotateSecretResponse(service_account=_to_service_account(account), client_secret=secret)

    async def DisableServiceAccount(
        self, request: pb.DisableServiceAccountRequest, context: Context
    ) -> pb.DisableServiceAccountResponse:
        account_id = UUID(request.service_account_id)
        call().note(target=account_id)
        try:
            async with self._db.transaction() as tx:
                account = await services.disable_service_account(tx, service_account_id=account_id)
                account = account or await services.get_service_account(tx, service_account_id=account_id)
        finally:
            # Also after a cancellation or a lost connection during the commit.
            self._sessions.forget(account_id)
        if account is None:
            raise _not_found(account_id)
        return pb.DisableServiceAccountResponse(service_account=_to_service_account(account))

    async def EnableServiceAccount(
        self, request: pb.EnableServiceAccountRequest, context: Context
    ) -> pb.EnableServiceAccountResponse:
        account_id = UUID(request.service_account_id)
        call().note(target=account_id)
        async with self._db.transaction() as tx:
            account = await services.enable_service_account(tx, service_account_id=account_id)
            account = account or await services.get_service_account(tx, service_account_id=account_id)
        if account is None:
            raise _not_found(account_id)
        return pb.EnableServiceAccountResponse(service_account=_to_service_account(account))


def _to_service_account(account: schema.ServiceAccount) -> pb.ServiceAccount:
    message = pb.ServiceAccount()
    _fill_message(message, account)
    return message


def _fill_message(message: pb.ServiceAccount, account: schema.ServiceAccount) -> None:
    _fill(message, account)
    message.audiences[:] = account.audiences


def _not_found(service_account_id: UUID) -> RpcError:
    return RpcError(Reason.REASON_SERVICE_ACCOUNT_NOT_FOUND, service_account_id=str(service_account_id))


async def _why_not(db: Executor, service_account_id: UUID) -> RpcError:
    if await services.get_service_account(db, service_account_id=service_account_id) is None:
        return _not_found(service_account_id)
    return RpcError(Reason.REASON_ETAG_MISMATCH)
