"""Counts of durable rate limits, shared by all gateways and kept across restarts."""

from datetime import datetime

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import Model
from accord_db.engine.row_level_security import tenant_exempt


class RateLimit(Model):
    """The number of calls of one subject in its current window. The subject is stored only as a hash."""

    __tablename__ = "rate_limits"

    # SHA-256 of the method, the limit and the subject.
    key: Mapped[bytes] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    reset_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = tenant_exempt("counts calls by hashes, and public calls have no tenant")
