"""Queries of invitations. The database's clock decides whether one is open.

Code that creates or ends an invitation first locks its organization.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Literal, NamedTuple, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    select,
    update,
)

from accord_db.engine.database import Executor
from accord_db.engine.dml import parameters
from accord_db.engine.expressions import interval
from accord_db.engine.folding import EmailAddress
from accord_db.engine.keyset import Listing, Page
from accord_db.queries.accounts import has_email, is_active
from accord_db.schema import Account, Invitation, Member, Organization

Outcome = Literal["accepted", "declined", "cancelled"]
Status = Literal["pending", "accepted", "declined", "cancelled", "expired"]


class InvitationWithStatus(NamedTuple):
    invitation: Invitation
    status: Status


class ReceivedInvitation(NamedTuple):
    """As the invited person sees it."""

    invitation: Invitation
    organization_name: str
    inviter_name: str


class OpenInvitation(NamedTuple):
    """`inviter_is_active`: the inviter is neither banned nor deleted."""

    invitation: Invitation
    inviter_is_active: bool


_OF_ORGANIZATION = Invitation.organization_id == bindparam("organization_id")
_OPEN = (Invitation.ended_at.is_(None), Invitation.expires_at > func.now())
# With the collation of the index.
_HAS_EMAIL = Invitation.email.collate("C") == bindparam("email", type_=EmailAddress)
# Of the invited person, whichever organization is active: the person is not a member yet.
_RECEIVED = (
    _HAS_EMAIL,
    *_OPEN,
    Organization.deleted_at.is_(None),
)
_STATUS: ColumnElement[str] = func.coalesce(
    Invitation.outcome, case((Invitation.expires_at > func.now(), "pending"), else_="expired")
).label("status")

_INSERT = (
    insert(Invitation)
    .values(
        **parameters(Invitation, "id", "organization_id", "email", "role", "role_ids", "token_hash", "created_by"),
        expires_at=func.now() + interval("lifetime"),
    )
    .returning(Invitation)
)


async def insert_invitation(
    db: Executor,
    *,
    invitation_id: UUID,
    organization_id: UUID,
    email: str,
    role: str | None,
    role_ids: Sequence[UUID] = (),
    token_hash: bytes,
    created_by: UUID,
    lifetime: timedelta,
) -> Invitation:
    invitation = await db.fetch_one(
        _INSERT,
        id=invitation_id,
        organization_id=organization_id,
        email=email,
        role=role,
        role_ids=list(role_ids),
        token_hash=token_hash,
        created_by=created_by,
        lifetime=lifetime,
    )
    assert invitation is not None
    return invitation


_GET = select(Invitation, _STATUS).where(Invitation.id == bindparam("invitation_id"), _OF_ORGANIZATION)


async def get_invitation(db: Executor, *, invitation_id: UUID, organization_id: UUID) -> InvitationWithStatus | None:
    """Also an ended or expired one."""
    row = await db.fetch_one(_GET, invitation_id=invitation_id, organization_id=organization_id)
    return InvitationWithStatus(row[0], cast(Status, row[1])) if row is not None else None


# Locks only the organization, which code that cancels an invitation locks first, too.
_LOCK_RECEIVED = (
    select(Invitation, and_(*is_active(Account)).label("inviter_is_active"))
    .join(Organization, Organization.id == Invitation.organization_id)
    .join(Account, Account.id == Invitation.created_by)
    .where(*_RECEIVED)
    .with_for_update(key_share=True, of=Organization)
    .execution_options(across_tenants=True)
)
_GET_OPEN_LOCKED = _LOCK_RECEIVED.where(Invitation.token_hash == bindparam("token_hash"))
_GET_RECEIVED_LOCKED = _LOCK_RECEIVED.where(Invitation.id == bindparam("invitation_id"))


async def get_open_invitation_locked(db: Executor, *, token_hash: bytes, email: str) -> OpenInvitation | None:
    """Locks its organization. None if none exists for this address, it is ended or expired, or its organization is deleted.
    While this waited for the lock, the invitation may have ended: then `end_invitation` returns False."""
    row = await db.fetch_one(_GET_OPEN_LOCKED, token_hash=token_hash, email=email)
    return OpenInvitation(row[0], row[1]) if row is not None else None


async def get_received_invitation_locked(db: Executor, *, invitation_id: UUID, email: str) -> OpenInvitation | None:
    """As `get_open_invitation_locked`, by id."""
    row = await db.fetch_one(_GET_RECEIVED_LOCKED, invitation_id=invitation_id, email=email)
    return OpenInvitation(row[0], row[1]) if row is not None else None


_RECEIVED_LISTING: Final = Listing[Row[Invitation, str, str]](
    select(Invitation, Organization.name, Account.display_name)
    .join(Organization, Organization.id == Invitation.organization_id)
    .join(Account, Account.id == Invitation.created_by)
    .where(*_RECEIVED, *is_active(Account))
    .execution_options(across_tenants=True),
    id=Invitation.id,
    orders={"created_at": Invitation.created_at},
)


async def list_received_invitations(db: Executor, *, email: str, page: Page) -> list[ReceivedInvitation]:
    """Pending invitations of the address, of all organizations that are not deleted, by inviters who are active."""
    return [ReceivedInvitation._make(row) for row in await _RECEIVED_LISTING.fetch(db, page, email=email)]


_LISTING: Final = Listing[Row[Invitation, str]](
    select(Invitation, _STATUS).where(_OF_ORGANIZATION),
    id=Invitation.id,
    orders={"created_at": Invitation.created_at},
    filters={"open": and_(*_OPEN)},
)


async def list_invitations(
    db: Executor, *, organization_id: UUID, page: Page, show_ended: bool = False
) -> list[InvitationWithStatus]:
    rows = await _LISTING.fetch(db, page, filters={"open": not show_ended}, organization_id=organization_id)
    return [InvitationWithStatus(invitation, cast(Status, status)) for invitation, status in rows]


_COUNT_OPEN = select(func.count()).select_from(Invitation).where(_OF_ORGANIZATION, *_OPEN)


async def count_open_invitations(db: Executor, *, organization_id: UUID) -> int:
    return await db.fetch_one(_COUNT_OPEN, organization_id=organization_id) or 0


_IS_INVITED = select(exists().where(_OF_ORGANIZATION, _HAS_EMAIL, *_OPEN))


async def is_invited(db: Executor, *, organization_id: UUID, email: str) -> bool:
    return await db.fetch_one(_IS_INVITED, organization_id=organization_id, email=email) is True


_IS_MEMBER = select(
    exists().where(
        Member.organization_id == bindparam("organization_id"),
        Member.account_id == Account.id,
        has_email,
        Account.deleted_at.is_(None),
    )
)


async def is_member(db: Executor, *, organization_id: UUID, email: str) -> bool:
    """Whether an account with the address, verified or not, and not deleted, is a member."""
    return await db.fetch_one(_IS_MEMBER, organization_id=organization_id, email=email) is True


_END = (
    update(Invitation)
    .where(Invitation.id == bindparam("invitation_id"), _OF_ORGANIZATION, *_OPEN)
    .values(ended_at=func.now(), outcome=bindparam("new_outcome"))
)


async def end_invitation(db: Executor, *, invitation_id: UUID, organization_id: UUID, outcome: Outcome) -> bool:
    """Ends an open invitation. Of concurrent callers one gets True."""
    ended = await db.execute(_END, invitation_id=invitation_id, organization_id=organization_id, new_outcome=outcome)
    return ended == 1


_CANCEL_OF_MEMBER = (
    update(Invitation)
    .where(_OF_ORGANIZATION, Invitation.created_by == bindparam("inviter_id"), *_OPEN)
    .values(ended_at=func.now(), outcome="cancelled")
)


async def cancel_invitations_of_member(db: Executor, *, organization_id: UUID, created_by: UUID) -> int:
    """Cancels the open invitations that the member sent for the organization. Returns how many."""
    return await db.execute(_CANCEL_OF_MEMBER, organization_id=organization_id, inviter_id=created_by)
