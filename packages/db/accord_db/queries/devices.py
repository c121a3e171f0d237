"""Questions about devices that wait to be let in. Whether a code is still good is decided by the database's clock."""

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
    """What there is to tell of a sign-in, and whether it was asked about sooner than its interval allowed."""

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
    """None if another device has one of the codes."""
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


_LIVING = (DeviceSignIn.expires_at > func.now(), DeviceSignIn.used_at.is_(None))

# Locked before it is looked at: of two polls at once, the second sees when the first was. A decision is told at once,
# however soon it is asked for: `slow_down` is a kind of `authorization_pending` (RFC 8628, 3.5).
_polled = (
    select(
        DeviceSignIn.id,
        func.coalesce(
            DeviceSignIn.account_id.is_(None)
            & (DeviceSignIn.last_polled_at + DeviceSignIn.interval_seconds * text("interval '1 second'") > func.now()),
            text("false"),  # the interval lies between two polls: the first may come at any time
        ).label("too_soon"),
    )
    .where(DeviceSignIn.device_code_hash == bindparam("device_code_hash"), *_LIVING)
    .with_for_update(key_share=True)
    .cte("polled")
)
_POLL = (
    update(DeviceSignIn)
    .where(DeviceSignIn.id == _polled.c.id)
    .values(
        last_polled_at=func.now(),
        interval_seconds=DeviceSignIn.interval_seconds
        + case((_polled.c.too_soon, bindparam("slower_by_seconds")), else_=0),
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


async def poll_device_sign_in(db: Executor, *, device_code_hash: bytes, slower_by_seconds: int) -> Poll | None:
    """Asked too soon while nobody has decided, the interval grows. None if there is none, or if it is expired or used."""
    row = await db.fetch_one(_POLL, device_code_hash=device_code_hash, slower_by_seconds=slower_by_seconds)
    return Poll._make(row) if row is not None else None


_USE = (
    update(DeviceSignIn)
    .where(
        DeviceSignIn.id == bindparam("sign_in_id"),
        *_LIVING,
        Session.id == DeviceSignIn.session_id,  # which there is once it is approved
        Session.revoked_at.is_(None),
    )
    .values(used_at=func.now())
)


async def use_device_sign_in(db: Executor, *, sign_in_id: UUID) -> bool:
    """Whether it was approved and good, which it never is again: of many who use it at once, one is told so.

    It is not good if the session that approved it was revoked since, whether for a new password, a ban, or by its owner.
    """
    return await db.execute(_USE, sign_in_id=sign_in_id) == 1


_UNDECIDED = (
    DeviceSignIn.user_code_hash == bindparam("user_code_hash"),
    DeviceSignIn.account_id.is_(None),
    *_LIVING,
)
_GET_UNDECIDED = select(DeviceSignIn).where(*_UNDECIDED)


async def get_undecided_device_sign_in(db: Executor, *, user_code_hash: bytes) -> DeviceSignIn | None:
    """None if there is none, if it is expired, or if somebody has decided on it."""
    return await db.fetch_one(_GET_UNDECIDED, user_code_hash=user_code_hash)


_APPROVE = (
    update(DeviceSignIn)
    .where(
        *_UNDECIDED,
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
    """The sign-in, which belongs to the account from now on. None if there is none that nobody has decided on, or if the
    session is not the account's or was revoked."""
    return await db.fetch_one(_APPROVE, user_code_hash=user_code_hash, account_id=account_id, session_id=session_id)


_DENY = (
    update(DeviceSignIn)
    .where(*_UNDECIDED)
    .values(account_id=bindparam("denied_by"), denied_at=func.now())
    .returning(DeviceSignIn)
)


async def deny_device_sign_in(db: Executor, *, user_code_hash: bytes, account_id: UUID) -> DeviceSignIn | None:
    """None if there is none that nobody has decided on."""
    return await db.fetch_one(_DENY, user_code_hash=user_code_hash, denied_by=account_id)
