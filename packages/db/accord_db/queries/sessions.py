"""Questions about sessions. Whether one is still good is decided by the database's clock alone."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple, cast
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    LargeBinary,
    Row,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import InstrumentedAttribute, aliased
from sqlalchemy.sql.elements import Label

from accord_db.engine.database import Executor
from accord_db.engine.dml import parameters
from accord_db.engine.expressions import interval
from accord_db.engine.keyset import Listing, Page
from accord_db.queries.accounts import admitted
from accord_db.queries.memberships import permissions_in, role_in
from accord_db.schema import Account, Session

# Whoever caches what credentials stand for listens here. The payload is the id of a session or API key that is no longer
# good, or of an account or organization, of which it is no longer known who is let in and what they may do.
REVOKED_CHANNEL = "accord_sessions"

Status = Literal["active", "expired", "revoked"]


class LiveSession(NamedTuple):
    """A session that is good now, whose it is, and what they may do. `use_is_due` if its last use that was written down is
    too long ago."""

    id: UUID
    account_id: UUID
    created_at: datetime
    authenticated_at: datetime
    expires_at: datetime
    idle_expires_at: datetime
    use_is_due: bool
    active_organization_id: UUID | None
    # What its owner is there; None and none for whoever is no member (any more).
    role: str | None
    permissions: list[str]
    administrator: bool
    impersonator_id: UUID | None


class ActedSession(NamedTuple):
    """A session that is good now, and in which a service acts for its owner; what they may do in the organization that was
    asked about, whichever is active."""

    authenticated_at: datetime
    expires_at: datetime
    idle_expires_at: datetime
    role: str | None
    permissions: list[str]


class SessionWithStatus(NamedTuple):
    session: Session
    status: Status


_THIS = (Session.id == bindparam("session_id"), Session.account_id == bindparam("account_id"))
_UNEXPIRED = (Session.expires_at > func.now(), Session.idle_expires_at > func.now())
# What makes a token good, whoever asks: a new call, or on behalf of a stream that began a while ago.
_impersonator = aliased(Account, name="impersonator")
_GOOD = (
    Session.revoked_at.is_(None),
    *_UNEXPIRED,
    *admitted(Account),
    # Who acts as somebody is still an administrator, and acts as none of them.
    or_(
        Session.impersonator_id.is_(None),
        and_(
            Account.role != "administrator",
            exists().where(
                _impersonator.id == Session.impersonator_id,
                _impersonator.role == "administrator",
                *admitted(_impersonator),
            ),
        ),
    ),
)
_IDLE_EXPIRY = func.least(Session.expires_at, func.now() + interval("idle_lifetime"))

_INSERT = (
    insert(Session)
    .values(
        **parameters(Session, "id", "account_id", "token_hash", "peer", "user_agent", "impersonator_id"),
        expires_at=func.now() + interval("lifetime"),
        # LEAST takes no notice of NULL.
        idle_expires_at=func.now() + func.least(interval("lifetime"), interval("idle_lifetime")),
        authenticated_at=func.coalesce(bindparam("authenticated_at", type_=DateTime(timezone=True)), func.now()),
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
    idle_lifetime: timedelta | None = None,
    authenticated_at: datetime | None = None,
    peer: str | None = None,
    user_agent: str | None = None,
    impersonator_id: UUID | None = None,
) -> Session:
    """Without `idle_lifetime` it lasts unused as long as used. Its owner has authenticated now, unless it is said when."""
    session = await db.fetch_one(
        _INSERT,
        id=session_id,
        account_id=account_id,
        token_hash=token_hash,
        lifetime=lifetime,
        idle_lifetime=idle_lifetime,
        authenticated_at=authenticated_at,
        peer=peer,
        user_agent=user_agent,
        impersonator_id=impersonator_id,
    )
    assert session is not None
    return session


_USE_IS_DUE = Session.last_used_at <= func.now() - interval("use_written_after")

_LIVE = (
    Session.id,
    Session.account_id,
    Session.created_at,
    Session.authenticated_at,
    Session.expires_at,
    Session.idle_expires_at,
    _USE_IS_DUE.label("use_is_due"),
    Session.active_organization_id,
    role_in(Session.active_organization_id, Session.account_id).label("role"),
    permissions_in(Session.active_organization_id, Session.account_id).label("permissions"),
    (Account.role == "administrator").label("administrator"),
    Session.impersonator_id,
)
_GET_LIVE = (
    select(*_LIVE)
    .join(Account, Account.id == Session.account_id)
    .where(Session.token_hash == bindparam("token_hash"), *_GOOD)
    .execution_options(across_tenants=True)
)


async def get_session_by_token_hash(
    db: Executor, *, token_hash: bytes, use_written_after: timedelta = timedelta(minutes=1)
) -> LiveSession | None:
    """None if there is none, if it is revoked or expired, or if its account is banned or deleted."""
    row = await db.fetch_one(_GET_LIVE, token_hash=token_hash, use_written_after=use_written_after)
    return LiveSession._make(row) if row is not None else None


_LIST_LIVE = (
    select(*_LIVE, Session.token_hash)
    .join(Account, Account.id == Session.account_id)
    .where(Session.token_hash == any_(bindparam("token_hashes", type_=ARRAY(LargeBinary))), *_GOOD)
    .execution_options(across_tenants=True)
)


async def list_live_sessions(
    db: Executor, *, token_hashes: Sequence[bytes], use_written_after: timedelta = timedelta(minutes=1)
) -> dict[bytes, LiveSession]:
    """Those that are good now, by token hash."""
    rows = await db.fetch_all(_LIST_LIVE, token_hashes=list(token_hashes), use_written_after=use_written_after)
    return {row.token_hash: LiveSession._make(row[:-1]) for row in rows}


_named_organization = bindparam("organization_id", type_=Uuid)
_GET_ACTED_IN = (
    select(
        Session.authenticated_at,
        Session.expires_at,
        Session.idle_expires_at,
        role_in(_named_organization, Session.account_id).label("role"),
        permissions_in(_named_organization, Session.account_id).label("permissions"),
    )
    .join(Account, Account.id == Session.account_id)
    .where(*_THIS, Session.impersonator_id.is_(None), *_GOOD)
    .execution_options(across_tenants=True)
)


async def get_acted_session(
    db: Executor, *, session_id: UUID, account_id: UUID, organization_id: UUID | None
) -> ActedSession | None:
    """None if a service cannot act in it: it is not good now, or an administrator acts in it as somebody already."""
    row = await db.fetch_one(
        _GET_ACTED_IN, session_id=session_id, account_id=account_id, organization_id=organization_id
    )
    return ActedSession._make(row) if row is not None else None


# A row that somebody has locked is left alone: whoever else writes down that the session was used does it for all, and
# who revokes it does not want it used. So no call waits for another's transaction.
_due = (
    select(Session.id)
    .where(Session.id == bindparam("session_id"), Session.revoked_at.is_(None), *_UNEXPIRED, _USE_IS_DUE)
    .with_for_update(key_share=True, skip_locked=True)
    .scalar_subquery()
)
_UPDATE_USE = (
    update(Session)
    .where(Session.id == _due)
    .values(last_used_at=func.now(), idle_expires_at=_IDLE_EXPIRY)
    .returning(Session.idle_expires_at)
)


async def update_session_use(
    db: Executor, *, session_id: UUID, idle_lifetime: timedelta, use_written_after: timedelta = timedelta(minutes=1)
) -> datetime | None:
    """Writes down that it is used now, and answers until when it may idle. None, and nothing is written, if that was
    done less than `use_written_after` ago or is being done, or if the session is over."""
    return await db.fetch_one(
        _UPDATE_USE, session_id=session_id, idle_lifetime=idle_lifetime, use_written_after=use_written_after
    )


_GET = select(Session).where(*_THIS)


async def get_session(db: Executor, *, session_id: UUID, account_id: UUID) -> Session | None:
    """Also if it is over."""
    return await db.fetch_one(_GET, session_id=session_id, account_id=account_id)


# What came first is what ended it: an expired session may be revoked too, with all others of its account.
_end = func.least(Session.expires_at, Session.idle_expires_at)
_STATUS = case(
    (_end <= func.coalesce(Session.revoked_at, func.now()), "expired"),
    (Session.revoked_at.is_not(None), "revoked"),
    else_="active",
).label("status")
_GET_WITH_STATUS = select(Session, _STATUS).where(*_THIS)


async def get_session_with_status(db: Executor, *, session_id: UUID, account_id: UUID) -> SessionWithStatus | None:
    """Also if it is over."""
    row = await db.fetch_one(_GET_WITH_STATUS, session_id=session_id, account_id=account_id)
    return SessionWithStatus(row[0], cast(Status, row[1])) if row is not None else None


_LISTING: Final = Listing[Row[Session, str]](
    select(Session, _STATUS).where(Session.account_id == bindparam("account_id")),
    id=Session.id,
    orders={"created_at": Session.created_at},
    filters={"active": and_(Session.revoked_at.is_(None), *_UNEXPIRED)},
)


async def list_sessions(
    db: Executor, *, account_id: UUID, page: Page, show_ended: bool = False
) -> list[SessionWithStatus]:
    rows = await _LISTING.fetch(db, page, filters={"active": not show_ended}, account_id=account_id)
    return [SessionWithStatus(session, cast(Status, status)) for session, status in rows]


def _notice(session_id: ColumnElement[UUID] | InstrumentedAttribute[UUID]) -> Label[None]:
    """Part of the statement: it goes out when the change is committed, and not if it is rolled back."""
    return func.pg_notify(REVOKED_CHANNEL, sql_cast(session_id, Text)).label("notice")


_renewed = aliased(
    Session,
    update(Session)
    .where(
        *_THIS,
        Session.authenticated_at == bindparam("seen_authenticated_at"),
        Session.revoked_at.is_(None),
        *_UNEXPIRED,
    )
    .values(
        token_hash=bindparam("new_token_hash"),
        authenticated_at=func.now(),
        last_used_at=func.now(),
        idle_expires_at=_IDLE_EXPIRY,
    )
    .returning(Session)
    .cte(),
    name="renewed",
)
_UPDATE_TOKEN = select(_renewed, _notice(_renewed.id))


async def update_session_token(
    db: Executor,
    *,
    session_id: UUID,
    account_id: UUID,
    authenticated_at: datetime,
    token_hash: bytes,
    idle_lifetime: timedelta,
) -> Session | None:
    """The session, whose owner has authenticated anew and which another token finds from now on. None if it is over, or
    if its owner has authenticated since `authenticated_at`: then the token that was seen with it is not good any more."""
    row = await db.fetch_one(
        _UPDATE_TOKEN,
        session_id=session_id,
        account_id=account_id,
        seen_authenticated_at=authenticated_at,
        new_token_hash=token_hash,
        idle_lifetime=idle_lifetime,
    )
    return row[0] if row is not None else None


_UPDATE_ORGANIZATION = (
    update(Session)
    .where(*_THIS, Session.revoked_at.is_(None), *_UNEXPIRED)
    .values(active_organization_id=bindparam("organization_id", type_=Uuid))
    .returning(Session.id, _notice(Session.id))
)


async def update_session_organization(
    db: Executor, *, session_id: UUID, account_id: UUID, organization_id: UUID | None
) -> bool:
    """Makes the organization, or none, the active one. False if the session is over. Whether its owner belongs to the
    organization is asked at each call, and not here."""
    return (
        await db.fetch_one(
            _UPDATE_ORGANIZATION, session_id=session_id, account_id=account_id, organization_id=organization_id
        )
        is not None
    )


# Also those that have expired: a lookup that began before may be about to put that off.
_UNREVOKED = update(Session).where(Session.account_id == bindparam("account_id"), Session.revoked_at.is_(None))
_REVOKE = (
    _UNREVOKED.where(Session.id == bindparam("session_id"))
    .values(revoked_at=func.now())
    .returning(Session.id, _notice(Session.id))
)
_ACTS_AS_SOMEBODY = Session.impersonator_id == bindparam("account_id")
_REVOKE_ALL = (
    update(Session)
    .where(
        or_(Session.account_id == bindparam("account_id"), _ACTS_AS_SOMEBODY),
        Session.revoked_at.is_(None),
        Session.id.is_distinct_from(bindparam("kept_id", type_=Uuid)),
    )
    .values(revoked_at=func.now())
    .returning(Session.id, (_end > func.now()).label("was_good"), _notice(Session.id))
)
_REVOKE_IMPERSONATIONS = (
    update(Session)
    .where(
        or_(
            and_(Session.account_id == bindparam("account_id"), Session.impersonator_id.is_not(None)), _ACTS_AS_SOMEBODY
        ),
        Session.revoked_at.is_(None),
    )
    .values(revoked_at=func.now())
    .returning(_notice(Session.id))
)


async def revoke_session(db: Executor, *, session_id: UUID, account_id: UUID) -> UUID | None:
    """Its id. None if the account has no such session, or it is revoked already."""
    row = await db.fetch_one(_REVOKE, session_id=session_id, account_id=account_id)
    return row.id if row is not None else None


async def revoke_sessions_of_account(db: Executor, *, account_id: UUID, but: UUID | None = None) -> list[UUID]:
    """Those, too, in which it acts as somebody. The ids of those that were still good."""
    return [row.id for row in await db.fetch_all(_REVOKE_ALL, account_id=account_id, kept_id=but) if row.was_good]


async def revoke_impersonations(db: Executor, *, account_id: UUID) -> None:
    """Those in which it acts as somebody, and those in which somebody acts as it."""
    await db.fetch_all(_REVOKE_IMPERSONATIONS, account_id=account_id)


_NOTIFY_ACCOUNT = select(func.pg_notify(REVOKED_CHANNEL, bindparam("account_id", type_=Text)))


async def notify_account_changed(db: Executor, *, account_id: UUID) -> None:
    """Tells every process, once the transaction is committed, that the account is let in no more, or may do something
    else now: of its sessions, of its API keys, and of whatever else stands for it."""
    await db.execute(_NOTIFY_ACCOUNT, account_id=str(account_id))
