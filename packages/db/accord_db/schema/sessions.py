"""Sessions of accounts."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, String, false, func, text
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import CreatedAt, Id, Model
from accord_db.engine.row_level_security import tenant_exempt


class Session(Model):
    """Valid until the earliest of `expires_at`, which is fixed, `idle_expires_at`, which use extends, and `revoked_at`."""

    __tablename__ = "sessions"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    # SHA-256 of the token. The token itself is not stored.
    token_hash: Mapped[bytes] = mapped_column(unique=True, info={"sensitive": True})
    expires_at: Mapped[datetime] = mapped_column(index=True)
    idle_expires_at: Mapped[datetime] = mapped_column(server_default=text("now() + interval '14 days'"))
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # When the owner last authenticated. Methods that require a recent sign-in check it.
    authenticated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]
    # None: the owner acts for no organization. Membership is checked at every call.
    active_organization_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("organizations.id", ondelete="SET NULL"), index=True
    )
    # The owner signed in with a password that an administrator set, and has not changed it yet.
    password_change_required: Mapped[bool] = mapped_column(server_default=false())
    # The administrator who impersonates the account.
    impersonator_id: Mapped[UUID | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    peer: Mapped[str | None]
    user_agent: Mapped[str | None]
    # The name of the provider that the owner signed in with. None after a sign-in with a password, or of a device.
    provider: Mapped[str | None] = mapped_column(String(50))
    # Texts of the client's by name.
    client_metadata: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))

    __table_args__ = (
        CheckConstraint("octet_length(token_hash) = 32", name="token_hash_is_sha256"),
        tenant_exempt("found by its token before the caller is known"),
    )
