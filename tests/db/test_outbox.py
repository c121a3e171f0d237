"""The outbox: one sender at a time claims a message; if it dies, another does."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import psycopg

from accord_db.engine.database import Database, Executor
from accord_db.engine.ids import uuid7
from accord_db.queries import outbox
from accord_db.queries.outbox import ClaimedMessage
from tests.conftest import Connect

LEASE = timedelta(minutes=5)
NOW = timedelta(0)


async def post(db: Executor) -> UUID:
    message_id = uuid7()
    await outbox.insert_message(db, message_id=message_id, template="verify_email", content=b"sealed")
    return message_id


async def claim(db: Executor, lease: timedelta = LEASE) -> ClaimedMessage | None:
    return await outbox.claim_message(db, lease=lease)


async def test_claimed_message_has_the_posted_content(database: Database) -> None:
    message_id = await post(database)
    claimed = await claim(database)
    assert claimed is not None
    assert (claimed.id, claimed.template, claimed.content, claimed.attempts) == (
        message_id,
        "verify_email",
        b"sealed",
        1,
    )
    assert NOW <= claimed.age < timedelta(minutes=1)


async def test_claimed_message_cannot_be_claimed_again_before_the_lease_ends(database: Database) -> None:
    await post(database)
    assert await claim(database, lease=NOW) is not None
    again = await claim(database)
    assert again is not None
    assert again.attempts == 2
    assert await claim(database) is None


async def test_message_that_has_been_due_for_longest_is_claimed_first(database: Database) -> None:
    posted = [await post(database) for _ in range(3)]
    assert [claimed.id for _ in posted if (claimed := await claim(database))] == posted


async def test_uncommitted_message_cannot_be_claimed(database: Database, connect: Connect) -> None:
    other = await connect()
    with suppress(ZeroDivisionError):
        async with database.transaction() as tx:
            await post(tx)
            assert await claim(other) is None
            raise ZeroDivisionError
    assert await claim(other) is None


async def test_ten_concurrent_senders_claim_each_of_fifty_messages_once(database: Database) -> None:
    posted = {await post(database) for _ in range(50)}

    async def sender() -> list[UUID]:
        found = []
        while (claimed := await claim(database)) is not None:
            found.append(claimed.id)
        return found

    found = [message_id for ids in await asyncio.gather(*(sender() for _ in range(10))) for message_id in ids]
    assert sorted(found) == sorted(posted)


async def test_locked_message_is_skipped(database: Database, dsn: str) -> None:
    held, free = await post(database), await post(database)
    with psycopg.connect(dsn) as other:
        other.execute("SELECT id FROM outbox_messages WHERE id = %s FOR UPDATE", (held,))
        claimed = await claim(database)
    assert claimed is not None
    assert claimed.id == free


async def test_deleted_message_cannot_be_claimed(database: Database) -> None:
    message_id = await post(database)
    assert await outbox.delete_message(database, message_id=message_id) == 1
    assert await claim(database) is None
    assert await outbox.delete_message(database, message_id=message_id) == 0


async def test_postponed_message_is_due_after_its_delay(database: Database) -> None:
    message_id = await post(database)
    assert await claim(database) is not None
    assert await outbox.postpone_message(database, message_id=message_id, attempts=1, delay=NOW) == 1
    assert await claim(database) is not None
    assert await outbox.postpone_message(database, message_id=message_id, attempts=2, delay=LEASE) == 1
    assert await claim(database) is None


async def test_sender_cannot_postpone_a_message_that_another_has_claimed_since(database: Database) -> None:
    message_id = await post(database)
    assert await claim(database, lease=NOW) is not None
    assert await claim(database) is not None
    assert await outbox.postpone_message(database, message_id=message_id, attempts=1, delay=NOW) == 0
    assert await claim(database) is None


async def test_summary_has_the_number_of_messages_and_the_next_due_time(database: Database) -> None:
    assert await outbox.get_outbox_summary(database) == (0, None)
    await post(database)
    await post(database)
    assert await claim(database) is not None
    waiting = await outbox.get_outbox_summary(database)
    assert waiting.messages == 2
    assert waiting.next_due_in is not None
    assert waiting.next_due_in <= NOW
    assert await claim(database) is not None
    waiting = await outbox.get_outbox_summary(database)
    assert waiting.next_due_in is not None
    assert LEASE - timedelta(minutes=1) < waiting.next_due_in <= LEASE


async def test_insert_message_notifies_at_commit(database: Database, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN accord_outbox")
        async with database.transaction() as tx:
            await post(tx)
            assert list(listener.notifies(timeout=0.2)) == []
        assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1
