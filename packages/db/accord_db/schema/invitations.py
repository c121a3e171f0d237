"""Invitations of an e-mail address to an organization."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.folding import EmailAddress
from accord_db.engine.model import CreatedAt, Id, Model


class Invitation(Model):
    """Open until the earlier of `expires_at` and `ended_at`."""

    __tablename__ = "invitations"

    id: Mapped[Id]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    email: Mapped[str] = mapped_column(EmailAddress)
    # The roles of the new member, as in `members` and `member_roles`.
    role: Mapped[str | None]
    role_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    token_hash: Mapped[bytes] = mapped_column(unique=True, info={"sensitive": True})
    created_by: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]
    # accepted, declined or cancelled.
    outcome: Mapped[str | None]

    __table_args__ = (
        CheckConstraint('email = lower(email COLLATE "C")', name="email_is_folded"),
        CheckConstraint("role IN ('owner', 'admin', 'member')", name="role_is_built_in"),
        CheckConstraint("outcome IN ('accepted', 'declined', 'cancelled')", name="outcome_is_known"),
        CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended_somehow"),
        CheckConstraint("octet_length(token_hash) = 32", name="token_hash_is_sha256"),
        Index("ix_invitations_organization_id_created_at_id", "organization_id", "created_at", "id"),
    )


# For the list of the invited person. In the collation "C", whose order no update of a library changes.
Index(
    "ix_invitations_folded_email_pending",
    Invitation.email.collate("C"),
    postgresql_where=Invitation.ended_at.is_(None),
)
