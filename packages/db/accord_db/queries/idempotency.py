"""Queries of idempotency keys. `claim_key` and `store_response` run in the transaction that does the work."""

from uuid import UUID

from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from accord_db.engine.database import Executor
from accord_db.schema import IdempotencyKey

# queries/cleanup.py deletes them after the same time.
_EXPIRED = IdempotencyKey.created_at < func.now() - text("interval '24 hours'")
_THIS = (
    IdempotencyKey.account_id == bindparam("account_id"),
    IdempotencyKey.request_id == bindparam("request_id"),
)

_new = insert(IdempotencyKey).values(
    account_id=bindparam("account_id"),
    request_id=bindparam("request_id"),
    request_hash=bindparam("request_hash"),
)
_CLAIM = _new.on_conflict_do_update(
    index_elements=[IdempotencyKey.account_id, IdempotencyKey.request_id],
    set_={"request_hash": _new.excluded.request_hash, "response": None, "created_at": func.now()},
    where=_EXPIRED,
).returning(IdempotencyKey)


async def claim_key(db: Executor, *, account_id: UUID, request_id: UUID, request_hash: bytes) -> IdempotencyKey | None:
    """None if the request was made within the last 24 hours: `get_key` returns its response.

    If another transaction holds the same key, this waits for its end, and then returns None after a commit, the key after a
    rollback.
    """
    return await db.fetch_one(_CLAIM, account_id=account_id, request_id=request_id, request_hash=request_hash)


_STORE = update(IdempotencyKey).where(*_THIS).values(response=bindparam("new_response"))


async def store_response(db: Executor, *, account_id: UUID, request_id: UUID, response: bytes) -> int:
    return await db.execute(_STORE, account_id=account_id, request_id=request_id, new_response=response)


_GET = select(IdempotencyKey).where(*_THIS)


async def get_key(db: Executor, *, account_id: UUID, request_id: UUID) -> IdempotencyKey | None:
    return await db.fetch_one(_GET, account_id=account_id, request_id=request_id)
