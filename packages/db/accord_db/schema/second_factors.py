"""Second factors and their recovery codes."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import CreatedAt, Id, Model
from accord_db.engine.row_level_security import tenant_exempt


class SecondFactor(Model):
    """An authenticator app (TOTP, RFC 6238). At most one per account. Sign-in requires it once `confirmed_at` is set."""

    __tablename__ = "second_factors"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), unique=True)
    # Encrypted (accord_auth.encryption).
    secret: Mapped[bytes] = mapped_column(info={"sensitive": True})
    confirmed_at: Mapped[datetime | None]
    # The time step of the last accepted code. Codes of this step and earlier ones are rejected.
    last_step: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = tenant_exempt("belongs to a person, and sign-in reads it before the caller is known")


# For the clean-up of unconfirmed second factors.
Index(
    "ix_second_factors_created_at_unconfirmed",
    SecondFactor.created_at,
    postgresql_where=SecondFactor.confirmed_at.is_(None),
)


class RecoveryCode(Model):
    """Works once, instead of a code of the second factor."""

    __tablename__ = "recovery_codes"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    second_factor_id: Mapped[UUID] = mapped_column(ForeignKey("second_factors.id", ondelete="CASCADE"), index=True)
    # SHA-256 of the code, which has 120 random bits. The code itself is not stored.
    code_hash: Mapped[bytes] = mapped_column(unique=True, info={"sensitive": True})
    used_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("octet_length(code_hash) = 32", name="code_hash_is_sha256"),
        tenant_exempt("belongs to a person, and sign-in reads it before the caller is known"),
    )
