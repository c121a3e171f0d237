"""The sessions that accounts sign in to."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.schema.shared import CreatedAt, Id, Model


class Session(Model):
    """Never changed but for its end: `expires_at` is set once, `revoked_at` by signing out."""

    __tablename__ = "sessions"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    # SHA-256 of the token; the token itself is kept nowhere.
    token_hash: Mapped[bytes] = mapped_column(unique=True, info={"sensitive": True})
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    peer: Mapped[str | None]
    user_agent: Mapped[str | None]

    __table_args__ = (CheckConstraint("octet_length(token_hash) = 32", name="token_hash_is_sha256"),)
