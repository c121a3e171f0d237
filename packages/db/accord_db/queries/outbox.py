"""Questions about mail that is to be sent."""

from uuid import UUID

from sqlalchemy import bindparam, func, insert

from accord_db.database import Executor
from accord_db.schema import OutboxMessage

# Whoever sends mail listens here. There is no payload: it is a wake-up.
OUTBOX_CHANNEL = "accord_outbox"

# The notice is part of the statement: it goes out when the message is committed.
_INSERT = (
    insert(OutboxMessage)
    .values(id=bindparam("id"), template=bindparam("template"), content=bindparam("content"))
    .returning(OutboxMessage.id, func.pg_notify(OUTBOX_CHANNEL, "").label("notice"))
)


async def insert_message(db: Executor, *, message_id: UUID, template: str, content: bytes) -> None:
    await db.first(_INSERT, id=message_id, template=template, content=content)
