"""Queries of device sign-ins (RFC 8628). The database's clock decides whether a code is valid."""

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, case, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from accord_db.engine.database import Executor
from accord_db.engine.dml import parameters
from accord_db.engine.expressions import interval
from accord_db.schema import DeviceSignIn, Session


class Poll(NamedTuple):
    """The state of a sign-in. `too_soon` if the poll came before the interval was over."""

    id: UUID
    interval_seconds: int
    account_id: UUID | None
    approved_at: datetime | None
    denied_at: datetime | None
    authenticated_at: datetime | None
    too_soon: bool


_INSERT = (
    insert(DeviceSignIn)
    .values(
        **parameters(
            DeviceSignIn,
            "id",
            "device_code_hash",
            "user_code_hash",
            "device_name",
            "peer",
            "user_agent",
            "interval_seconds",
        ),
        expires_at=func.now() + interval("lifetime"),
    )
    .on_conflict_do_nothing()
    .returning(DeviceSignIn)
)


async def insert_device_sign_in(
    db: Executor,
    *,
    sign_in_id: UUID,
    device_code_hash: bytes,
    user_code_hash: bytes,
    device_name: str,
    peer: str,
    user_agent: str | None,
    lifetime: timedelta,
    interval_seconds: int,
) -> DeviceSignIn | None:
    """None if another sign-in has one of the codes."""
    return await db.fetch_one(
        _INSERT,
        id=sign_in_id,
        device_code_hash=device_code_hash,
        user_code_hash=user_code_hash,
        device_name=device_name,
        peer=peer,
        user_agent=user_agent,
        lifetime=lifetime,
        interval_seconds=interval_seconds,
    )


_VALID = (DeviceSignIn.expires_at > func.now(), DeviceSignIn.used_at.is_(None))

# The row is locked before it is read: of two polls at the same time, the second sees the first. A poll of an approved or
# denied sign-in is never too soon: `slow_down` is a kind of `authorization_pending` (RFC 8628, section 3.5).
_polled = (
    select(
        DeviceSignIn.id,
        func.coalesce(
            DeviceSignIn.account_id.is_(None)
            & (DeviceSignIn.last_polled_at + DeviceSignIn.interval_seconds * text("interval '1 second'") > func.now()),
            text("false"),  # the first poll is never too soon
        ).label("too_soon"),
    )
    .where(DeviceSignIn.device_code_hash == bindparam("device_code_hash"), *_VALID)
    .with_for_update(key_share=True)
    .cte("polled")
)
_POLL = (
    update(DeviceSignIn)
    .where(DeviceSignIn.id == _polled.c.id)
    .values(
        last_polled_at=func.now(),
        interval_seconds=DeviceSignIn.interval_seconds
        + case((_polled.c.too_soon, bindparam("slow_down_seconds")), else_=0),
    )
    .returning(
        DeviceSignIn.id,
        DeviceSignIn.interval_seconds,
        DeviceSignIn.account_id,
        DeviceSignIn.approved_at,
        DeviceSignIn.denied_at,
        DeviceSignIn.authenticated_at,
        _polled.c.too_soon,
    )
)


async def poll_device_sign_in(db: Executor, *, device_code_hash: bytes, slow_down_seconds: int) -> Poll | None:
    """A poll that is too soon makes the interval longer. None if the sign-in does not exist, is expired or used."""
    row = await db.fetch_one(_POLL, device_code_hash=device_code_hash, slow_down_seconds=slow_down_seconds)
    return Poll._make(row) if row is not None else None


_USE = (
    update(DeviceSignIn)
    .where(
        DeviceSignIn.id == bindparam("sign_in_id"),
        *_VALID,
        Session.id == DeviceSignIn.session_id,  # set by the approval
        Session.revoked_at.is_(None),
    )
    .values(used_at=func.now())
)


async def use_device_sign_in(db: Executor, *, sign_in_id: UUID) -> bool:
    """Marks an approved, valid sign-in as used. Of concurrent callers one gets True.

    False also if the session that approved it has been revoked since.
    """
    return await db.execute(_USE, sign_in_id=sign_in_id) == 1


_PENDING = (
    DeviceSignIn.user_code_hash == bindparam("user_code_hash"),
    DeviceSignIn.account_id.is_(None),
    *_VALID,
)
_GET_PENDING = select(DeviceSignIn).where(*_PENDING)


async def get_pending_device_sign_in(db: Executor, *, user_code_hash: bytes) -> DeviceSignIn | None:
    """None if it does not exist, is expired, approved or denied."""
    return await db.fetch_one(_GET_PENDING, user_code_hash=user_code_hash)


_APPROVE = (
    update(DeviceSignIn)
    .where(
        *_PENDING,
        Session.id == bindparam("session_id"),
        Session.account_id == bindparam("account_id"),
        Session.revoked_at.is_(None),
    )
    .values(
        account_id=Session.account_id,
        session_id=Session.id,
        authenticated_at=Session.authenticated_at,
        approved_at=func.now(),
    )
    .returning(DeviceSignIn)
)


async def approve_device_sign_in(
    db: Executor, *, user_code_hash: bytes, account_id: UUID, session_id: UUID
) -> DeviceSignIn | None:
    """The approved sign-in, which now belongs to the account. None if no pending one exists, or if the session is revoked or
    belongs to another account."""
    return await db.fetch_one(_APPROVE, user_code_hash=user_code_hash, account_id=account_id, session_id=session_id)


_DENY = (
    update(DeviceSignIn)
    .where(*_PENDING)
    .values(account_id=bindparam("denied_by"), denied_at=func.now())
    .returning(DeviceSignIn)
)


async def deny_device_sign_in(db: Executor, *, user_code_hash: bytes, account_id: UUID) -> DeviceSignIn | None:
    """The denied sign-in. None if no pending one exists."""
    return await db.fetch_one(_DENY, user_code_hash=user_code_hash, denied_by=account_id)
