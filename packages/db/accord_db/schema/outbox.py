"""Mail that is to be sent."""

from datetime import datetime

from sqlalchemy import BigInteger, String, func
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import CreatedAt, Id, Model
from accord_db.engine.row_level_security import tenant_exempt


class OutboxMessage(Model):
    """Committed with what it tells of, and removed once the mail server has taken it."""

    __tablename__ = "outbox_messages"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    template: Mapped[str] = mapped_column(String(50))
    # Recipient and what the template says, tokens among it, encrypted (accord_auth.encryption).
    content: Mapped[bytes] = mapped_column(info={"sensitive": True})
    attempts: Mapped[int] = mapped_column(BigInteger, server_default="0")
    # Whoever sends it puts this off first, so that no other process does too, and one that dies is followed by another.
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)

    __table_args__ = tenant_exempt("sent by the gateway, not by a caller")
