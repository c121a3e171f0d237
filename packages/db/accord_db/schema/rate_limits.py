"""Counts of rate limits that hold for all gateways and across restarts."""

from datetime import datetime

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import Model
from accord_db.engine.row_level_security import tenant_exempt


class RateLimit(Model):
    """The calls of one subject in its present window. What is counted is only known by its hash."""

    __tablename__ = "rate_limits"

    # SHA-256 of the method, the limit and the subject.
    key: Mapped[bytes] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    reset_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = tenant_exempt("counts calls by hashes, and public calls have no tenant")
