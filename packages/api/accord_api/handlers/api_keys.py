"""ApiKeyService: the API keys of the active organization; without one, the caller's own."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ClassVar, Final
from uuid import UUID

from accord.api_keys.v1 import api_keys_pb2 as pb
from accord.api_keys.v1.api_keys_pb2_grpc import ApiKeyServiceServicer
from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import PERMISSION_API_KEYS_WRITE
from accord_api.dependencies import Dependencies
from accord_api.membership_changes import changing, require_held
from accord_api.own_account import changing_own
from accord_auth.api_keys import key_prefix, new_api_key
from accord_auth.tokens import token_hash
from accord_db.engine.database import Executor, Transaction
from accord_db.engine.ids import uuid7
from accord_db.queries import api_keys
from accord_db.queries.api_keys import ApiKeyChanges
from accord_db.schema import ApiKey
from accord_rpc.call import Context, call
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.masks import MaskedChanges
from accord_rpc.messages import MessageMapper, etag_of, to_datetime
from accord_rpc.permissions import AnyPermission, held, join_permissions, names, of_accord, of_application

# Keys of one owner that are not revoked.
_MAX_KEYS: Final = 1000


class _Changes(ApiKeyChanges, total=False):
    app_scopes: list[str]


_fill: Final = MessageMapper(pb.ApiKey).fill
_changes: Final = MaskedChanges(pb.UpdateApiKeyRequest, _Changes)


class ApiKeyService(ApiKeyServiceServicer):
    resources: ClassVar = {pb.ApiKey: ApiKey}

    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._sessions = dependencies.sessions
        self._paginator = dependencies.paginator

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.CreateApiKeyResponse:
        me, api_key_id, key = caller(), uuid7(), new_api_key()
        scopes: list[AnyPermission] = [*request.scopes, *request.app_scopes]
        call().note(target=api_key_id)
        async with self._changing() as tx:
            await _require_held(tx, scopes)
            if await api_keys.count_api_keys(tx, owner_id=me.owner_id) >= _MAX_KEYS:
                raise RpcError(Reason.REASON_TOO_MANY_API_KEYS)
            api_key = await api_keys.insert_api_key(
                tx,
                api_key_id=api_key_id,
                organization_id=me.organization_id,
                created_by=me.account_id,
                name=request.name,
                prefix=key_prefix(key),
                key_hash=token_hash(key),
                scopes=names(scopes),
                calls_per_minute=request.calls_per_minute if request.HasField("calls_per_minute") else None,
                expires_at=to_datetime(request.expires_at) if request.HasField("expires_at") else None,
            )
        return pb.CreateApiKeyResponse(key=key, api_key=_to_message(api_key))

    async def GetApiKey(self, request: pb.GetApiKeyRequest, context: Context) -> pb.GetApiKeyResponse:
        return pb.GetApiKeyResponse(api_key=_to_message(await _get(self._db, request.api_key_id)))

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        page = self._paginator.page(request)
        rows = await api_keys.list_api_keys(
            self._db, owner_id=caller().owner_id, page=page, show_ended=request.show_ended
        )
        response = pb.ListApiKeysResponse()
        response.next_page_token = page.fill(response.api_keys, rows, _fill_message)
        return response

    async def UpdateApiKey(self, request: pb.UpdateApiKeyRequest, context: Context) -> pb.UpdateApiKeyResponse:
        owner_id, changed = caller().owner_id, _changes(request)
        call().note(target=UUID(request.api_key.id))
        async with self._changing() as tx:
            before = await _get(tx, request.api_key.id)
            join_permissions(changed, "scopes", before.scopes)
            await _require_held(tx, held(None, [*before.scopes, *changed.get("scopes", [])]))
            api_key = await api_keys.update_api_key(
                tx,
                api_key_id=before.id,
                owner_id=owner_id,
                changes=changed,
                etag=etag_of(request.api_key),
            )
        if api_key is None:
            raise _ended(before) if before.revoked_at else _changed_since(before)
        return pb.UpdateApiKeyResponse(api_key=_to_message(api_key))

    async def RotateApiKey(self, request: pb.RotateApiKeyRequest, context: Context) -> pb.RotateApiKeyResponse:
        me, key, seen_etag = caller(), new_api_key(), UUID(request.etag)
        call().note(target=UUID(request.api_key_id))
        async with self._changing() as tx:
            before = await _get(tx, request.api_key_id)
            if before.created_by != me.account_id:
                raise RpcError(Reason.REASON_PERMISSION_DENIED)
            api_key = await api_keys.rotate_api_key(
                tx,
                api_key_id=before.id,
                owner_id=me.owner_id,
                etag=seen_etag,
                prefix=key_prefix(key),
                key_hash=token_hash(key),
                overlap=_overlap(request),
            )
        if api_key is None:
            raise _changed_since(before) if before.etag != seen_etag else _ended(before)
        return pb.RotateApiKeyResponse(key=key, api_key=_to_message(api_key))

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> pb.RevokeApiKeyResponse:
        owner_id, api_key_id = caller().owner_id, UUID(request.api_key_id)
        call().note(target=api_key_id)
        async with self._changing() as tx:
            revoked = await api_keys.revoke_api_key(tx, api_key_id=api_key_id, owner_id=owner_id)
            api_key = revoked or await _get(tx, request.api_key_id)
        return pb.RevokeApiKeyResponse(api_key=_to_message(api_key))

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[Transaction]:
        """A transaction that locks the owner of the keys: one change at a time, announced to all processes."""
        me = caller()
        if me.organization_id is None:
            async with changing_own(self._db, self._sessions) as tx:
                yield tx
        else:
            async with changing(
                self._db, self._sessions, me.active_organization_id, permission=PERMISSION_API_KEYS_WRITE
            ) as tx:
                yield tx


async def _require_held(tx: Transaction, scopes: Iterable[AnyPermission]) -> None:
    """Raises PERMISSION_DENIED unless the caller holds the scopes. Every permission on the caller's own data is held."""
    if caller().organization_id is not None:
        await require_held(tx, caller().active_organization_id, scopes)


def _to_message(api_key: ApiKey) -> pb.ApiKey:
    message = pb.ApiKey()
    _fill_message(message, api_key)
    return message


def _fill_message(message: pb.ApiKey, api_key: ApiKey) -> None:
    _fill(message, api_key)
    scopes = held(None, api_key.scopes)
    message.scopes.extend(of_accord(scopes))
    message.app_scopes.extend(of_application(scopes))


async def _get(db: Executor, api_key_id: str) -> ApiKey:
    api_key = await api_keys.get_api_key(db, api_key_id=UUID(api_key_id), owner_id=caller().owner_id)
    if api_key is None:
        # Also for a key of another owner, whose existence must not be revealed.
        raise RpcError(Reason.REASON_API_KEY_NOT_FOUND, api_key_id=api_key_id)
    return api_key


def _overlap(request: pb.RotateApiKeyRequest) -> timedelta:
    return timedelta(seconds=request.overlap.seconds, microseconds=request.overlap.nanos // 1_000)


def _ended(api_key: ApiKey) -> RpcError:
    return RpcError(Reason.REASON_API_KEY_ENDED, api_key_id=str(api_key.id))


def _changed_since(api_key: ApiKey) -> RpcError:
    return RpcError(Reason.REASON_ETAG_MISMATCH, api_key_id=str(api_key.id))
