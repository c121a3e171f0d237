"""Queries of API keys. The owner, an organization or an account, is part of each, except the lookup by hash, which finds it.

Code that creates or changes a key first locks its owner, and notifies every process that the owner has changed.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    DateTime,
    Integer,
    LargeBinary,
    and_,
    bindparam,
    case,
    column,
    func,
    null,
    or_,
    select,
    true,
    update,
)

from accord_db.engine.database import Executor
from accord_db.engine.dml import etag_matches, insert_row, update_row
from accord_db.engine.expressions import interval
from accord_db.engine.keyset import Listing, Page
from accord_db.queries.accounts import is_active
from accord_db.queries.members import permissions_in
from accord_db.schema import Account, ApiKey, Member, Organization


class LiveApiKey(NamedTuple):
    """A valid key, and its creator's role and permissions in the organization; None and empty for a personal key. `valid_until`
    belongs to the secret that was looked up, which may be the one before a rotation. `use_is_due` if the recorded last use is older than
    `use_recorded_every`."""

    id: UUID
    organization_id: UUID | None
    created_by: UUID
    scopes: list[str]
    calls_per_minute: int | None
    created_at: datetime
    valid_until: datetime | None
    use_is_due: bool
    role: str | None
    permissions: list[str]


class ApiKeyChanges(TypedDict, total=False):
    """The columns to change."""

    name: str
    scopes: list[str]
    calls_per_minute: int | None
    expires_at: datetime | None


_OWNED = ApiKey.owner_id == bindparam("owner_id")
_THIS = (ApiKey.id == bindparam("api_key_id"), _OWNED)
_UNREVOKED = ApiKey.revoked_at.is_(None)
_UNEXPIRED = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
_UNCHANGED = etag_matches(ApiKey)
_USE_IS_DUE = func.coalesce(ApiKey.last_used_at <= func.now() - interval("use_recorded_every"), true())

_hashes = (
    func.unnest(bindparam("key_hashes", type_=ARRAY(LargeBinary)))
    .table_valued(column("key_hash", LargeBinary), name="hashes")
    .render_derived()
)
_by_previous = and_(ApiKey.previous_key_hash == _hashes.c.key_hash, ApiKey.previous_expires_at > func.now())
_LIST_LIVE = (
    select(
        ApiKey.id,
        ApiKey.organization_id,
        ApiKey.created_by,
        ApiKey.scopes,
        ApiKey.calls_per_minute,
        ApiKey.created_at,
        # LEAST ignores NULL.
        func.least(
            ApiKey.expires_at, case((_by_previous, ApiKey.previous_expires_at), else_=null()), type_=DateTime(True)
        ).label("valid_until"),
        _USE_IS_DUE.label("use_is_due"),
        Member.role,
        permissions_in(ApiKey.organization_id, ApiKey.created_by).label("permissions"),
        _hashes.c.key_hash,
    )
    .select_from(_hashes)
    .join(ApiKey, or_(ApiKey.key_hash == _hashes.c.key_hash, _by_previous))
    .outerjoin(Member, (Member.organization_id == ApiKey.organization_id) & (Member.account_id == ApiKey.created_by))
    .outerjoin(Organization, Organization.id == ApiKey.organization_id)
    .join(Account, Account.id == ApiKey.created_by)
    .where(
        _UNREVOKED,
        _UNEXPIRED,
        *is_active(Account),
        # The creator is still a member of the organization, which is not deleted.
        or_(
            ApiKey.organization_id.is_(None),
            and_(Member.account_id.is_not(None), Organization.id.is_not(None), Organization.deleted_at.is_(None)),
        ),
    )
    .execution_options(across_tenants=True)
)


async def list_live_api_keys(
    db: Executor, *, key_hashes: Sequence[bytes], use_recorded_every: timedelta = timedelta(minutes=1)
) -> dict[bytes, LiveApiKey]:
    """The valid keys among these, by the hash that was passed."""
    rows = await db.fetch_all(_LIST_LIVE, key_hashes=list(key_hashes), use_recorded_every=use_recorded_every)
    return {row.key_hash: LiveApiKey._make(row[:-1]) for row in rows}


# A locked row is skipped: either another call records the use, or the key is being changed or revoked, and no call waits for
# that. `updated_at` and `etag` keep their values, because use is not a change of the key.
_due = (
    select(ApiKey.id)
    .where(ApiKey.id == bindparam("api_key_id"), _UNREVOKED, _USE_IS_DUE)
    .with_for_update(key_share=True, skip_locked=True)
    .scalar_subquery()
)
_UPDATE_USE = (
    update(ApiKey)
    .where(ApiKey.id == _due)
    .values(last_used_at=func.now(), updated_at=ApiKey.updated_at, etag=ApiKey.etag)
    .execution_options(across_tenants=True)
)


async def update_api_key_use(
    db: Executor, *, api_key_id: UUID, use_recorded_every: timedelta = timedelta(minutes=1)
) -> int:
    """Records that the key is used now. Writes nothing and returns 0 if that happened less than `use_recorded_every` ago, or
    happens at the same time."""
    return await db.execute(_UPDATE_USE, api_key_id=api_key_id, use_recorded_every=use_recorded_every)


async def insert_api_key(
    db: Executor,
    *,
    api_key_id: UUID,
    organization_id: UUID | None,
    created_by: UUID,
    name: str,
    prefix: str,
    key_hash: bytes,
    scopes: Sequence[str],
    calls_per_minute: int | None = None,
    expires_at: datetime | None = None,
) -> ApiKey:
    """`organization_id` None: a personal key of the creator."""
    return await insert_row(
        db,
        ApiKey,
        id=api_key_id,
        organization_id=organization_id,
        created_by=created_by,
        name=name,
        prefix=prefix,
        key_hash=key_hash,
        scopes=list(scopes),
        calls_per_minute=calls_per_minute,
        expires_at=expires_at,
    )


_GET = select(ApiKey).where(*_THIS)


async def get_api_key(db: Executor, *, api_key_id: UUID, owner_id: UUID) -> ApiKey | None:
    """Also a revoked or expired one."""
    return await db.fetch_one(_GET, api_key_id=api_key_id, owner_id=owner_id)


_COUNT = select(func.count()).select_from(ApiKey).where(_OWNED, _UNREVOKED)


async def count_api_keys(db: Executor, *, owner_id: UUID) -> int:
    """Keys that are not revoked. Expired ones count."""
    return await db.fetch_one(_COUNT, owner_id=owner_id) or 0


_LISTING: Final = Listing[ApiKey](
    select(ApiKey).where(_OWNED),
    id=ApiKey.id,
    orders={"created_at": ApiKey.created_at},
    filters={"active": and_(_UNREVOKED, _UNEXPIRED)},
)


async def list_api_keys(db: Executor, *, owner_id: UUID, page: Page, show_ended: bool = False) -> list[ApiKey]:
    return await _LISTING.fetch(db, page, filters={"active": not show_ended}, owner_id=owner_id)


_CURRENT: Final = (*_THIS, _UNREVOKED, _UNCHANGED)


async def update_api_key(
    db: Executor, *, api_key_id: UUID, owner_id: UUID, changes: ApiKeyChanges, etag: UUID | None = None
) -> ApiKey | None:
    """The changed key. None if it does not exist, is revoked or has another etag."""
    return await update_row(db, ApiKey, _CURRENT, changes, api_key_id=api_key_id, owner_id=owner_id, seen_etag=etag)


# Without an overlap the previous secret is removed at once.
_OVERLAPS = bindparam("overlaps", type_=Integer) == 1
_ROTATE = (
    update(ApiKey)
    .where(*_THIS, _UNREVOKED, _UNEXPIRED, ApiKey.etag == bindparam("seen_etag"))
    .values(
        key_hash=bindparam("new_key_hash"),
        prefix=bindparam("new_prefix"),
        previous_key_hash=case((_OVERLAPS, ApiKey.key_hash), else_=null()),
        previous_expires_at=case((_OVERLAPS, func.now() + interval("overlap")), else_=null()),
    )
    .returning(ApiKey)
)


async def rotate_api_key(
    db: Executor,
    *,
    api_key_id: UUID,
    owner_id: UUID,
    etag: UUID,
    prefix: str,
    key_hash: bytes,
    overlap: timedelta,
) -> ApiKey | None:
    """The key with its new secret. The secret that it replaces stays valid for the overlap; an older one does not. None if
    the key does not exist, is revoked or expired, or has another etag."""
    return await db.fetch_one(
        _ROTATE,
        api_key_id=api_key_id,
        owner_id=owner_id,
        seen_etag=etag,
        new_prefix=prefix,
        new_key_hash=key_hash,
        overlap=overlap,
        overlaps=int(overlap > timedelta(0)),
    )


_REVOKE = update(ApiKey).where(*_THIS, _UNREVOKED).values(revoked_at=func.now()).returning(ApiKey)


async def revoke_api_key(db: Executor, *, api_key_id: UUID, owner_id: UUID) -> ApiKey | None:
    """The revoked key. None if it does not exist or was already revoked."""
    return await db.fetch_one(_REVOKE, api_key_id=api_key_id, owner_id=owner_id)


_OF_ORGANIZATION = ApiKey.organization_id == bindparam("organization_id")
_REVOKE_OF_MEMBER = (
    update(ApiKey)
    .where(_OF_ORGANIZATION, ApiKey.created_by == bindparam("created_by"), _UNREVOKED)
    .values(revoked_at=func.now())
)


async def revoke_api_keys_of_member(db: Executor, *, organization_id: UUID, created_by: UUID) -> int:
    """Revokes the keys that the member created in the organization. Returns how many were not revoked before."""
    return await db.execute(_REVOKE_OF_MEMBER, organization_id=organization_id, created_by=created_by)
