"""Every table there is: one import line a feature."""

from accord_db.schema.accounts import Account
from accord_db.schema.audit import AuditEvent
from accord_db.schema.idempotency import IdempotencyKey
from accord_db.schema.sessions import Session
from accord_db.schema.shared import Model
from accord_db.schema.tasks import Task

metadata = Model.metadata

__all__ = [
    "Account",
    "AuditEvent",
    "IdempotencyKey",
    "Session",
    "Task",
    "metadata",
]
