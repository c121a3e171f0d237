"""Queries of organizations. The member is part of what a member reads: to others the organization does not exist.

Code that changes the members, roles or keys of an organization first locks it, and calls `notify_organization_changed`. Code
that also locks an account locks the account first.
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
    """The columns to change."""

    name: str
    slug: str


class OrganizationWithRole(NamedTuple):
    """`role` is the account's built-in role; None if it has only custom roles."""

    organization: Organization
    role: str | None


_ANY = Organization.id == bindparam("organization_id")
_ALIVE = Organization.deleted_at.is_(None)
_UNCHANGED = etag_matches(Organization)

_INSERT = (
    insert(Organization)
    .values(
        **parameters(Organization, "id", "name", "slug"),
    )
    .on_conflict_do_nothing(index_elements=[Organization.slug], index_where=_ALIVE)
    .returning(Organization)
)


async def insert_organization(db: Executor, *, organization_id: UUID, name: str, slug: str) -> Organization | None:
    """An organization without members. None if another organization, not deleted, has the slug."""
    return await db.fetch_one(_INSERT, id=organization_id, name=name, slug=slug)


_OF_MEMBER = (
    select(Organization, Member.role)
    .join(Member, Member.organization_id == Organization.id)
    .where(Member.account_id == bindparam("account_id"))
    .execution_options(across_tenants=True)
)
_GET = _OF_MEMBER.where(_ANY, _ALIVE)


async def get_organization(db: Executor, *, organization_id: UUID, account_id: UUID) -> OrganizationWithRole | None:
    """None also if the account is no member."""
    row = await db.fetch_one(_GET, organization_id=organization_id, account_id=account_id)
    return OrganizationWithRole._make(row) if row is not None else None


_GET_ANY_LOCKED = select(Organization).where(_ANY).with_for_update(key_share=True)
_GET_LOCKED = _GET_ANY_LOCKED.where(_ALIVE)


async def get_organization_locked(
    db: Executor, *, organization_id: UUID, show_deleted: bool = False
) -> Organization | None:
    """Locks the organization, its members and its roles until the transaction ends. Does not check membership."""
    return await db.fetch_one(_GET_ANY_LOCKED if show_deleted else _GET_LOCKED, organization_id=organization_id)


_LISTING: Final = Listing[Row[Organization, str | None]](
    _OF_MEMBER,
    id=Organization.id,
    orders={"created_at": Organization.created_at},
    filters={"only": Organization.id == bindparam("only"), "alive": _ALIVE},
)


async def list_organizations(
    db: Executor, *, account_id: UUID, page: Page, only: UUID | None = None, show_deleted: bool = False
) -> list[OrganizationWithRole]:
    """The organizations of the account. `only` limits the list to one id."""
    rows = await _LISTING.fetch(db, page, filters={"only": only, "alive": not show_deleted}, account_id=account_id)
    return [OrganizationWithRole._make(row) for row in rows]


_CURRENT: Final = (_ANY, _ALIVE, _UNCHANGED)


async def update_organization(
    db: Executor, *, organization_id: UUID, changes: OrganizationChanges, etag: UUID | None = None
) -> Organization | None:
    """The changed organization. None if it does not exist or has another etag. Raises AlreadyExists if another organization,
    not deleted, has the slug."""
    return await update_row(db, Organization, _CURRENT, changes, organization_id=organization_id, seen_etag=etag)


_DELETE = update(Organization).where(*_CURRENT).values(deleted_at=func.now()).returning(Organization)


async def delete_organization(db: Executor, *, organization_id: UUID, etag: UUID | None = None) -> Organization | None:
    """The softly deleted organization. None if it does not exist or has another etag."""
    return await db.fetch_one(_DELETE, organization_id=organization_id, seen_etag=etag)


_UNDELETE = (
    update(Organization)
    # Not now(), the start of the transaction: it may have waited for the clean-up, which deletes rows of this organization.
    .where(_ANY, Organization.deleted_at > func.clock_timestamp() - interval("deleted_kept"))
    .values(deleted_at=None)
    .returning(Organization)
)


async def undelete_organization(db: Executor, *, organization_id: UUID, deleted_kept: timedelta) -> Organization | None:
    """The restored organization. None if it does not exist, is not deleted, or was deleted longer than `deleted_kept` ago:
    then the clean-up may have deleted rows of it. Raises AlreadyExists if another organization, not deleted, has the slug."""
    return await db.fetch_one(_UNDELETE, organization_id=organization_id, deleted_kept=deleted_kept)


_NOTIFY_CHANGED = select(func.pg_notify(REVOKED_CHANNEL, cast(bindparam("organization_id"), Text)))


async def notify_organization_changed(db: Executor, *, organization_id: UUID) -> None:
    """Notifies every process, at commit, that members or permissions of the organization have changed."""
    await db.execute(_NOTIFY_CHANGED, organization_id=str(organization_id))
