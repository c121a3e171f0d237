"""Who did what: written, and never again changed."""

from uuid import UUID

from sqlalchemy import bindparam, insert

from accord_db.database import Executor
from accord_db.schema import AuditEvent

_COLUMNS = (
    AuditEvent.id,
    AuditEvent.account_id,
    AuditEvent.method,
    AuditEvent.target,
    AuditEvent.peer,
    AuditEvent.user_agent,
    AuditEvent.code,
    AuditEvent.reason,
    AuditEvent.request_id,
)
_INSERT = insert(AuditEvent).values({column: bindparam(column.key) for column in _COLUMNS})


async def insert_event(
    db: Executor,
    *,
    event_id: UUID,
    account_id: UUID | None,
    method: str,
    peer: str,
    code: str,
    request_id: str,
    target: str | None = None,
    user_agent: str | None = None,
    reason: str | None = None,
) -> None:
    await db.run(
        _INSERT,
        id=event_id,
        account_id=account_id,
        method=method,
        target=target,
        peer=peer,
        user_agent=user_agent,
        code=code,
        reason=reason,
        request_id=request_id,
    )
