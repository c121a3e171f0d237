"""Questions about mail that is to be sent."""

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

# Whoever sends mail listens here. There is no payload: it is a wake-up.
OUTBOX_CHANNEL = "accord_outbox"

# The notice is part of the statement: it goes out when the message is committed.
_INSERT = (
    insert(OutboxMessage)
    .from_select(
        ["id", "template", "content"],
        select(
            bindparam("id", type_=Uuid),
            bindparam("template", type_=String),
            bindparam("content", type_=LargeBinary),
        ).where(bindparam("wanted", type_=Boolean)),
    )
    .returning(OutboxMessage.id, func.pg_notify(OUTBOX_CHANNEL, "").label("notice"))
)


async def insert_message(db: Executor, *, message_id: UUID, template: str, content: bytes, wanted: bool = True) -> None:
    """One that is not `wanted` costs as much, and is not there: for answers that must not tell whether there is mail."""
    await db.fetch_one(_INSERT, id=message_id, template=template, content=content, wanted=wanted)


class ClaimedMessage(NamedTuple):
    """One that nobody else sends before the lease is over. `age` is by the clock of the database."""

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
    """The one that has been due for longest; None if none is. `attempts` counts this one.

    It is due again when the lease is over, unless it was deleted or postponed by then: so must be asked of the database,
    not within a transaction, which would hold others up and forget the claim if it is rolled back.
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
    """Does nothing if somebody else has claimed the message since, who is told from us by the number of attempts."""
    return await db.execute(_POSTPONE, message_id=message_id, claimed_attempts=attempts, delay=delay)


class Waiting(NamedTuple):
    """How many messages there are, those that are being sent included, and in how long the next of them is due."""

    messages: int
    next_due_in: timedelta | None


_WAITING = select(
    func.count().label("messages"), (func.min(OutboxMessage.next_attempt_at) - func.now()).label("next_due_in")
).select_from(OutboxMessage)


async def get_waiting(db: Executor) -> Waiting:
    row = await db.fetch_one(_WAITING)
    assert row is not None
    return Waiting._make(row)
