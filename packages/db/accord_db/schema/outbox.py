"""The outbox: mail that waits to be sent."""

from datetime import datetime

from sqlalchemy import BigInteger, String, func
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import CreatedAt, Id, Model
from accord_db.engine.row_level_security import tenant_exempt


class OutboxMessage(Model):
    """Committed together with the change that it reports, and deleted after the mail server has accepted it."""

    __tablename__ = "outbox_messages"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    template: Mapped[str] = mapped_column(String(50))
    # The recipient and the values of the template, which include tokens. Encrypted (accord_auth.encryption).
    content: Mapped[bytes] = mapped_column(info={"sensitive": True})
    attempts: Mapped[int] = mapped_column(BigInteger, server_default="0")
    # A sender first moves it to the end of its lease. So no other process sends the message, unless the sender dies.
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)

    __table_args__ = tenant_exempt("sent by the gateway, not by a caller")
