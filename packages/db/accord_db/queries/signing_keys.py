"""Questions about the keys that services' tokens are signed with. How old a key is, the database's clock alone decides."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, func, insert, literal_column, select, text

from accord_db.engine.database import Executor
from accord_db.schema import SigningKey

# How long a key is published before it signs. Whoever fetches the keys once a day never meets one that they have not.
KNOWN_AFTER: Final = timedelta(days=2)
# When another follows it.
OLD_AFTER: Final = timedelta(days=30)
# How long it stays published once its successor signs: far longer than any token lasts.
KEPT_FOR: Final = timedelta(days=1)


class AgedKey(NamedTuple):
    """`known` if whoever verifies has had the time to learn of it, `old` if it is to be followed by another."""

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
    """The oldest first."""
    return [AgedKey._make(row) for row in await db.fetch_all(_LIST)]


_INSERT = insert(SigningKey).values(
    id=bindparam("id"), private_key=bindparam("private_key"), public_key=bindparam("public_key")
)


async def insert_signing_key(db: Executor, *, key_id: UUID, private_key: bytes, public_key: str) -> None:
    """The private one encrypted, the public one as a JWK."""
    await db.execute(_INSERT, id=key_id, private_key=private_key, public_key=public_key)


_LOCK = select(func.pg_advisory_xact_lock(literal_column("hashtextextended('accord signing keys', 0)")))


async def lock_signing_keys(tx: Executor) -> None:
    """Nobody else adds a key until the transaction ends."""
    await tx.fetch_all(_LOCK)
