"""Who did what, and what came of it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.schema.shared import Id, Model


class AuditEvent(Model):
    """Written once: a trigger of the first migration refuses to change, delete or truncate.

    No foreign key: an event outlives the account it speaks of. No index but the primary key: ids are UUIDv7, so a
    range of them is a range of time.
    """

    __tablename__ = "audit_events"

    id: Mapped[Id]
    occurred_at: Mapped[datetime] = mapped_column(server_default=func.now())
    account_id: Mapped[UUID | None]
    method: Mapped[str]
    target: Mapped[str | None]
    peer: Mapped[str]
    user_agent: Mapped[str | None]
    code: Mapped[str]
    reason: Mapped[str | None]
    request_id: Mapped[str]
