"""The listener: notifications, lost connections and reconnects."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import bindparam, func, select, text

from accord_db.engine.database import Database
from accord_db.engine.listen import Listener

NOTIFY = select(func.pg_notify("news", bindparam("payload")))
END_LISTENERS = (
    select(func.pg_terminate_backend(text("pid")))
    .select_from(text("pg_stat_activity"))
    .where(text("datname = current_database() AND (query LIKE 'LISTEN%' OR query = 'SHOW transaction_read_only')"))
)


@pytest.fixture
def received() -> list[str]:
    return []


@pytest.fixture
async def listener(dsn: str, received: list[str]) -> AsyncIterator[Listener]:
    listener = Listener(dsn, heartbeat=0.1)
    listener.listen("news", received.append)
    listener.on_change(lambda: received.append("connected" if listener.connected else "lost"))
    await listener.start()
    await until(lambda: listener.connected)
    yield listener
    await listener.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_notifications_arrive_in_order(listener: Listener, database: Database, received: list[str]) -> None:
    for payload in ("one", "two"):
        await database.fetch_one(NOTIFY, payload=payload)
    await until(lambda: len(received) == 3)
    assert received == ["connected", "one", "two"]


async def test_notifications_between_heartbeats_are_not_lost(
    listener: Listener, database: Database, received: list[str]
) -> None:
    for number in range(50):
        await database.fetch_one(NOTIFY, payload=str(number))
        await asyncio.sleep(0.01)
    await until(lambda: len(received) == 51)


async def test_notification_of_a_rolled_back_transaction_does_not_arrive(
    listener: Listener, database: Database, received: list[str]
) -> None:
    async def notify_and_roll_back() -> None:
        async with database.transaction() as tx:
            await tx.fetch_one(NOTIFY, payload="never")
            raise LookupError

    with pytest.raises(LookupError):
        await notify_and_roll_back()
    await database.fetch_one(NOTIFY, payload="after")
    await until(lambda: len(received) == 2)
    assert received == ["connected", "after"]


async def test_lost_listener_reports_it_and_reconnects(
    listener: Listener, superuser: Database, received: list[str]
) -> None:
    await superuser.fetch_all(END_LISTENERS)
    await until(lambda: not listener.connected)
    await until(lambda: listener.connected)
    await superuser.fetch_one(NOTIFY, payload="again")
    await until(lambda: received[-1] == "again")
    assert received == ["connected", "lost", "connected", "again"]


async def test_listener_reconnects_after_a_handler_has_failed(dsn: str, database: Database) -> None:
    received: list[int] = []
    listener = Listener(dsn)
    listener.listen("news", lambda payload: received.append(int(payload)))
    await listener.start()
    await until(lambda: listener.connected)
    await database.fetch_one(NOTIFY, payload="not a number")
    await until(lambda: not listener.connected)
    await until(lambda: listener.connected)
    await database.fetch_one(NOTIFY, payload="7")
    await until(lambda: received == [7])
    await listener.close()


async def test_listener_without_a_server_is_not_connected_and_can_be_closed() -> None:
    listener = Listener("postgresql://127.0.0.1:1/nothing")
    await listener.start()
    await asyncio.sleep(0.2)
    assert not listener.connected
    started = time.monotonic()
    await listener.close()
    assert time.monotonic() - started < 1
