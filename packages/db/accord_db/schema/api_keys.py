"""API keys of organizations and accounts."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Computed, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import CreatedAt, Id, Model, UpdatedAt, Versioned


class ApiKey(Versioned, Model):
    """Grants its scopes, limited to the permissions that its creator has at the time of the call: in the organization, or
    without one, on the creator's own data. Valid until the earlier of
    `expires_at` and `revoked_at`; the secret before a rotation also ends at `previous_expires_at`."""

    __tablename__ = "api_keys"

    id: Mapped[Id]
    organization_id: Mapped[UUID | None] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    created_by: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    # The organization; without one, the creator.
    owner_id: Mapped[UUID] = mapped_column(Computed("coalesce(organization_id, created_by)", persisted=True))
    name: Mapped[str] = mapped_column(String(100))
    # The first characters, shown so that users recognize a key.
    prefix: Mapped[str] = mapped_column(String(12))
    # SHA-256. The key itself is not stored.
    key_hash: Mapped[bytes] = mapped_column(unique=True, info={"sensitive": True})
    previous_key_hash: Mapped[bytes | None] = mapped_column(unique=True, info={"sensitive": True})
    previous_expires_at: Mapped[datetime | None]
    # Names of permissions in the contract.
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    # Over all methods. None: only the limits of the methods apply.
    calls_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("char_length(name) >= 1", name="name_not_empty"),
        CheckConstraint("octet_length(key_hash) = 32", name="key_hash_is_sha256"),
        CheckConstraint("octet_length(previous_key_hash) = 32", name="previous_key_hash_is_sha256"),
        CheckConstraint("(previous_key_hash IS NULL) = (previous_expires_at IS NULL)", name="previous_expires"),
        CheckConstraint("calls_per_minute >= 1", name="calls_per_minute_positive"),
        Index("ix_api_keys_owner_id_created_at_id", "owner_id", "created_at", "id"),
        # For the foreign key, and the queries of the release before.
        Index("ix_api_keys_organization_id_created_at_id", "organization_id", "created_at", "id"),
        # For the clean-up. Most keys have neither time.
        Index("ix_api_keys_expires_at", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
        Index("ix_api_keys_revoked_at", "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
    )
