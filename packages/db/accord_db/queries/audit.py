"""Queries of audit events. Events are inserted, and never updated or deleted."""

from datetime import datetime, timedelta
from functools import cache
from typing import TypedDict, Unpack
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Select, bindparam, insert, select

from accord_db.engine.database import Executor
from accord_db.engine.ids import first_uuid7
from accord_db.engine.keyset import Page
from accord_db.schema import AuditEvent
from accord_db.schema.audit import ACTOR_ID

_COLUMNS = (
    AuditEvent.id,
    AuditEvent.account_id,
    AuditEvent.organization_id,
    AuditEvent.credential,
    AuditEvent.credential_id,
    AuditEvent.impersonator_id,
    AuditEvent.service_account_id,
    AuditEvent.method,
    AuditEvent.target,
    AuditEvent.stated_reason,
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
    organization_id: UUID | None = None,
    credential: str | None = None,
    credential_id: UUID | None = None,
    impersonator_id: UUID | None = None,
    service_account_id: UUID | None = None,
    target: str | None = None,
    stated_reason: str | None = None,
    user_agent: str | None = None,
    reason: str | None = None,
) -> None:
    await db.execute(
        _INSERT,
        id=event_id,
        account_id=account_id,
        organization_id=organization_id,
        credential=credential,
        credential_id=credential_id,
        impersonator_id=impersonator_id,
        service_account_id=service_account_id,
        method=method,
        target=target,
        stated_reason=stated_reason,
        peer=peer,
        user_agent=user_agent,
        code=code,
        reason=reason,
        request_id=request_id,
    )


class EventFilters(TypedDict, total=False):
    """Missing or None: no filter. The range of time is half-open."""

    account_id: UUID | None
    # The administrator or the service that acted as the account.
    actor_id: UUID | None
    organization_id: UUID | None
    method: str | None
    target: str | None
    occurred_from: datetime | None
    occurred_before: datetime | None


_CONDITIONS: dict[str, ColumnElement[bool]] = {
    "account_id": AuditEvent.account_id == bindparam("account_id"),
    "actor_id": bindparam("actor_id", type_=AuditEvent.impersonator_id.type) == ACTOR_ID,
    "organization_id": AuditEvent.organization_id == bindparam("organization_id"),
    "method": AuditEvent.method == bindparam("method"),
    "target": AuditEvent.target == bindparam("target"),
    "occurred_from": (AuditEvent.occurred_at >= bindparam("occurred_from"))
    & (AuditEvent.id >= bindparam("first_id", type_=AuditEvent.id.type)),
    "occurred_before": (AuditEvent.occurred_at < bindparam("occurred_before"))
    & (AuditEvent.id < bindparam("last_id", type_=AuditEvent.id.type)),
}
# An id holds the clock of the process that made it; `occurred_at` is the database's clock when the event is inserted.
# The index is on ids, so a range of time becomes a range of ids, widened by the largest difference between the clocks.
_MAX_CLOCK_DIFFERENCE = timedelta(hours=1)


@cache
def _list(filters: frozenset[str], later_page: bool) -> Select[AuditEvent]:
    older = [AuditEvent.id < bindparam("after_id")] if later_page else []
    statement = select(AuditEvent).where(*(_CONDITIONS[name] for name in sorted(filters)), *older)
    return statement.order_by(AuditEvent.id.desc()).limit(bindparam("limit", type_=Integer))


async def list_events(db: Executor, *, page: Page, **filters: Unpack[EventFilters]) -> list[AuditEvent]:
    """Newest first, ordered by id."""
    values: dict[str, object] = {name: value for name, value in filters.items() if value is not None}
    statement = _list(frozenset(values), page.after is not None)
    if first := filters.get("occurred_from"):
        values["first_id"] = first_uuid7(first, -_MAX_CLOCK_DIFFERENCE)
    if before := filters.get("occurred_before"):
        values["last_id"] = first_uuid7(before, _MAX_CLOCK_DIFFERENCE)
    if page.after is not None:
        values["after_id"] = page.after.id
    return await db.fetch_all(statement, limit=page.limit, **values)
