"""Service accounts of the operator, and the keys that sign their tokens."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import CreatedAt, Id, Model, UpdatedAt, Versioned
from accord_db.engine.row_level_security import tenant_exempt


class ServiceAccount(Versioned, Model):
    """A program of the operator. Its id is the `client_id` of OAuth 2.0. After a rotation the previous secret stays valid until
    `previous_expires_at`."""

    __tablename__ = "service_accounts"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(String(63), unique=True)
    # The audiences that its tokens may have (`aud`).
    audiences: Mapped[list[str]] = mapped_column(ARRAY(Text))
    # SHA-256. The secret itself is not stored.
    secret_hash: Mapped[bytes] = mapped_column(info={"sensitive": True})
    previous_secret_hash: Mapped[bytes | None] = mapped_column(info={"sensitive": True})
    previous_expires_at: Mapped[datetime | None]
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("accounts.id", ondelete="SET NULL"), index=True)
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]
    disabled_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("char_length(name) >= 1", name="name_not_empty"),
        CheckConstraint("octet_length(secret_hash) = 32", name="secret_hash_is_sha256"),
        CheckConstraint("octet_length(previous_secret_hash) = 32", name="previous_secret_hash_is_sha256"),
        CheckConstraint("(previous_secret_hash IS NULL) = (previous_expires_at IS NULL)", name="previous_expires"),
        tenant_exempt("belongs to the operator of the installation"),
    )


class SigningKey(Model):
    """Published from `created_at` on, so that verifiers fetch it before it signs. Deleted when no token that it signed is
    valid. Its id is the `kid`."""

    __tablename__ = "signing_keys"

    id: Mapped[Id]
    # ES256, PKCS #8, encrypted.
    private_key: Mapped[bytes] = mapped_column(info={"sensitive": True})
    # A JWK.
    public_key: Mapped[str]
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        Index(None, "created_at"),
        tenant_exempt("belongs to the operator of the installation"),
    )
