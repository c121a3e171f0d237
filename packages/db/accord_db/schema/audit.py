"""Audit events: who called which method, and with which result."""

from uuid import UUID

from sqlalchemy import Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from accord_db.engine.model import Id, Model, OccurredAt
from accord_db.engine.row_level_security import tenant_exempt


class AuditEvent(Model):
    """Append-only: a trigger of the first migration rejects UPDATE, DELETE and TRUNCATE.

    No foreign keys: an event outlives its account. Ids are UUIDv7, so a range of ids is a range of time.
    """

    __tablename__ = "audit_events"

    id: Mapped[Id]
    occurred_at: Mapped[OccurredAt]
    account_id: Mapped[UUID | None]
    # The active organization.
    organization_id: Mapped[UUID | None]
    # The kind of credential, named as in the contract (`session`), and the id of the session, key or service.
    credential: Mapped[str | None]
    credential_id: Mapped[UUID | None]
    # The administrator or service that acted as the account.
    impersonator_id: Mapped[UUID | None]
    service_account_id: Mapped[UUID | None]
    method: Mapped[str]
    target: Mapped[str | None]
    # The reason that the caller gave.
    stated_reason: Mapped[str | None] = mapped_column(String(500))
    peer: Mapped[str]
    user_agent: Mapped[str | None]
    code: Mapped[str]
    reason: Mapped[str | None]
    request_id: Mapped[str]

    __table_args__ = tenant_exempt("read by administrators of the installation only, and outlives organizations")


Index("ix_audit_events_account_id_id", AuditEvent.account_id, AuditEvent.id)
Index("ix_audit_events_organization_id_id", AuditEvent.organization_id, AuditEvent.id)
# At most one of the two is set: no service acts in an impersonated session.
ACTOR_ID = func.coalesce(AuditEvent.impersonator_id, AuditEvent.service_account_id)
Index("ix_audit_events_actor_id_id", ACTOR_ID, AuditEvent.id, postgresql_where=ACTOR_ID.is_not(None))
Index("ix_audit_events_method_id", AuditEvent.method, AuditEvent.id)
Index("ix_audit_events_target_id", AuditEvent.target, AuditEvent.id, postgresql_where=AuditEvent.target.is_not(None))
