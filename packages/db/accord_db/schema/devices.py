"""Device sign-ins (RFC 8628)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import CreatedAt, Id, Model
from accord_db.engine.row_level_security import tenant_exempt


class DeviceSignIn(Model):
    """Has no account while it is pending; then belongs to the account that approved or denied it."""

    __tablename__ = "device_sign_ins"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    # SHA-256 of the device code; HMAC-SHA-256 of the user code, which is too short for a plain hash.
    device_code_hash: Mapped[bytes] = mapped_column(unique=True, info={"sensitive": True})
    user_code_hash: Mapped[bytes] = mapped_column(unique=True, info={"sensitive": True})
    device_name: Mapped[str] = mapped_column(String(100))
    peer: Mapped[str]
    user_agent: Mapped[str | None]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    interval_seconds: Mapped[int] = mapped_column(BigInteger)
    last_polled_at: Mapped[datetime | None]
    # The account that approved or denied it, and when.
    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    approved_at: Mapped[datetime | None]
    denied_at: Mapped[datetime | None]
    # The session that approved it. If that session is revoked or deleted, the approval is void. No foreign key, which would
    # need an index.
    session_id: Mapped[UUID | None]
    # When the approving user last authenticated. The device's session takes this value, so that it is not fresher.
    authenticated_at: Mapped[datetime | None]
    # When the device's session was created.
    used_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("octet_length(device_code_hash) = 32", name="device_code_hash_is_sha256"),
        CheckConstraint("octet_length(user_code_hash) = 32", name="user_code_hash_is_sha256"),
        CheckConstraint("approved_at IS NULL OR denied_at IS NULL", name="decided_once"),
        CheckConstraint(
            "(account_id IS NULL) = (approved_at IS NULL AND denied_at IS NULL)", name="whoever_decided_is_known"
        ),
        tenant_exempt("found by its codes before the caller is known"),
    )
