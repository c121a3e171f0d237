"""Questions about organizations. Whose they are is part of what people ask: to anybody else one is not there.

Whoever changes who belongs to an organization, or what somebody may do there, locks it first and tells of it by
`notify_changed`. Who needs the lock of an account too takes that before.
"""

from datetime import timedelta
from typing import Final, NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import Row, Text, bindparam, cast, func, select, update
from sqlalchemy.dialects.postgresql import insert

from accord_db.engine.database import Executor
from accord_db.engine.dml import etag_matches, parameters, update_row
from accord_db.engine.expressions import interval
from accord_db.engine.keyset import Listing, Page
from accord_db.queries.sessions import REVOKED_CHANNEL
from accord_db.schema import Member, Organization


class OrganizationChanges(TypedDict, total=False):
    """What is not there is left as it is."""

    name: str
    slug: str


class OrganizationWithRole(NamedTuple):
    """With the built-in role of whoever asked; None if they have none."""

    organization: Organization
    role: str | None


_ANY = Organization.id == bindparam("organization_id")
_LIVING = Organization.deleted_at.is_(None)
_UNCHANGED = etag_matches(Organization)

_INSERT = (
    insert(Organization)
    .values(
        **parameters(Organization, "id", "name", "slug"),
    )
    .on_conflict_do_nothing(index_elements=[Organization.slug], index_where=_LIVING)
    .returning(Organization)
)


async def insert_organization(db: Executor, *, organization_id: UUID, name: str, slug: str) -> Organization | None:
    """Without anybody in it. None if a living organization has the slug already."""
    return await db.fetch_one(_INSERT, id=organization_id, name=name, slug=slug)


_OF_MEMBER = (
    select(Organization, Member.role)
    .join(Member, Member.organization_id == Organization.id)
    .where(Member.account_id == bindparam("account_id"))
    .execution_options(across_tenants=True)
)
_GET = _OF_MEMBER.where(_ANY, _LIVING)


async def get_organization(db: Executor, *, organization_id: UUID, account_id: UUID) -> OrganizationWithRole | None:
    """None too if the account is no member of it."""
    row = await db.fetch_one(_GET, organization_id=organization_id, account_id=account_id)
    return OrganizationWithRole._make(row) if row is not None else None


_GET_ANY_LOCKED = select(Organization).where(_ANY).with_for_update(key_share=True)
_GET_LOCKED = _GET_ANY_LOCKED.where(_LIVING)


async def get_organization_locked(
    db: Executor, *, organization_id: UUID, show_deleted: bool = False
) -> Organization | None:
    """Whoever asks. Nobody else changes it, its members or its roles, or locks it, until the transaction ends."""
    return await db.fetch_one(_GET_ANY_LOCKED if show_deleted else _GET_LOCKED, organization_id=organization_id)


_LISTING: Final = Listing[Row[Organization, str | None]](
    _OF_MEMBER,
    id=Organization.id,
    orders={"created_at": Organization.created_at},
    filters={"only": Organization.id == bindparam("only"), "alive": _LIVING},
)


async def list_organizations(
    db: Executor, *, account_id: UUID, page: Page, only: UUID | None = None, show_deleted: bool = False
) -> list[OrganizationWithRole]:
    """The organizations of which the account is a member; at most the one that `only` names."""
    rows = await _LISTING.fetch(db, page, filters={"only": only, "alive": not show_deleted}, account_id=account_id)
    return [OrganizationWithRole._make(row) for row in rows]


_CURRENT: Final = (_ANY, _LIVING, _UNCHANGED)


async def update_organization(
    db: Executor, *, organization_id: UUID, changes: OrganizationChanges, etag: UUID | None = None
) -> Organization | None:
    """The organization as it is now. None if there is none, or if it is no longer the one that `etag` names. Raises
    AlreadyExists if another living one has the slug."""
    return await update_row(db, Organization, _CURRENT, changes, organization_id=organization_id, seen_etag=etag)


_DELETE = update(Organization).where(_ANY, _LIVING, _UNCHANGED).values(deleted_at=func.now()).returning(Organization)


async def delete_organization(db: Executor, *, organization_id: UUID, etag: UUID | None = None) -> Organization | None:
    """The organization, deleted softly. None if there is none, or if it is no longer the one that `etag` names."""
    return await db.fetch_one(_DELETE, organization_id=organization_id, seen_etag=etag)


_UNDELETE = (
    update(Organization)
    # Not the time at which the transaction began: it may have waited for the clean-up, which has begun with this one.
    .where(_ANY, Organization.deleted_at > func.clock_timestamp() - interval("deleted_kept"))
    .values(deleted_at=None)
    .returning(Organization)
)


async def undelete_organization(db: Executor, *, organization_id: UUID, deleted_kept: timedelta) -> Organization | None:
    """The organization, living again. None if there is none, if it is not deleted, or if that was `deleted_kept` ago: then
    parts of it may be gone. Raises AlreadyExists if another living one has the slug by now."""
    return await db.fetch_one(_UNDELETE, organization_id=organization_id, deleted_kept=deleted_kept)


_NOTIFY_CHANGED = select(func.pg_notify(REVOKED_CHANNEL, cast(bindparam("organization_id"), Text)))


async def notify_changed(db: Executor, *, organization_id: UUID) -> None:
    """Tells every process, once the transaction is committed, that people may do something else there now."""
    await db.execute(_NOTIFY_CHANGED, organization_id=str(organization_id))
