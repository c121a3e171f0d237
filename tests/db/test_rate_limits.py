"""Durable rate limits: counts, windows, refunds and concurrency."""

import asyncio
from hashlib import sha256

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import cast, func, select, text
from sqlalchemy.dialects.postgresql import REGCLASS

from accord_db.engine.database import Database
from accord_db.engine.errors import Conflict
from accord_db.queries.rate_limits import Counted, Exceeded, Limit, count_call, refund_calls
from accord_db.schema import RateLimit
from tests.conftest import WAITING, Connect, execute

ROWS = select(RateLimit.key, RateLimit.count.label("calls"))


def limit(name: str, max_calls: int = 3, seconds: int = 60) -> Limit:
    return Limit(sha256(name.encode()).digest(), max_calls, seconds)


async def count(database: Database, *limits: Limit) -> list[Exceeded]:
    return (await count_call(database, limits=limits))[1]


async def counts(database: Database) -> dict[bytes, int]:
    return {row.key: row.calls for row in await database.fetch_all(ROWS)}


async def test_calls_pass_up_to_the_limit_and_the_next_gets_the_time_to_wait(database: Database) -> None:
    mine = limit("mine")
    assert [await count(database, mine) for _ in range(3)] == [[], [], []]
    (exceeded,) = await count(database, mine)
    assert exceeded.key == mine.key
    assert 0 < exceeded.seconds <= 60
    assert await count(database, limit("other")) == []


async def test_window_begins_with_the_first_call_and_does_not_move(database: Database) -> None:
    first, _ = await count_call(database, limits=[limit("mine")])
    second, _ = await count_call(database, limits=[limit("mine")])
    assert first == second


async def test_call_after_the_end_of_a_window_begins_a_new_one(database: Database, dsn: str) -> None:
    mine = limit("mine")
    assert [bool(await count(database, mine)) for _ in range(4)] == [False, False, False, True]
    execute(dsn, sql.SQL("UPDATE rate_limits SET reset_at = now() - interval '1 microsecond'"))
    assert await count(database, mine) == []
    assert await counts(database) == {mine.key: 1}
    future = select(RateLimit.key).where(RateLimit.reset_at > func.now())
    assert await database.fetch_all(future) == [mine.key]


async def test_call_is_counted_against_all_limits(database: Database) -> None:
    small, large = limit("small", 1), limit("large", 9)
    assert await count(database, small, large) == []
    assert await counts(database) == {small.key: 1, large.key: 1}


async def test_keys_can_be_any_bytes(database: Database) -> None:
    keys = [b"it's", b"it''s", b"\\", b"\\\\", b'"', b"\0", b"\xff{},"]
    counted, _ = await count_call(database, limits=[Limit(key, 1, 60) for key in keys])
    assert {each.key for each in counted} == set(keys) == (await counts(database)).keys()


async def test_call_over_one_limit_is_counted_against_none(database: Database) -> None:
    small, large = limit("small", 1), limit("large", 9)
    await count(database, small, large)
    before = await counts(database)
    assert [exceeded.key for exceeded in await count(database, large, small)] == [small.key]
    assert await counts(database) == before


async def test_all_exceeded_limits_are_returned(database: Database) -> None:
    short, long = limit("short", 1, 60), limit("long", 1, 3600)
    await count(database, short, long)
    waits = {exceeded.key: exceeded.seconds for exceeded in await count(database, short, long)}
    assert waits[short.key] <= 60 < waits[long.key] <= 3600


async def test_flood_over_a_limit_writes_and_locks_nothing(database: Database, dsn: str) -> None:
    row = "SELECT ctid, xmin, xmax FROM rate_limits"
    await count(database, limit("mine", 1))
    with psycopg.connect(dsn, autocommit=True) as connection:
        before = connection.execute(row).fetchall()
        refused = [await count(database, limit("mine", 1), limit("other")) for _ in range(100)]
        assert connection.execute(row).fetchall() == before
    assert all(refused)


async def test_fifty_concurrent_calls_pass_up_to_the_limit(connect: Connect) -> None:
    databases = [await connect(), await connect()]
    results = await asyncio.gather(*(count(databases[each % 2], limit("mine", 10)) for each in range(50)))
    assert results.count([]) == 10
    assert await counts(databases[0]) == {limit("mine").key: 10}


async def test_concurrent_calls_that_waited_for_a_lock_cannot_exceed_the_limit(connect: Connect, dsn: str) -> None:
    database, mine = await connect(pool_size=6), limit("mine", 2)
    await count(database, mine)
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT FROM rate_limits FOR UPDATE")
        calls = [asyncio.create_task(count(database, mine)) for _ in range(5)]
        while await database.fetch_one(select(func.count()).select_from(text(WAITING))) != 5:
            await asyncio.sleep(0.005)
    results = await asyncio.gather(*calls)
    assert results.count([]) == 1
    assert await counts(database) == {mine.key: 2}


async def test_calls_with_shared_keys_in_any_order_do_not_deadlock(connect: Connect) -> None:
    database = await connect(pool_size=8, pool_queue=1000)
    limits = [limit(str(each), 10_000) for each in range(6)]

    async def one(turn: int) -> None:
        mixed = limits[turn % 6 :] + limits[: turn % 6]
        counted, _ = await count_call(database, limits=mixed[::-1] if turn % 2 else mixed)
        await refund_calls(database, counted=counted[::-1] if turn % 3 else counted)

    await asyncio.gather(*(one(turn) for turn in range(300)))
    assert set((await counts(database)).values()) == {0}


async def test_refunded_call_can_be_made_again(database: Database) -> None:
    mine, other = limit("mine", 1), limit("other", 1)
    counted, _ = await count_call(database, limits=[mine, other])
    assert await refund_calls(database, counted=[each for each in counted if each.key == mine.key]) == 1
    assert await counts(database) == {mine.key: 0, other.key: 1}
    assert await count(database, mine) == []


async def test_refund_does_not_change_a_later_window(database: Database, dsn: str) -> None:
    mine = limit("mine")
    counted, _ = await count_call(database, limits=[mine])
    execute(dsn, sql.SQL("UPDATE rate_limits SET reset_at = now() - interval '1 microsecond'"))
    await count(database, mine)
    assert await refund_calls(database, counted=counted) == 0
    assert await counts(database) == {mine.key: 1}


async def test_refund_of_a_deleted_count_changes_nothing(database: Database, dsn: str) -> None:
    counted, _ = await count_call(database, limits=[limit("mine")])
    execute(dsn, sql.SQL("DELETE FROM rate_limits"))
    assert await refund_calls(database, counted=counted) == 0


async def test_count_is_kept_if_the_transaction_of_the_call_is_rolled_back(database: Database) -> None:
    """The count runs in `call_transaction`, but before its first transaction block."""
    with pytest.raises(Conflict):
        async with database.call_transaction():
            seen = [database.in_transaction]
            await count(database, limit("mine"))
            async with database.transaction() as tx:
                seen.append(database.in_transaction)
                await count_call(tx, limits=[limit("other")])
                raise Conflict("lost")
    assert await counts(database) == {limit("mine").key: 1}
    assert seen == [False, True]


async def test_statements_use_the_primary_key(connect: Connect, dsn: str) -> None:
    """A flood of calls for random accounts must not slow down all sign-ins."""
    rows = "SELECT sha256(n::text::bytea), 1, now() + interval '1 hour' FROM generate_series(1, 20000) AS n"
    execute(dsn, sql.SQL("INSERT INTO rate_limits " + rows), sql.SQL("ANALYZE rate_limits"))
    database = await connect(pool_size=1)
    before = await scans(database)
    for _ in range(10):
        counted, _ = await count_call(database, limits=[limit("mine", 99), limit("other", 99)])
        await refund_calls(database, counted=counted)
    assert await scans(database) == before


async def scans(database: Database) -> object:
    """The number of sequential scans by the only connection of this database."""
    await database.fetch_one(select(func.pg_stat_force_next_flush()))
    return await database.fetch_one(select(func.pg_stat_get_numscans(cast("rate_limits", REGCLASS))))


@pytest.mark.parametrize("max_calls", [1, 2**31])
async def test_limits_of_any_size_are_counted(database: Database, max_calls: int) -> None:
    counted, exceeded = await count_call(database, limits=[limit("mine", max_calls, 2**31)])
    assert isinstance(counted[0], Counted)
    assert exceeded == []
