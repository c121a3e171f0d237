"""Who did what, and what came of it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, func
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.schema.shared import Id, Model


class AuditEvent(Model):
    """Written once: a trigger of the first migration refuses to change, delete or truncate.

    No foreign key: an event outlives the account it speaks of. Ids are UUIDv7: a range of them is a range of time.
    """

    __tablename__ = "audit_events"

    id: Mapped[Id]
    occurred_at: Mapped[datetime] = mapped_column(server_default=func.now())
    account_id: Mapped[UUID | None]
    # The organization that was active.
    organization_id: Mapped[UUID | None]
    # What kind of credential called, as the contract names it (`session`), and which: the id of the session, key or service.
    credential: Mapped[str | None]
    credential_id: Mapped[UUID | None]
    # Who acted as the account: an administrator, or a service.
    impersonator_id: Mapped[UUID | None]
    service_account_id: Mapped[UUID | None]
    method: Mapped[str]
    target: Mapped[str | None]
    peer: Mapped[str]
    user_agent: Mapped[str | None]
    code: Mapped[str]
    reason: Mapped[str | None]
    request_id: Mapped[str]


Index("ix_audit_events_account_id_id", AuditEvent.account_id, AuditEvent.id)
Index("ix_audit_events_organization_id_id", AuditEvent.organization_id, AuditEvent.id)
