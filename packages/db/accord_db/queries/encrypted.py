"""Queries of encrypted columns, for key rotation: each value is encrypted again with the new key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Integer, LargeBinary, Select, Update, Uuid, bindparam, func, null, select, update
from sqlalchemy.orm import InstrumentedAttribute

from accord_db.engine.database import Executor
from accord_db.schema import LinkedProvider, OutboxMessage, SecondFactor, SigningKey


class EncryptedValue(NamedTuple):
    row_id: UUID
    account_id: UUID | None
    value: bytes


@dataclass(frozen=True, eq=False)
class EncryptedColumn:
    """A column of ciphertexts. Each is bound to its table, column and row, and to the row's account if it has one."""

    table: str
    name: str
    page: Select[Any]
    replace: Update
    keys: Select[bytes]

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"


def _column(model: Any, name: str, *, owner: InstrumentedAttribute[UUID] | None = None) -> EncryptedColumn:
    value, account_id = getattr(model, name), (null().cast(Uuid) if owner is None else owner)
    page = (
        select(model.id, account_id.label("account_id"), value.label("value"))
        .where(model.id > bindparam("after"), value.is_not(None))
        .order_by(model.id)
        .limit(bindparam("limit", type_=Integer))
    )
    replace = (
        update(model)
        .where(model.id == bindparam("row_id"), value == bindparam("old", type_=LargeBinary))
        .values({value: bindparam("new", type_=LargeBinary)})
    )
    # A ciphertext begins with its version, the length of the key's name, and the name.
    key = func.substring(value, 3, func.get_byte(value, 1), type_=LargeBinary)
    keys = select(key.label("key")).where(func.octet_length(value) > 1).distinct()
    return EncryptedColumn(model.__tablename__, name, page, replace, keys)


# Every encrypted column. The values of a column that is missing here could not be read after a key rotation.
ENCRYPTED_COLUMNS: Final = (
    _column(SecondFactor, "secret", owner=SecondFactor.account_id),
    _column(LinkedProvider, "access_token", owner=LinkedProvider.account_id),
    _column(LinkedProvider, "refresh_token", owner=LinkedProvider.account_id),
    _column(OutboxMessage, "content"),
    _column(SigningKey, "private_key"),
)

_NIL = UUID(int=0)


async def list_encrypted_values(
    db: Executor, *, column: EncryptedColumn, after: UUID | None, limit: int
) -> Sequence[EncryptedValue]:
    """Ordered by the id of the row, without NULLs."""
    rows = await db.fetch_all(column.page, after=after or _NIL, limit=limit)
    return [EncryptedValue._make(row) for row in rows]


async def update_encrypted_value(db: Executor, *, column: EncryptedColumn, row_id: UUID, old: bytes, new: bytes) -> int:
    """0 if the value has changed or the row is gone."""
    return await db.execute(column.replace, row_id=row_id, old=old, new=new)


async def list_key_names(db: Executor, *, column: EncryptedColumn) -> set[str]:
    """The names of the keys that encrypted the column's values. Reads the whole table."""
    return {name.decode(errors="replace") for name in await db.fetch_all(column.keys)}
