"""Account tokens, valid once and for one purpose: mailed ones, and those of sign-ins that wait for the second step."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, Enum, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.folding import EmailAddress
from accord_db.engine.model import CreatedAt, Id, Model
from accord_db.engine.row_level_security import tenant_exempt


class TokenPurpose(StrEnum):
    VERIFY_EMAIL = "verify_email"
    CHANGE_EMAIL = "change_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 — a purpose
    SECOND_STEP = "second_step"


class AccountToken(Model):
    """Valid once, until `expires_at`."""

    __tablename__ = "account_tokens"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    purpose: Mapped[TokenPurpose] = mapped_column(
        Enum(
            TokenPurpose,
            native_enum=False,
            create_constraint=True,
            name="purpose",
            values_callable=lambda purposes: [purpose.value for purpose in purposes],
        )
    )
    # SHA-256 of the token. The token itself is not stored.
    token_hash: Mapped[bytes] = mapped_column(unique=True, info={"sensitive": True})
    # The address that it was mailed to, which it verifies.
    email: Mapped[str] = mapped_column(EmailAddress)
    # Of a sign-in that waits for its second step: the provider of the first.
    provider: Mapped[str | None] = mapped_column(String(50))
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("octet_length(token_hash) = 32", name="token_hash_is_sha256"),
        tenant_exempt("found by its token before the caller is known"),
    )
