"""Queries of the outbox: mail that waits to be sent."""

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    Boolean,
    LargeBinary,
    String,
    Uuid,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from accord_db.engine.database import Executor
from accord_db.engine.expressions import interval
from accord_db.schema import OutboxMessage

# Mail senders listen on it. A notification has no payload: it wakes them up.
OUTBOX_CHANNEL = "accord_outbox"

# The statement notifies: PostgreSQL sends the notification when the message is committed.
_INSERT = (
    insert(OutboxMessage)
    .from_select(
        ["id", "template", "content"],
        select(
            bindparam("id", type_=Uuid),
            bindparam("template", type_=String),
            bindparam("content", type_=LargeBinary),
        ).where(bindparam("stored", type_=Boolean)),
    )
    .returning(OutboxMessage.id, func.pg_notify(OUTBOX_CHANNEL, "").label("notice"))
)


async def insert_message(db: Executor, *, message_id: UUID, template: str, content: bytes, stored: bool = True) -> None:
    """With `stored=False` nothing is inserted, at the same cost: so that the response time does not reveal whether mail is
    sent."""
    await db.fetch_one(_INSERT, id=message_id, template=template, content=content, stored=stored)


class ClaimedMessage(NamedTuple):
    """A message that no other process sends before the lease ends. `age` is by the database's clock."""

    id: UUID
    created_at: datetime
    age: timedelta
    template: str
    content: bytes
    attempts: int


_DUE = (
    select(OutboxMessage.id)
    .where(OutboxMessage.next_attempt_at <= func.now())
    .order_by(OutboxMessage.next_attempt_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(OutboxMessage)
    .where(OutboxMessage.id == _DUE.scalar_subquery())
    .values(
        attempts=OutboxMessage.attempts + 1,
        next_attempt_at=func.now() + interval("lease"),
    )
    .returning(
        OutboxMessage.id,
        OutboxMessage.created_at,
        (func.now() - OutboxMessage.created_at).label("age"),
        OutboxMessage.template,
        OutboxMessage.content,
        OutboxMessage.attempts,
    )
)


async def claim_message(db: Executor, *, lease: timedelta) -> ClaimedMessage | None:
    """The message that has been due for longest; None if none is due. `attempts` includes this one.

    The message is due again when the lease ends, unless it is deleted or postponed before. Call it outside a transaction,
    which would block other senders, and lose the claim in a rollback.
    """
    row = await db.fetch_one(_CLAIM, lease=lease)
    return ClaimedMessage._make(row) if row is not None else None


_DELETE = delete(OutboxMessage).where(OutboxMessage.id == bindparam("message_id"))


async def delete_message(db: Executor, *, message_id: UUID) -> int:
    return await db.execute(_DELETE, message_id=message_id)


_POSTPONE = (
    update(OutboxMessage)
    .where(OutboxMessage.id == bindparam("message_id"), OutboxMessage.attempts == bindparam("claimed_attempts"))
    .values(next_attempt_at=func.now() + interval("delay"))
)


async def postpone_message(db: Executor, *, message_id: UUID, attempts: int, delay: timedelta) -> int:
    """Returns 0 and changes nothing if another process has claimed the message since: then `attempts` differs."""
    return await db.execute(_POSTPONE, message_id=message_id, claimed_attempts=attempts, delay=delay)


class OutboxSummary(NamedTuple):
    """The number of messages, including those being sent, and the time until the next is due; None without messages."""

    messages: int
    next_due_in: timedelta | None


_SUMMARIZE = select(
    func.count().label("messages"), (func.min(OutboxMessage.next_attempt_at) - func.now()).label("next_due_in")
).select_from(OutboxMessage)


async def get_outbox_summary(db: Executor) -> OutboxSummary:
    row = await db.fetch_one(_SUMMARIZE)
    assert row is not None
    return OutboxSummary._make(row)
