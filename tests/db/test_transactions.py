"""Transactions: all or nothing, whatever fails."""

import asyncio
from contextlib import suppress

import psycopg
import pytest
from sqlalchemy import Integer, bindparam, column, func, literal, select, text

from accord_db.engine.database import Database, Executor
from accord_db.engine.errors import DatabaseError, InvalidValue, Unavailable
from accord_db.engine.ids import uuid7
from accord_db.queries import tasks
from accord_db.schema import Account, Task
from tests.conftest import Connect

TITLES = select(Task.title).order_by(Task.title)
BACKEND = select(func.pg_backend_pid())
FAILS = select(1 / bindparam("zero", type_=Integer))
OPEN_TRANSACTIONS = (
    select(func.count())
    .select_from(text("pg_stat_activity"))
    .where(text("datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"))
)
ROLLED_BACK = "25P02"


class Abort(Exception):
    pass


@pytest.fixture
async def other(connect: Connect) -> Database:
    """Another connection, which sees only committed rows."""
    return await connect(pool_size=1)


async def insert(db: Executor, account: Account, title: str) -> Task:
    return await tasks.insert_task(db, task_id=uuid7(), created_by=account.id, title=title)


# --- one transaction --------------------------------------------------------------------------------------------------
async def test_changes_are_visible_to_others_after_the_block(
    database: Database, other: Database, account: Account
) -> None:
    async with database.transaction() as tx:
        await insert(tx, account, "one")
        assert await other.fetch_all(TITLES) == []
        await insert(tx, account, "two")
    assert await other.fetch_all(TITLES) == ["one", "two"]


async def test_exception_rolls_back_the_transaction(database: Database, other: Database, account: Account) -> None:
    async def attempt() -> None:
        async with database.transaction() as tx:
            await insert(tx, account, "one")
            raise Abort

    with pytest.raises(Abort):
        await attempt()
    assert await other.fetch_all(TITLES) == []
    assert await other.fetch_one(OPEN_TRANSACTIONS) == 0


async def test_cancellation_rolls_back_the_transaction(database: Database, other: Database, account: Account) -> None:
    inserted = asyncio.Event()

    async def insert_and_wait() -> None:
        async with database.transaction() as tx:
            await insert(tx, account, "one")
            inserted.set()
            await asyncio.sleep(10)

    task = asyncio.create_task(insert_and_wait())
    await inserted.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await other.fetch_all(TITLES) == []
    await until_no_transaction_is_open(other)


async def until_no_transaction_is_open(other: Database) -> None:
    async with asyncio.timeout(2):
        while await other.fetch_one(OPEN_TRANSACTIONS):
            await asyncio.sleep(0.01)


async def test_statement_outside_of_a_transaction_is_committed_at_once(
    database: Database, other: Database, account: Account
) -> None:
    await insert(database, account, "one")
    assert await other.fetch_all(TITLES) == ["one"]


async def test_transaction_without_statements_takes_no_connection(connect: Connect) -> None:
    database = await connect(pool_size=1, pool_wait=0.05)
    async with database.transaction():
        await asyncio.create_task(select_one(database))


async def test_statement_on_the_database_inside_a_transaction_block_is_refused(
    database: Database, other: Database, account: Account
) -> None:
    async with database.transaction() as tx:
        await insert(tx, account, "one")
        with pytest.raises(RuntimeError, match="pass its `tx`"):
            await database.fetch_all(TITLES)
        with pytest.raises(RuntimeError, match="pass its `tx`"):
            async with database.transaction():
                pass
        assert await other.fetch_all(TITLES) == []
    assert await database.fetch_all(TITLES) == ["one"]


async def test_task_started_in_the_block_is_not_part_of_the_transaction(database: Database, account: Account) -> None:
    async with database.transaction() as tx:
        await insert(tx, account, "one")
        assert await asyncio.create_task(titles(database)) == []


async def test_tasks_cannot_share_a_transaction(database: Database) -> None:
    async with database.transaction() as tx:
        results = await asyncio.gather(tx.fetch_one(BACKEND), tx.fetch_one(BACKEND), return_exceptions=True)
        assert [type(result) for result in results] == [int, RuntimeError]


async def test_failed_statement_rolls_back_the_transaction_even_if_its_error_is_caught(
    database: Database, other: Database, account: Account
) -> None:
    async def attempt() -> None:
        async with database.transaction() as tx:
            await insert(tx, account, "one")
            with suppress(InvalidValue):
                await tx.fetch_one(FAILS, zero=0)

    with pytest.raises(DatabaseError) as caught:
        await attempt()
    assert caught.value.sqlstate == ROLLED_BACK
    assert await other.fetch_all(TITLES) == []


async def test_statement_after_a_failed_first_one_does_not_run_outside_of_the_transaction(
    database: Database, other: Database, account: Account
) -> None:
    async def attempt() -> None:
        async with database.transaction() as tx:
            with suppress(InvalidValue):
                await tx.fetch_one(FAILS, zero=0)
            await insert(tx, account, "one")

    with pytest.raises(DatabaseError) as caught:
        await attempt()
    assert caught.value.sqlstate == ROLLED_BACK
    assert await other.fetch_all(TITLES) == []


async def test_cancelled_statement_rolls_back_the_transaction_even_if_the_block_continues(
    database: Database, other: Database, account: Account
) -> None:
    async def attempt() -> None:
        async with database.transaction() as tx:
            await insert(tx, account, "one")
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await tx.fetch_one(select(func.pg_sleep(10)))
            await insert(tx, account, "two")

    with pytest.raises(DatabaseError) as caught:
        await attempt()
    assert caught.value.sqlstate == ROLLED_BACK
    await until_no_transaction_is_open(other)
    assert await other.fetch_all(TITLES) == []


async def test_transaction_cannot_be_used_after_its_end(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.fetch_one(BACKEND)
    with pytest.raises(DatabaseError):
        await tx.fetch_one(BACKEND)


async def test_isolation_level_can_be_set(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        assert await tx.fetch_one(select(func.current_setting("transaction_isolation"))) == "serializable"


# --- transactions of a call ---------------------------------------------------------------------------------------------------------
async def test_transactions_of_a_call_are_committed_together(
    database: Database, other: Database, account: Account
) -> None:
    async with database.call_transaction():
        async with database.transaction() as tx:
            await insert(tx, account, "one")
        async with database.transaction() as tx:
            await insert(tx, account, "two")
        await insert(database, account, "three")
        assert await other.fetch_all(TITLES) == []
    assert await other.fetch_all(TITLES) == ["one", "three", "two"]


async def test_statement_before_the_first_transaction_of_a_call_is_committed_at_once(
    database: Database, other: Database, account: Account
) -> None:
    async def attempt() -> None:
        async with database.call_transaction():
            await insert(database, account, "one")
            async with database.transaction() as tx:
                await insert(tx, account, "two")
            raise Abort

    with pytest.raises(Abort):
        await attempt()
    assert await other.fetch_all(TITLES) == ["one"]


async def test_call_can_begin_another_transaction_after_a_rollback(
    database: Database, other: Database, account: Account
) -> None:
    async with database.call_transaction():
        with suppress(Abort):
            async with database.transaction() as tx:
                await insert(tx, account, "one")
                raise Abort
        async with database.transaction() as tx:
            await insert(tx, account, "two")
    assert await other.fetch_all(TITLES) == ["two"]


async def test_exception_in_a_joined_block_rolls_back_the_transaction_of_the_call(
    database: Database, other: Database, account: Account
) -> None:
    async def attempt() -> None:
        async with database.call_transaction():
            async with database.transaction() as tx:
                await insert(tx, account, "one")
            with suppress(Abort):
                async with database.transaction():
                    raise Abort

    with pytest.raises(DatabaseError) as caught:
        await attempt()
    assert caught.value.sqlstate == ROLLED_BACK
    assert await other.fetch_all(TITLES) == []


async def test_task_started_by_a_call_is_not_part_of_its_transaction(
    database: Database, other: Database, account: Account
) -> None:
    async def insert_alone(title: str) -> None:
        async with database.transaction() as tx:
            await insert(tx, account, title)

    async def attempt() -> None:
        async with database.call_transaction():
            await insert_alone("one")
            await asyncio.create_task(insert_alone("two"))
            raise Abort

    with pytest.raises(Abort):
        await attempt()
    assert await other.fetch_all(TITLES) == ["two"]


async def test_nested_call_transactions_are_one(database: Database, other: Database, account: Account) -> None:
    async with database.call_transaction():
        async with database.call_transaction(), database.transaction() as tx:
            await insert(tx, account, "one")
        assert await other.fetch_all(TITLES) == []
    assert await other.fetch_all(TITLES) == ["one"]


# --- lost connections --------------------------------------------------------------------------------------------------
async def test_connection_lost_in_a_transaction_rolls_it_back(
    database: Database, superuser: Database, account: Account
) -> None:
    async def attempt() -> None:
        async with database.transaction() as tx:
            await insert(tx, account, "one")
            await terminate(superuser, await tx.fetch_one(BACKEND))
            await tx.fetch_one(BACKEND)

    with pytest.raises(Unavailable) as caught:
        await attempt()
    assert not caught.value.outcome_unknown
    assert await database.fetch_all(TITLES) == []


async def test_connection_lost_during_commit_leaves_the_outcome_unknown(
    database: Database, superuser: Database, account: Account, dsn: str
) -> None:
    make_commits_slow(dsn)
    backend: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def insert_slowly() -> None:
        async with database.transaction() as tx:
            await insert(tx, account, "one")
            backend.set_result(await tx.fetch_one(BACKEND))

    committing = asyncio.create_task(insert_slowly())
    await asyncio.sleep(0.1)
    await terminate(superuser, await backend)
    with pytest.raises(Unavailable) as caught:
        await committing
    assert caught.value.outcome_unknown


def make_commits_slow(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("""
            CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(5); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON tasks
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();
        """)


async def terminate(db: Executor, backend: int | None) -> None:
    assert await db.fetch_one(select(func.pg_terminate_backend(bindparam("backend", type_=Integer))), backend=backend)
    # pg_terminate_backend only sends a signal.
    alive = select(func.count()).select_from(text("pg_stat_activity")).where(column("pid") == bindparam("backend"))
    while await db.fetch_one(alive, backend=backend):
        await asyncio.sleep(0.01)


async def titles(db: Executor) -> list[str]:
    return await db.fetch_all(TITLES)


async def select_one(db: Executor) -> int | None:
    return await db.fetch_one(select(literal(1)))
