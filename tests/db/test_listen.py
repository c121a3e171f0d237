"""Hearing what is notified, and knowing when one does not."""

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
def heard() -> list[str]:
    return []


@pytest.fixture
async def listener(dsn: str, heard: list[str]) -> AsyncIterator[Listener]:
    listener = Listener(dsn, heartbeat=0.1)
    listener.listen("news", heard.append)
    listener.on_change(lambda: heard.append("connected" if listener.connected else "cut off"))
    await listener.start()
    await until(lambda: listener.connected)
    yield listener
    await listener.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_is_notified_is_heard_in_order(listener: Listener, database: Database, heard: list[str]) -> None:
    for payload in ("one", "two"):
        await database.fetch_one(NOTIFY, payload=payload)
    await until(lambda: len(heard) == 3)
    assert heard == ["connected", "one", "two"]


async def test_what_is_notified_between_heartbeats_is_not_lost(
    listener: Listener, database: Database, heard: list[str]
) -> None:
    for number in range(50):
        await database.fetch_one(NOTIFY, payload=str(number))
        await asyncio.sleep(0.01)
    await until(lambda: len(heard) == 51)


async def test_what_is_rolled_back_is_not_heard(listener: Listener, database: Database, heard: list[str]) -> None:
    async def change_of_mind() -> None:
        async with database.transaction() as tx:
            await tx.fetch_one(NOTIFY, payload="never")
            raise LookupError

    with pytest.raises(LookupError):
        await change_of_mind()
    await database.fetch_one(NOTIFY, payload="after")
    await until(lambda: len(heard) == 2)
    assert heard == ["connected", "after"]


async def test_a_listener_that_was_cut_off_says_so_and_comes_back(
    listener: Listener, superuser: Database, heard: list[str]
) -> None:
    await superuser.fetch_all(END_LISTENERS)
    await until(lambda: not listener.connected)
    await until(lambda: listener.connected)
    await superuser.fetch_one(NOTIFY, payload="again")
    await until(lambda: heard[-1] == "again")
    assert heard == ["connected", "cut off", "connected", "again"]


async def test_a_callback_that_fails_does_not_make_the_listener_deaf(dsn: str, database: Database) -> None:
    heard: list[int] = []
    listener = Listener(dsn)
    listener.listen("news", lambda payload: heard.append(int(payload)))
    await listener.start()
    await until(lambda: listener.connected)
    await database.fetch_one(NOTIFY, payload="not a number")
    await until(lambda: not listener.connected)
    await until(lambda: listener.connected)
    await database.fetch_one(NOTIFY, payload="7")
    await until(lambda: heard == [7])
    await listener.close()


async def test_a_listener_without_a_server_is_not_connected_and_can_be_stopped() -> None:
    listener = Listener("postgresql://127.0.0.1:1/nothing")
    await listener.start()
    await asyncio.sleep(0.2)
    assert not listener.connected
    started = time.monotonic()
    await listener.close()
    assert time.monotonic() - started < 1
