"""A repeated `request_id` with the same message from the same caller returns the first response again, for 24 hours."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Protocol, cast
from uuid import UUID

from google.protobuf.message import Message
from grpc_interceptor.server import AsyncServerInterceptor

from accord.errors.v1.errors_pb2 import Reason
from accord_db.engine.database import Database, Transaction
from accord_db.queries import idempotency
from accord_rpc.call import Context
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.interceptor import Next


class _WithRequestId(Protocol):
    request_id: str


class IdempotencyInterceptor(AsyncServerInterceptor):
    """Stores the response in the transaction of the write: either both are committed or neither is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def intercept(
        self,
        method: Next,
        request_or_iterator: object,
        context: Context,
        method_name: str,
    ) -> bytes | None:
        request_id = cast(_WithRequestId, request_or_iterator).request_id
        if not request_id:
            return await method(request_or_iterator, context)
        request_hash = _hash(method_name, cast(Message, request_or_iterator))
        async with self._database.call_transaction():
            return await self._once(
                UUID(request_id),
                request_hash,
                lambda: method(request_or_iterator, context),
            )

    async def _once(
        self,
        request_id: UUID,
        request_hash: bytes,
        work: Callable[[], Awaitable[bytes | None]],
    ) -> bytes:
        account_id = caller().account_id
        async with self._database.transaction() as tx:
            # A second call with the same id waits here until the first has committed or rolled back.
            claimed = await idempotency.claim_key(
                tx, account_id=account_id, request_id=request_id, request_hash=request_hash
            )
            if claimed is None:
                return await self._first_response(tx, account_id, request_id, request_hash)
        response = await work() or b""
        async with self._database.transaction() as tx:
            await idempotency.store_response(tx, account_id=account_id, request_id=request_id, response=response)
        return response

    async def _first_response(self, tx: Transaction, account_id: UUID, request_id: UUID, request_hash: bytes) -> bytes:
        first = await idempotency.get_key(tx, account_id=account_id, request_id=request_id)
        if first is None or first.request_hash != request_hash:
            raise RpcError(Reason.REASON_REQUEST_ID_REUSED)
        return first.response or b""


def _hash(path: str, message: Message) -> bytes:
    """Of the method, the active organization (with another one it is another request) and the message.
    Deterministic, so that clients in other languages may order fields as they like."""
    me = caller()
    active = me.organization_id or me.account_id
    return hashlib.sha256(path.encode() + active.bytes + message.SerializeToString(deterministic=True)).digest()
