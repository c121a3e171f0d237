"""Queries of the keys that sign service tokens. Only the database's clock decides how old a key is."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, func, insert, literal_column, select, text

from accord_db.engine.database import Executor
from accord_db.schema import SigningKey

# How long a key is published before it signs: a verifier that fetches the keys once a day always has the key.
KNOWN_AFTER: Final = timedelta(days=2)
# When a successor is created.
OLD_AFTER: Final = timedelta(days=30)
# How long a key stays published after its successor begins to sign: far longer than any token is valid.
KEPT_FOR: Final = timedelta(days=1)


class AgedKey(NamedTuple):
    """`known` if verifiers have had time to fetch it; `old` if it needs a successor."""

    id: UUID
    private_key: bytes
    public_key: str
    known: bool
    old: bool


_LIST = select(
    SigningKey.id,
    SigningKey.private_key,
    SigningKey.public_key,
    (SigningKey.created_at <= func.now() - text(f"interval '{KNOWN_AFTER.days} days'")).label("known"),
    (SigningKey.created_at <= func.now() - text(f"interval '{OLD_AFTER.days} days'")).label("old"),
).order_by(SigningKey.created_at, SigningKey.id)


async def list_signing_keys(db: Executor) -> Sequence[AgedKey]:
    """Oldest first."""
    return [AgedKey._make(row) for row in await db.fetch_all(_LIST)]


_INSERT = insert(SigningKey).values(
    id=bindparam("id"), private_key=bindparam("private_key"), public_key=bindparam("public_key")
)


async def insert_signing_key(db: Executor, *, key_id: UUID, private_key: bytes, public_key: str) -> None:
    """`private_key` is encrypted, `public_key` is a JWK."""
    await db.execute(_INSERT, id=key_id, private_key=private_key, public_key=public_key)


_LOCK = select(func.pg_advisory_xact_lock(literal_column("hashtextextended('accord signing keys', 0)")))


async def lock_signing_keys(tx: Executor) -> None:
    """No other transaction adds a key until this one ends."""
    await tx.fetch_all(_LOCK)
