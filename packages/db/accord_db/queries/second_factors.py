"""Queries of second factors and their recovery codes. An account has at most one second factor, confirmed or not.

A code is valid at a time. Results include the database's time, which is the same for every process.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, LargeBinary, Uuid, bindparam, column, delete, func, or_, select, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import insert

from accord_db.engine.database import Executor
from accord_db.schema import RecoveryCode, SecondFactor


class SecondFactorNow(NamedTuple):
    """A second factor, and the database's time at which it was read."""

    factor: SecondFactor
    now: datetime


class SecondFactorSummary(NamedTuple):
    id: UUID
    confirmed_at: datetime
    recovery_codes_left: int


_OF_ACCOUNT = SecondFactor.account_id == bindparam("account_id")
_THIS = SecondFactor.id == bindparam("second_factor_id")
_CONFIRMED = SecondFactor.confirmed_at.is_not(None)
_UNCONFIRMED = SecondFactor.confirmed_at.is_(None)

_GET_NOW = select(SecondFactor, func.now().label("now")).where(_OF_ACCOUNT)
_GET_CONFIRMED = _GET_NOW.where(_CONFIRMED)
_GET_UNCONFIRMED = _GET_NOW.where(_UNCONFIRMED)


async def get_confirmed_second_factor(db: Executor, *, account_id: UUID) -> SecondFactorNow | None:
    row = await db.fetch_one(_GET_CONFIRMED, account_id=account_id)
    return SecondFactorNow._make(row) if row is not None else None


async def get_unconfirmed_second_factor(db: Executor, *, account_id: UUID) -> SecondFactorNow | None:
    row = await db.fetch_one(_GET_UNCONFIRMED, account_id=account_id)
    return SecondFactorNow._make(row) if row is not None else None


_codes_left = (
    select(func.count())
    .where(RecoveryCode.second_factor_id == SecondFactor.id, RecoveryCode.used_at.is_(None))
    .scalar_subquery()
    .label("recovery_codes_left")
)
_SUMMARIZE = select(SecondFactor.id, SecondFactor.confirmed_at, _codes_left).where(_OF_ACCOUNT, _CONFIRMED)


async def get_second_factor_summary(db: Executor, *, account_id: UUID) -> SecondFactorSummary | None:
    """Of the confirmed second factor; None without one."""
    row = await db.fetch_one(_SUMMARIZE, account_id=account_id)
    return SecondFactorSummary._make(row) if row is not None else None


_LOCK = select(SecondFactor.id).where(_OF_ACCOUNT, _CONFIRMED).with_for_update()


async def lock_second_factor(db: Executor, *, account_id: UUID) -> UUID | None:
    """Locks the confirmed second factor until the transaction ends, and returns its id."""
    return await db.fetch_one(_LOCK, account_id=account_id)


# A new secret gets a new id, so that a confirmation names the secret whose code it has.
_new = insert(SecondFactor).values(id=bindparam("id"), account_id=bindparam("account_id"), secret=bindparam("secret"))
_INSERT = _new.on_conflict_do_update(
    index_elements=[SecondFactor.account_id],
    set_={"id": _new.excluded.id, "secret": _new.excluded.secret, "created_at": func.now()},
    where=_UNCONFIRMED,
).returning(SecondFactor.id)


async def insert_second_factor(db: Executor, *, second_factor_id: UUID, account_id: UUID, secret: bytes) -> UUID | None:
    """Inserts an unconfirmed second factor and returns its id. Replaces an unconfirmed one. None if a confirmed one exists,
    which does not change."""
    return await db.fetch_one(_INSERT, id=second_factor_id, account_id=account_id, secret=secret)


_CONFIRM = (
    update(SecondFactor)
    .where(_THIS, _UNCONFIRMED)
    .values(confirmed_at=func.now(), last_step=bindparam("step", type_=BigInteger))
)


async def confirm_second_factor(db: Executor, *, second_factor_id: UUID, step: int) -> int:
    """`step` is that of the code. 0 if the second factor is already confirmed, or has been replaced."""
    return await db.execute(_CONFIRM, second_factor_id=second_factor_id, step=step)


_step = bindparam("step", type_=BigInteger)
_USE_STEP = (
    update(SecondFactor)
    .where(_THIS, _CONFIRMED, or_(SecondFactor.last_step.is_(None), SecondFactor.last_step < _step))
    .values(last_step=_step)
)


async def use_step(db: Executor, *, second_factor_id: UUID, step: int) -> bool:
    """True if neither this step nor a later one was used before (RFC 6238, section 5.2). Of concurrent callers one gets
    True."""
    return await db.execute(_USE_STEP, second_factor_id=second_factor_id, step=step) == 1


_DELETE = delete(SecondFactor).where(_OF_ACCOUNT, _CONFIRMED).returning(SecondFactor.id)


async def delete_second_factor(db: Executor, *, account_id: UUID) -> UUID | None:
    """Deletes the confirmed second factor with its recovery codes, and returns its id. None without one."""
    return await db.fetch_one(_DELETE, account_id=account_id)


_codes = (
    func.unnest(bindparam("ids", type_=ARRAY(Uuid)), bindparam("code_hashes", type_=ARRAY(LargeBinary)))
    .table_valued(column("id", Uuid), column("code_hash", LargeBinary), name="new")
    .render_derived()
)
_INSERT_CODES = plain_insert(RecoveryCode).from_select(
    ["id", "second_factor_id", "code_hash"],
    select(_codes.c.id, bindparam("second_factor_id", type_=Uuid), _codes.c.code_hash),
)


async def insert_recovery_codes(
    db: Executor, *, second_factor_id: UUID, ids: Sequence[UUID], code_hashes: Sequence[bytes]
) -> None:
    await db.execute(_INSERT_CODES, second_factor_id=second_factor_id, ids=list(ids), code_hashes=list(code_hashes))


_DELETE_CODES = delete(RecoveryCode).where(RecoveryCode.second_factor_id == bindparam("second_factor_id"))


async def delete_recovery_codes(db: Executor, *, second_factor_id: UUID) -> int:
    return await db.execute(_DELETE_CODES, second_factor_id=second_factor_id)


_USE_CODE = (
    update(RecoveryCode)
    .where(
        RecoveryCode.code_hash == bindparam("code_hash"),
        RecoveryCode.second_factor_id == select(SecondFactor.id).where(_OF_ACCOUNT, _CONFIRMED).scalar_subquery(),
        RecoveryCode.used_at.is_(None),
    )
    .values(used_at=func.now())
)


async def use_recovery_code(db: Executor, *, account_id: UUID, code_hash: bytes) -> bool:
    """True if the account has the code and it was not used before. Of concurrent callers one gets True."""
    return await db.execute(_USE_CODE, account_id=account_id, code_hash=code_hash) == 1
