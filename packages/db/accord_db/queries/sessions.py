"""Questions about sessions. Whether one is still good is decided by the database's clock alone."""

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Interval, Text, bindparam, cast, func, insert, select, update

from accord_db.database import Executor
from accord_db.schema import Account, Session

# Whoever caches sessions listens here. The payload is the id of a session that is no longer good.
REVOKED_CHANNEL = "accord_sessions"


class LiveSession(NamedTuple):
    """A session that is good now, and whose it is. Its owner signed in at `created_at`."""

    id: UUID
    account_id: UUID
    created_at: datetime
    expires_at: datetime
    email: str
    display_name: str


_INSERT = (
    insert(Session)
    .values(
        id=bindparam("id"),
        account_id=bindparam("account_id"),
        token_hash=bindparam("token_hash"),
        expires_at=func.now() + cast(bindparam("lifetime"), Interval),
        peer=bindparam("peer"),
        user_agent=bindparam("user_agent"),
    )
    .returning(Session)
)


async def insert_session(
    db: Executor,
    *,
    session_id: UUID,
    account_id: UUID,
    token_hash: bytes,
    lifetime: timedelta,
    peer: str | None = None,
    user_agent: str | None = None,
) -> Session:
    session = await db.first(
        _INSERT,
        id=session_id,
        account_id=account_id,
        token_hash=token_hash,
        lifetime=lifetime,
        peer=peer,
        user_agent=user_agent,
    )
    assert session is not None
    return session


_GET_LIVE = (
    select(
        Session.id,
        Session.account_id,
        Session.created_at,
        Session.expires_at,
        Account.email,
        Account.display_name,
    )
    .join(Account, Account.id == Session.account_id)
    .where(
        Session.token_hash == bindparam("token_hash"),
        Session.revoked_at.is_(None),
        Session.expires_at > func.now(),
        Account.deleted_at.is_(None),
    )
)


async def get_session_by_token_hash(db: Executor, *, token_hash: bytes) -> LiveSession | None:
    """None if there is none, if it is revoked or expired, or if its account is deleted."""
    row = await db.first(_GET_LIVE, token_hash=token_hash)
    return LiveSession._make(row) if row is not None else None


_GET = select(Session).where(Session.id == bindparam("session_id"), Session.account_id == bindparam("account_id"))


async def get_session(db: Executor, *, session_id: UUID, account_id: UUID) -> Session | None:
    """Also if it is over."""
    return await db.first(_GET, session_id=session_id, account_id=account_id)


# The notice is part of the statement: it goes out when the revocation is committed, and not if it is rolled back.
_REVOKE_ALL = (
    update(Session)
    .where(Session.account_id == bindparam("account_id"), Session.revoked_at.is_(None))
    .values(revoked_at=func.now())
    .returning(Session.id, func.pg_notify(REVOKED_CHANNEL, cast(Session.id, Text)).label("notice"))
)
_REVOKE = _REVOKE_ALL.where(Session.id == bindparam("session_id"))


async def revoke_session(db: Executor, *, session_id: UUID, account_id: UUID) -> UUID | None:
    """Its id. None if the account has no such session, or it is revoked already."""
    row = await db.first(_REVOKE, session_id=session_id, account_id=account_id)
    return row.id if row is not None else None


async def revoke_sessions_of_account(db: Executor, *, account_id: UUID) -> list[UUID]:
    return [row.id for row in await db.all(_REVOKE_ALL, account_id=account_id)]
