"""Together or not at all, whatever goes wrong in between."""

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


class ChangeOfMind(Exception):
    pass


@pytest.fixture
async def other(connect: Connect) -> Database:
    """Sees what is committed, over a connection of its own."""
    return await connect(pool_size=1)


async def insert(db: Executor, account: Account, title: str) -> Task:
    return await tasks.insert_task(db, task_id=uuid7(), created_by=account.id, title=title)


# --- one transaction --------------------------------------------------------------------------------------------------
async def test_a_transaction_is_seen_by_others_when_its_block_ends(
    database: Database, other: Database, account: Account
) -> None:
    async with database.transaction() as tx:
        await insert(tx, account, "one")
        assert await other.fetch_all(TITLES) == []
        await insert(tx, account, "two")
    assert await other.fetch_all(TITLES) == ["one", "two"]


async def test_an_exception_undoes_the_transaction(database: Database, other: Database, account: Account) -> None:
    async def attempt() -> None:
        async with database.transaction() as tx:
            await insert(tx, account, "one")
            raise ChangeOfMind

    with pytest.raises(ChangeOfMind):
        await attempt()
    assert await other.fetch_all(TITLES) == []
    assert await other.fetch_one(OPEN_TRANSACTIONS) == 0


async def test_cancelling_undoes_the_transaction(database: Database, other: Database, account: Account) -> None:
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
    await until_nothing_is_open(other)


async def until_nothing_is_open(other: Database) -> None:
    async with asyncio.timeout(2):
        while await other.fetch_one(OPEN_TRANSACTIONS):
            await asyncio.sleep(0.01)


async def test_a_statement_of_its_own_is_committed_at_once(
    database: Database, other: Database, account: Account
) -> None:
    await insert(database, account, "one")
    assert await other.fetch_all(TITLES) == ["one"]


async def test_a_transaction_that_asks_nothing_takes_no_connection(connect: Connect) -> None:
    database = await connect(pool_size=1, pool_wait=0.05)
    async with database.transaction():
        await asyncio.create_task(ask(database))


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


async def test_a_task_started_within_is_not_in_the_transaction(database: Database, account: Account) -> None:
    async with database.transaction() as tx:
        await insert(tx, account, "one")
        assert await asyncio.create_task(titles(database)) == []


async def test_tasks_cannot_share_a_transaction(database: Database) -> None:
    async with database.transaction() as tx:
        answers = await asyncio.gather(tx.fetch_one(BACKEND), tx.fetch_one(BACKEND), return_exceptions=True)
        assert [type(answer) for answer in answers] == [int, RuntimeError]


async def test_a_statement_that_failed_undoes_the_transaction_though_its_error_was_caught(
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


async def test_after_a_first_statement_that_failed_nothing_runs_outside_of_the_transaction(
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


async def test_a_statement_that_was_cancelled_undoes_the_transaction_though_the_block_goes_on(
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
    await until_nothing_is_open(other)
    assert await other.fetch_all(TITLES) == []


async def test_a_transaction_cannot_be_asked_after_its_end(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.fetch_one(BACKEND)
    with pytest.raises(DatabaseError):
        await tx.fetch_one(BACKEND)


async def test_the_isolation_level_can_be_chosen(database: Database) -> None:
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
            raise ChangeOfMind

    with pytest.raises(ChangeOfMind):
        await attempt()
    assert await other.fetch_all(TITLES) == ["one"]


async def test_transaction_of_a_call_that_rolled_back_can_be_followed_by_another(
    database: Database, other: Database, account: Account
) -> None:
    async with database.call_transaction():
        with suppress(ChangeOfMind):
            async with database.transaction() as tx:
                await insert(tx, account, "one")
                raise ChangeOfMind
        async with database.transaction() as tx:
            await insert(tx, account, "two")
    assert await other.fetch_all(TITLES) == ["two"]


async def test_block_that_joined_the_transaction_of_a_call_rolls_back_all_of_it(
    database: Database, other: Database, account: Account
) -> None:
    async def attempt() -> None:
        async with database.call_transaction():
            async with database.transaction() as tx:
                await insert(tx, account, "one")
            with suppress(ChangeOfMind):
                async with database.transaction():
                    raise ChangeOfMind

    with pytest.raises(DatabaseError) as caught:
        await attempt()
    assert caught.value.sqlstate == ROLLED_BACK
    assert await other.fetch_all(TITLES) == []


async def test_task_started_by_a_call_has_no_part_in_its_transaction(
    database: Database, other: Database, account: Account
) -> None:
    async def insert_alone(title: str) -> None:
        async with database.transaction() as tx:
            await insert(tx, account, title)

    async def attempt() -> None:
        async with database.call_transaction():
            await insert_alone("one")
            await asyncio.create_task(insert_alone("two"))
            raise ChangeOfMind

    with pytest.raises(ChangeOfMind):
        await attempt()
    assert await other.fetch_all(TITLES) == ["two"]


async def test_deferred_blocks_within_one_another_are_one(
    database: Database, other: Database, account: Account
) -> None:
    async with database.call_transaction():
        async with database.call_transaction(), database.transaction() as tx:
            await insert(tx, account, "one")
        assert await other.fetch_all(TITLES) == []
    assert await other.fetch_all(TITLES) == ["one"]


# --- a connection that is lost ----------------------------------------------------------------------------------------
async def test_a_connection_lost_in_a_transaction_undoes_it(
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


async def test_a_connection_lost_in_commit_leaves_the_outcome_unknown(
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
    # Terminated is not yet gone: pg_terminate_backend only sends the signal.
    alive = select(func.count()).select_from(text("pg_stat_activity")).where(column("pid") == bindparam("backend"))
    while await db.fetch_one(alive, backend=backend):
        await asyncio.sleep(0.01)


async def titles(db: Executor) -> list[str]:
    return await db.fetch_all(TITLES)


async def ask(db: Executor) -> int | None:
    return await db.fetch_one(select(literal(1)))
