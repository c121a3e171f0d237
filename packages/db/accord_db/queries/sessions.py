"""Queries of sessions. Only the database's clock decides whether a session is valid."""

from collections.abc import Mapping, Sequence
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
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import InstrumentedAttribute, aliased
from sqlalchemy.sql.elements import Label

from accord_db.engine.database import Executor
from accord_db.engine.dml import parameters
from accord_db.engine.expressions import interval
from accord_db.engine.keyset import Listing, Page
from accord_db.queries.accounts import is_active
from accord_db.queries.members import permissions_in, role_in
from accord_db.schema import Account, Session

# Caches of credentials listen on it. The payload is the id of a session, API key, account, organization or service account
# that has changed: what is cached of it is no longer valid.
REVOKED_CHANNEL = "accord_sessions"

Status = Literal["active", "expired", "revoked"]


class LiveSession(NamedTuple):
    """A valid session, and its owner's permissions. `use_is_due` if the recorded last use is older than
    `use_recorded_every`."""

    id: UUID
    account_id: UUID
    created_at: datetime
    authenticated_at: datetime
    expires_at: datetime
    idle_expires_at: datetime
    use_is_due: bool
    active_organization_id: UUID | None
    # In the active organization; None and empty if the owner is not, or no longer, a member.
    role: str | None
    permissions: list[str]
    administrator: bool
    impersonator_id: UUID | None
    password_change_required: bool


class DelegatedSession(NamedTuple):
    """A valid session in which a service acts for the owner, and the owner's permissions in the organization of the token,
    which need not be the active one."""

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
# A valid session, both for a new call and for a stream that began earlier.
_impersonator = aliased(Account, name="impersonator")
_VALID = (
    Session.revoked_at.is_(None),
    *_UNEXPIRED,
    *is_active(Account),
    # An impersonator is still an administrator, and the impersonated account is not.
    or_(
        Session.impersonator_id.is_(None),
        and_(
            Account.role != "administrator",
            exists().where(
                _impersonator.id == Session.impersonator_id,
                _impersonator.role == "administrator",
                *is_active(_impersonator),
            ),
        ),
    ),
)
_IDLE_EXPIRY = func.least(Session.expires_at, func.now() + interval("idle_lifetime"))

_INSERT = (
    insert(Session)
    .values(
        **parameters(
            Session,
            "id",
            "account_id",
            "token_hash",
            "peer",
            "user_agent",
            "impersonator_id",
            "provider",
            "password_change_required",
        ),
        expires_at=func.now() + interval("lifetime"),
        # LEAST ignores NULL.
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
    provider: str | None = None,
    password_change_required: bool = False,
) -> Session:
    """Without `idle_lifetime` the session does not expire by idling. `authenticated_at` None: now."""
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
        provider=provider,
        password_change_required=password_change_required,
    )
    assert session is not None
    return session


_USE_IS_DUE = Session.last_used_at <= func.now() - interval("use_recorded_every")

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
    Session.password_change_required,
)
_GET_LIVE = (
    select(*_LIVE)
    .join(Account, Account.id == Session.account_id)
    .where(Session.token_hash == bindparam("token_hash"), *_VALID)
    .execution_options(across_tenants=True)
)


async def get_session_by_token_hash(
    db: Executor, *, token_hash: bytes, use_recorded_every: timedelta = timedelta(minutes=1)
) -> LiveSession | None:
    """None if it does not exist, is revoked or expired, or its account is banned or deleted."""
    row = await db.fetch_one(_GET_LIVE, token_hash=token_hash, use_recorded_every=use_recorded_every)
    return LiveSession._make(row) if row is not None else None


_LIST_LIVE = (
    select(*_LIVE, Session.token_hash)
    .join(Account, Account.id == Session.account_id)
    .where(Session.token_hash == any_(bindparam("token_hashes", type_=ARRAY(LargeBinary))), *_VALID)
    .execution_options(across_tenants=True)
)


async def list_live_sessions(
    db: Executor, *, token_hashes: Sequence[bytes], use_recorded_every: timedelta = timedelta(minutes=1)
) -> dict[bytes, LiveSession]:
    """The valid sessions among these, by token hash."""
    rows = await db.fetch_all(_LIST_LIVE, token_hashes=list(token_hashes), use_recorded_every=use_recorded_every)
    return {row.token_hash: LiveSession._make(row[:-1]) for row in rows}


_named_organization = bindparam("organization_id", type_=Uuid)
_GET_DELEGATED = (
    select(
        Session.authenticated_at,
        Session.expires_at,
        Session.idle_expires_at,
        role_in(_named_organization, Session.account_id).label("role"),
        permissions_in(_named_organization, Session.account_id).label("permissions"),
    )
    .join(Account, Account.id == Session.account_id)
    .where(*_THIS, Session.impersonator_id.is_(None), Session.password_change_required.is_(False), *_VALID)
    .execution_options(across_tenants=True)
)


async def get_delegated_session(
    db: Executor, *, session_id: UUID, account_id: UUID, organization_id: UUID | None
) -> DelegatedSession | None:
    """None if the session is not valid, an administrator impersonates its owner, or the owner must change the password first:
    no service may act in such a session."""
    row = await db.fetch_one(
        _GET_DELEGATED, session_id=session_id, account_id=account_id, organization_id=organization_id
    )
    return DelegatedSession._make(row) if row is not None else None


# A locked row is skipped: either another call records the use, or the session is being revoked. So no call waits for
# another transaction.
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
    db: Executor, *, session_id: UUID, idle_lifetime: timedelta, use_recorded_every: timedelta = timedelta(minutes=1)
) -> datetime | None:
    """Records that the session is used now, and returns the new `idle_expires_at`. Writes nothing and returns None if that
    happened less than `use_recorded_every` ago or happens at the same time, or if the session is revoked or expired."""
    return await db.fetch_one(
        _UPDATE_USE, session_id=session_id, idle_lifetime=idle_lifetime, use_recorded_every=use_recorded_every
    )


_GET = select(Session).where(*_THIS)


async def get_session(db: Executor, *, session_id: UUID, account_id: UUID) -> Session | None:
    """Also a revoked or expired one."""
    return await db.fetch_one(_GET, session_id=session_id, account_id=account_id)


# What happened first counts: revoking all sessions of an account also revokes those that had expired.
_end = func.least(Session.expires_at, Session.idle_expires_at)
_STATUS = case(
    (_end <= func.coalesce(Session.revoked_at, func.now()), "expired"),
    (Session.revoked_at.is_not(None), "revoked"),
    else_="active",
).label("status")
_GET_WITH_STATUS = select(Session, _STATUS).where(*_THIS)


async def get_session_with_status(db: Executor, *, session_id: UUID, account_id: UUID) -> SessionWithStatus | None:
    """Also a revoked or expired one."""
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


def _notification(session_id: ColumnElement[UUID] | InstrumentedAttribute[UUID]) -> Label[None]:
    """Part of the statement: PostgreSQL sends it when the change is committed."""
    return func.pg_notify(REVOKED_CHANNEL, sql_cast(session_id, Text)).label("notification")


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
_UPDATE_TOKEN = select(_renewed, _notification(_renewed.id))


async def update_session_token(
    db: Executor,
    *,
    session_id: UUID,
    account_id: UUID,
    authenticated_at: datetime,
    token_hash: bytes,
    idle_lifetime: timedelta,
) -> Session | None:
    """Records that the owner has authenticated again, and replaces the token. None if the session is revoked or expired, or
    if the owner has authenticated since `authenticated_at`: then the caller's token was replaced."""
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
    .returning(Session.id, _notification(Session.id))
)


async def update_session_organization(
    db: Executor, *, session_id: UUID, account_id: UUID, organization_id: UUID | None
) -> bool:
    """Sets the active organization. False if the session is revoked or expired. Does not check membership: each call
    does."""
    return (
        await db.fetch_one(
            _UPDATE_ORGANIZATION, session_id=session_id, account_id=account_id, organization_id=organization_id
        )
        is not None
    )


_UPDATE_CLIENT_METADATA = (
    update(Session)
    .where(*_THIS, Session.revoked_at.is_(None), *_UNEXPIRED)
    .values(client_metadata=bindparam("new_metadata", type_=JSONB))
    .returning(Session)
)


async def update_client_metadata(
    db: Executor, *, session_id: UUID, account_id: UUID, client_metadata: Mapping[str, str]
) -> Session | None:
    """Replaces the metadata. None if the session is revoked or expired."""
    return await db.fetch_one(
        _UPDATE_CLIENT_METADATA, session_id=session_id, account_id=account_id, new_metadata=dict(client_metadata)
    )


_END_PASSWORD_CHANGE = (
    update(Session)
    .where(*_THIS)
    .values(password_change_required=False)
    .returning(Session.id, _notification(Session.id))
)


async def end_password_change(db: Executor, *, session_id: UUID, account_id: UUID) -> None:
    """The owner has changed the password: the session can call every method, in every process, from the commit on."""
    await db.execute(_END_PASSWORD_CHANGE, session_id=session_id, account_id=account_id)


# Expired sessions too: a concurrent call may be extending the idle expiry.
_UNREVOKED = update(Session).where(Session.account_id == bindparam("account_id"), Session.revoked_at.is_(None))
_REVOKE = (
    _UNREVOKED.where(Session.id == bindparam("session_id"))
    .values(revoked_at=func.now())
    .returning(Session.id, _notification(Session.id))
)
_IS_IMPERSONATOR = Session.impersonator_id == bindparam("account_id")
_REVOKE_ALL = (
    update(Session)
    .where(
        or_(Session.account_id == bindparam("account_id"), _IS_IMPERSONATOR),
        Session.revoked_at.is_(None),
        Session.id.is_distinct_from(bindparam("kept_id", type_=Uuid)),
    )
    .values(revoked_at=func.now())
    .returning(Session.id, (_end > func.now()).label("was_valid"), _notification(Session.id))
)
_REVOKE_IMPERSONATIONS = (
    update(Session)
    .where(
        or_(
            and_(Session.account_id == bindparam("account_id"), Session.impersonator_id.is_not(None)), _IS_IMPERSONATOR
        ),
        Session.revoked_at.is_(None),
    )
    .values(revoked_at=func.now())
    .returning(_notification(Session.id))
)


async def revoke_session(db: Executor, *, session_id: UUID, account_id: UUID) -> UUID | None:
    """The id of the revoked session. None if the account has no such session, or it was already revoked."""
    row = await db.fetch_one(_REVOKE, session_id=session_id, account_id=account_id)
    return row.id if row is not None else None


async def revoke_sessions_of_account(db: Executor, *, account_id: UUID, but: UUID | None = None) -> list[UUID]:
    """Also revokes the sessions in which the account impersonates another. Returns the ids of those that were valid."""
    return [row.id for row in await db.fetch_all(_REVOKE_ALL, account_id=account_id, kept_id=but) if row.was_valid]


async def revoke_impersonations(db: Executor, *, account_id: UUID) -> None:
    """Revokes the sessions in which the account impersonates another or is impersonated."""
    await db.fetch_all(_REVOKE_IMPERSONATIONS, account_id=account_id)


_NOTIFY_ACCOUNT = select(func.pg_notify(REVOKED_CHANNEL, bindparam("account_id", type_=Text)))


async def notify_account_changed(db: Executor, *, account_id: UUID) -> None:
    """Notifies every process, at commit, that the account was banned or deleted, or has other permissions: this concerns its
    sessions, API keys and all its other credentials."""
    await db.execute(_NOTIFY_ACCOUNT, account_id=str(account_id))
