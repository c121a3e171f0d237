"""Counts that hold for everybody who asks the database."""

import asyncio
from hashlib import sha256

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import cast, func, select, text
from sqlalchemy.dialects.postgresql import REGCLASS

from accord_db.engine.database import Database
from accord_db.engine.errors import Conflict
from accord_db.queries.rate_limits import Counted, Limit, UsedUp, count_call, take_back
from accord_db.schema import RateLimit
from tests.conftest import WAITING, Connect, execute

ROWS = select(RateLimit.key, RateLimit.count.label("calls"))


def limit(name: str, most: int = 3, seconds: int = 60) -> Limit:
    return Limit(sha256(name.encode()).digest(), most, seconds)


async def count(database: Database, *limits: Limit) -> list[UsedUp]:
    return (await count_call(database, limits=limits))[1]


async def counts(database: Database) -> dict[bytes, int]:
    return {row.key: row.calls for row in await database.fetch_all(ROWS)}


async def test_as_many_calls_pass_as_the_limit_has_and_the_next_is_told_how_long_to_wait(database: Database) -> None:
    mine = limit("mine")
    assert [await count(database, mine) for _ in range(3)] == [[], [], []]
    (used_up,) = await count(database, mine)
    assert used_up.key == mine.key
    assert 0 < used_up.seconds <= 60
    assert await count(database, limit("other")) == []


async def test_window_begins_with_the_first_call_and_does_not_move(database: Database) -> None:
    first, _ = await count_call(database, limits=[limit("mine")])
    second, _ = await count_call(database, limits=[limit("mine")])
    assert first == second


async def test_window_that_is_over_begins_anew(database: Database, dsn: str) -> None:
    mine = limit("mine")
    assert [bool(await count(database, mine)) for _ in range(4)] == [False, False, False, True]
    execute(dsn, sql.SQL("UPDATE rate_limits SET reset_at = now() - interval '1 microsecond'"))
    assert await count(database, mine) == []
    assert await counts(database) == {mine.key: 1}
    future = select(RateLimit.key).where(RateLimit.reset_at > func.now())
    assert await database.fetch_all(future) == [mine.key]


async def test_call_is_counted_against_all_limits_at_once(database: Database) -> None:
    small, large = limit("small", 1), limit("large", 9)
    assert await count(database, small, large) == []
    assert await counts(database) == {small.key: 1, large.key: 1}


async def test_keys_of_any_bytes_are_told_apart(database: Database) -> None:
    keys = [b"it's", b"it''s", b"\\", b"\\\\", b'"', b"\0", b"\xff{},"]
    counted, _ = await count_call(database, limits=[Limit(key, 1, 60) for key in keys])
    assert {each.key for each in counted} == set(keys) == (await counts(database)).keys()


async def test_call_over_one_limit_is_counted_against_none(database: Database) -> None:
    small, large = limit("small", 1), limit("large", 9)
    await count(database, small, large)
    before = await counts(database)
    assert [used_up.key for used_up in await count(database, large, small)] == [small.key]
    assert await counts(database) == before


async def test_all_limits_that_are_used_up_are_told(database: Database) -> None:
    short, long = limit("short", 1, 60), limit("long", 1, 3600)
    await count(database, short, long)
    waits = {used_up.key: used_up.seconds for used_up in await count(database, short, long)}
    assert waits[short.key] <= 60 < waits[long.key] <= 3600


async def test_flood_over_a_limit_writes_and_locks_nothing(database: Database, dsn: str) -> None:
    row = "SELECT ctid, xmin, xmax FROM rate_limits"
    await count(database, limit("mine", 1))
    with psycopg.connect(dsn, autocommit=True) as connection:
        before = connection.execute(row).fetchall()
        refused = [await count(database, limit("mine", 1), limit("other")) for _ in range(100)]
        assert connection.execute(row).fetchall() == before
    assert all(refused)


async def test_of_fifty_calls_at_once_as_many_pass_as_the_limit_has(connect: Connect) -> None:
    databases = [await connect(), await connect()]
    answers = await asyncio.gather(*(count(databases[each % 2], limit("mine", 10)) for each in range(50)))
    assert answers.count([]) == 10
    assert await counts(databases[0]) == {limit("mine").key: 10}


async def test_calls_that_saw_room_for_one_and_waited_for_each_other_do_not_all_pass(
    connect: Connect, dsn: str
) -> None:
    database, mine = await connect(pool_size=6), limit("mine", 2)
    await count(database, mine)
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT FROM rate_limits FOR UPDATE")
        calls = [asyncio.create_task(count(database, mine)) for _ in range(5)]
        while await database.fetch_one(select(func.count()).select_from(text(WAITING))) != 5:
            await asyncio.sleep(0.005)
    answers = await asyncio.gather(*calls)
    assert answers.count([]) == 1
    assert await counts(database) == {mine.key: 2}


async def test_calls_that_share_keys_in_any_order_do_not_deadlock(connect: Connect) -> None:
    database = await connect(pool_size=8, pool_queue=1000)
    limits = [limit(str(each), 10_000) for each in range(6)]

    async def one(turn: int) -> None:
        mixed = limits[turn % 6 :] + limits[: turn % 6]
        counted, _ = await count_call(database, limits=mixed[::-1] if turn % 2 else mixed)
        await take_back(database, counted=counted[::-1] if turn % 3 else counted)

    await asyncio.gather(*(one(turn) for turn in range(300)))
    assert set((await counts(database)).values()) == {0}


async def test_count_that_is_taken_back_is_free_again(database: Database) -> None:
    mine, other = limit("mine", 1), limit("other", 1)
    counted, _ = await count_call(database, limits=[mine, other])
    assert await take_back(database, counted=[each for each in counted if each.key == mine.key]) == 1
    assert await counts(database) == {mine.key: 0, other.key: 1}
    assert await count(database, mine) == []


async def test_nothing_is_taken_back_from_a_later_window(database: Database, dsn: str) -> None:
    mine = limit("mine")
    counted, _ = await count_call(database, limits=[mine])
    execute(dsn, sql.SQL("UPDATE rate_limits SET reset_at = now() - interval '1 microsecond'"))
    await count(database, mine)
    assert await take_back(database, counted=counted) == 0
    assert await counts(database) == {mine.key: 1}


async def test_nothing_is_taken_back_of_what_was_removed(database: Database, dsn: str) -> None:
    counted, _ = await count_call(database, limits=[limit("mine")])
    execute(dsn, sql.SQL("DELETE FROM rate_limits"))
    assert await take_back(database, counted=counted) == 0


async def test_count_is_kept_when_the_transaction_of_the_caller_is_rolled_back(database: Database) -> None:
    """It is asked before the transaction, within the block that makes one of all transactions of a call."""
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


async def test_statement_finds_its_rows_by_their_key(connect: Connect, dsn: str) -> None:
    """However many there are: a flood of made-up accounts must not make everybody's sign-in slow."""
    rows = "SELECT sha256(n::text::bytea), 1, now() + interval '1 hour' FROM generate_series(1, 20000) AS n"
    execute(dsn, sql.SQL("INSERT INTO rate_limits " + rows), sql.SQL("ANALYZE rate_limits"))
    database = await connect(pool_size=1)
    before = await scans(database)
    for _ in range(10):
        counted, _ = await count_call(database, limits=[limit("mine", 99), limit("other", 99)])
        await take_back(database, counted=counted)
    assert await scans(database) == before


async def scans(database: Database) -> object:
    """How often the whole table was read, as far as the one connection of this database knows."""
    await database.fetch_one(select(func.pg_stat_force_next_flush()))
    return await database.fetch_one(select(func.pg_stat_get_numscans(cast("rate_limits", REGCLASS))))


@pytest.mark.parametrize("most", [1, 2**31])
async def test_limits_of_any_size_are_counted(database: Database, most: int) -> None:
    counted, used_up = await count_call(database, limits=[limit("mine", most, 2**31)])
    assert isinstance(counted[0], Counted)
    assert used_up == []
