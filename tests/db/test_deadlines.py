"""Deadlines and cancellation end statements on the server, and leave the connections of the pool usable."""

import asyncio
import random
import time
from contextlib import suppress

import pytest
from sqlalchemy import Float, Integer, bindparam, func, literal, select, text

from accord_db.engine.database import Database
from accord_db.engine.errors import StatementCancelled, Unavailable
from accord_db.engine.scope import remaining, set_deadline
from tests.conftest import Connect

SLEEP = select(func.pg_sleep(bindparam("seconds", type_=Float)))
ECHO = select(bindparam("value", type_=Integer), func.pg_sleep(bindparam("seconds", type_=Float)).label("slept"))
SLEEPING = (
    select(func.count())
    .select_from(text("pg_stat_activity"))
    .where(
        text(
            "datname = current_database() AND state <> 'idle' AND query LIKE '%pg_sleep(%' AND pid <> pg_backend_pid()"
        )
    )
)
LEFT_OPEN = (
    select(func.count())
    .select_from(text("pg_stat_activity"))
    .where(text("datname = current_database() AND state LIKE 'idle in transaction%'"))
)


@pytest.fixture(autouse=True)
def no_deadline() -> None:
    set_deadline(None)


@pytest.fixture
async def other(connect: Connect) -> Database:
    return await connect(pool_size=1)


def test_remaining_is_none_without_a_deadline() -> None:
    assert remaining() is None


def test_remaining_is_the_time_until_the_deadline() -> None:
    set_deadline(time.monotonic() + 5)
    assert remaining() == pytest.approx(5, abs=0.1)


async def test_deadline_cancels_a_statement_in_a_transaction(database: Database) -> None:
    set_deadline(time.monotonic() + 0.1)
    async with asyncio.timeout(2):
        with pytest.raises(StatementCancelled):
            await sleep_in_transaction(database)


async def test_statement_timeout_applies_without_a_deadline(connect: Connect) -> None:
    database = await connect(statement_timeout=0.1)
    async with asyncio.timeout(2):
        with pytest.raises(StatementCancelled):
            await database.fetch_one(SLEEP, seconds=10)
        with pytest.raises(StatementCancelled):
            await sleep_in_transaction(database)


async def test_wait_for_a_connection_ends_with_the_deadline(connect: Connect) -> None:
    database = await connect(pool_size=1, pool_wait=10)
    async with database.transaction() as tx:
        await tx.fetch_one(select(literal(1)))
        set_deadline(time.monotonic() + 0.1)
        async with asyncio.timeout(2):
            with pytest.raises(Unavailable):
                await asyncio.create_task(sleep(database, 0))


async def test_cancelled_call_cancels_its_statement_within_half_a_second(database: Database, other: Database) -> None:
    call = asyncio.create_task(sleep(database, 10))
    await until(other, sleeping=1)
    call.cancel()
    async with asyncio.timeout(0.5):
        await until(other, sleeping=0)
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_cancelled_transaction_is_rolled_back_on_the_server(database: Database, other: Database) -> None:
    call = asyncio.create_task(sleep_in_transaction(database))
    await until(other, sleeping=1)
    call.cancel()
    async with asyncio.timeout(1):
        await until(other, sleeping=0)
        while await other.fetch_one(LEFT_OPEN):
            await asyncio.sleep(0.01)


async def test_many_cancellations_leave_every_connection_idle(connect: Connect) -> None:
    database = await connect(pool_size=4, pool_wait=10)
    chance = random.Random(2026)

    async def query(value: int) -> None:
        for repetition in range(10):
            expected = value * 100 + repetition
            row = await database.fetch_one(ECHO, value=expected, seconds=chance.choice([0, 0, 0.001, 0.01]))
            assert row is not None
            assert row[0] == expected

    async def query_in_transactions(value: int) -> None:
        for _ in range(10):
            async with database.transaction() as tx:
                row = await tx.fetch_one(ECHO, value=value, seconds=0.001)
                assert row is not None
                assert row[0] == value

    calls = [asyncio.create_task(kind(value)) for value in range(40) for kind in (query, query_in_transactions)]
    victims = chance.sample(calls, len(calls) // 2)
    for victim in victims:
        await asyncio.sleep(0.003)
        victim.cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {type(None), asyncio.CancelledError}
    assert await asyncio.gather(*(database.fetch_one(ECHO, value=1, seconds=0.05) for _ in range(8))) == [(1, b"")] * 8
    assert await database.fetch_one(LEFT_OPEN) == 0


async def test_call_cancelled_at_any_moment_loses_no_connection(connect: Connect) -> None:
    database = await connect(pool_size=1)
    for turns in range(30):
        call = asyncio.create_task(statement_and_transaction(database))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
    assert await database.fetch_one(select(literal("whole"))) == "whole"


async def statement_and_transaction(database: Database) -> None:
    await database.fetch_one(select(literal(1)))
    async with database.transaction() as tx:
        await tx.fetch_one(select(literal(2)))


async def sleep(database: Database, seconds: float) -> None:
    await database.fetch_one(SLEEP, seconds=seconds)


async def sleep_in_transaction(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.fetch_one(SLEEP, seconds=10)


async def until(other: Database, *, sleeping: int) -> None:
    while await other.fetch_one(SLEEPING) != sleeping:
        await asyncio.sleep(0.01)
