"""What goes in, what comes out, and how statements travel."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    ColumnElement,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    String,
    Uuid,
    bindparam,
    cast,
    column,
    func,
    literal,
    literal_column,
    null,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column
from sqlalchemy.schema import DropTable
from sqlalchemy.types import TypeEngine

from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.errors import Conflict, InvalidValue, Unavailable
from accord_db.engine.ids import uuid7
from accord_db.queries import tasks
from accord_db.schema import Account, Task
from tests.conftest import Connect

NOBODY = UUID(int=0)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
async def task(database: Database, account: Account) -> Task:
    return await tasks.insert_task(database, task_id=uuid7(), created_by=account.id, title="Water the plants")


# --- rows -------------------------------------------------------------------------------------------------------------
async def test_an_entity_comes_as_a_record_with_its_attributes(database: Database, task: Task) -> None:
    found = await database.fetch_one(select(Task))
    assert found is not None
    assert (found.id, found.title, found.completed, found.deleted_at) == (task.id, "Water the plants", False, None)


async def test_a_record_cannot_be_changed(task: Task) -> None:
    with pytest.raises(AttributeError):
        task.title = "Something else"


class SomeModel(DeclarativeBase):
    pass


class SomeAccount(SomeModel):
    __tablename__ = "accounts"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    password_hash: Mapped[str] = mapped_column(info={"sensitive": True})


async def test_a_record_does_not_show_what_is_sensitive(database: Database, account: Account) -> None:
    shown = repr(await database.fetch_one(select(SomeAccount)))
    assert str(account.id) in shown
    assert "password_hash" not in shown


async def test_a_single_column_comes_bare(database: Database, task: Task) -> None:
    assert await database.fetch_one(select(func.count()).select_from(Task)) == 1
    assert await database.fetch_all(select(Task.title)) == ["Water the plants"]


async def test_several_columns_come_as_a_row_with_their_labels(database: Database, task: Task) -> None:
    row = await database.fetch_one(select(Task.id, func.char_length(Task.title).label("length")))
    assert row is not None
    task_id, length = row
    assert (row.id, row.length) == (task_id, length) == (task.id, len(task.title))


async def test_an_entity_beside_a_column_keeps_its_attributes(database: Database, task: Task) -> None:
    row = await database.fetch_one(select(Task, func.char_length(Task.title).label("length")))
    assert row is not None
    assert (row[0].title, row.Task.id, row.length) == (task.title, task.id, len(task.title))


async def test_two_entities_with_columns_of_the_same_names_are_kept_apart(
    database: Database, task: Task, account: Account
) -> None:
    row = await database.fetch_one(select(Account, Task).join(Task, Task.created_by == Account.id))
    assert row == (account, task)


async def test_an_entity_that_an_outer_join_did_not_find_is_none(database: Database, account: Account) -> None:
    row = await database.fetch_one(select(Account, Task).outerjoin(Task, Task.created_by == Account.id))
    assert row == (account, None)


async def test_an_alias_is_an_entity_too(database: Database, task: Task) -> None:
    other = aliased(Task, name="other")
    row = await database.fetch_one(select(Task, other).join(other, other.id == Task.id))
    assert row == (task, task)


async def test_a_union_has_the_labels_of_its_columns(database: Database) -> None:
    numbers = union_all(select(literal(1).label("number"), null().label("nothing")), select(literal(2), null()))
    rows: list[Any] = await database.fetch_all(numbers)
    assert [row.number for row in rows] == [1, 2]


async def test_nothing_found_is_none_and_an_empty_list(database: Database) -> None:
    assert await database.fetch_one(select(Task)) is None
    assert await database.fetch_all(select(Task)) == []


async def test_run_says_how_many_rows_it_touched(database: Database, task: Task) -> None:
    rename = update(Task).where(Task.title == bindparam("old")).values(title=bindparam("new"))
    assert await database.execute(rename, old="Water the plants", new="Feed the cat") == 1
    assert await database.execute(rename, old="Water the plants", new="Feed the cat") == 0


# --- values -----------------------------------------------------------------------------------------------------------
class Colour(StrEnum):
    RED = "red"


COLOUR = Enum(Colour, native_enum=False, values_callable=lambda members: [member.value for member in members])


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Uuid(), NOBODY),
        (String(), "Grüße, 世界 🌍 '\"\\ $1 %s"),
        (String(), ""),
        (LargeBinary(), b"\x00\xff\\"),
        (Boolean(), True),
        (Integer(), -1),
        (Integer(), 2**31 - 1),
        (Float(), 0.1),
        (DateTime(timezone=True), NOON),
        (DateTime(timezone=True), datetime(1, 1, 1, tzinfo=UTC)),
        (Interval(), timedelta(days=1, microseconds=1)),
        (JSON(), {"a": [1, None, "ü"]}),
        (JSONB(), []),
        (COLOUR, Colour.RED),
        (ARRAY(Uuid), [NOBODY, UUID(int=1)]),
        (ARRAY(Uuid), []),
        (ARRAY(String), ["a,b", '"', "\\", "", "NULL", None]),
        (ARRAY(Integer), [1, 2**31 - 1]),
        (ARRAY(COLOUR), [Colour.RED]),
    ],
)
async def test_a_value_comes_back_as_it_was_sent(database: Database, type_: TypeEngine[Any], value: object) -> None:
    echo: ColumnElement[Any] = cast(bindparam("value", type_=type_), type_)
    statement = select(echo)
    assert await database.fetch_one(statement, value=value) == value
    assert await database.fetch_one(statement, value=None) is None


async def test_an_int_of_another_size_fits_the_same_prepared_statement(database: Database) -> None:
    statement = select(bindparam("value", type_=Integer))
    for value in (1, 2**15, 2**31 - 1, -(2**31)):
        assert await database.fetch_one(statement, value=value) == value


async def test_times_are_utc_wherever_they_came_from(database: Database) -> None:
    tokyo = timezone(timedelta(hours=9))
    answer = await database.fetch_one(select(bindparam("at", type_=DateTime(timezone=True))), at=NOON.astimezone(tokyo))
    assert answer is not None
    assert answer.tzinfo == UTC


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (String(), "nul\x00byte"),
        (String(), "\ud800"),
        (Integer(), 2**31),
        (Uuid(), "no uuid"),
        (ARRAY(String), ["nul\x00byte"]),
        (JSONB(), {"nul": "\x00"}),
        (DateTime(timezone=True), "300000-13-01"),
    ],
)
async def test_a_value_that_postgresql_cannot_hold_is_invalid(
    database: Database, type_: TypeEngine[Any], value: object
) -> None:
    with pytest.raises(InvalidValue):
        await database.fetch_one(select(bindparam("value", type_=type_)), value=value)


async def test_a_literal_of_the_statement_need_not_be_given(database: Database, task: Task) -> None:
    statement = select(Task.title).where(Task.completed == literal(False), Task.id == bindparam("task_id")).limit(1)
    assert await database.fetch_one(statement, task_id=task.id) == "Water the plants"


@pytest.mark.parametrize("parameters", [{}, {"b": 1}, {"a": 1, "b": 1}])
async def test_parameters_that_are_not_the_statements_are_a_mistake(
    database: Database, parameters: Mapping[str, object]
) -> None:
    with pytest.raises(TypeError, match="parameters missing"):
        await database.fetch_one(select(bindparam("a", type_=Integer)), **parameters)


async def test_a_list_of_which_every_length_is_another_statement_is_refused(database: Database) -> None:
    with pytest.raises(TypeError, match="any_"):
        await database.fetch_all(select(Task).where(Task.id.in_([NOBODY])))


async def test_a_percent_sign_is_only_that(database: Database) -> None:
    assert await database.fetch_one(select(func.format("%s%%", literal("100")), literal_column("'%s %%'"))) == (
        "100%",
        "%s %%",
    )


async def test_what_defines_tables_is_refused(database: Database) -> None:
    with pytest.raises(TypeError, match="migration"):
        await database.execute(DropTable(Task.metadata.tables["tasks"]))


# --- defaults ---------------------------------------------------------------------------------------------------------
async def test_an_update_sets_what_the_schema_says_it_sets(database: Database, task: Task) -> None:
    rename = update(Task).where(Task.id == bindparam("task_id")).values(title="Feed the cat").returning(Task)
    renamed = await database.fetch_one(rename, task_id=task.id)
    assert renamed is not None
    assert renamed.updated_at > task.updated_at
    assert renamed.etag != task.etag


# --- prepared statements ----------------------------------------------------------------------------------------------
PREPARED = select(column("statement", String)).select_from(text("pg_prepared_statements"))


@pytest.fixture
async def one_connection(connect: Connect) -> Database:
    return await connect(pool_size=1)


async def test_a_statement_is_prepared_once_by_its_text(one_connection: Database) -> None:
    for _ in range(3):
        await one_connection.fetch_one(
            select(Task).where(Task.title == bindparam("title")), title="same text, made anew"
        )
    prepared = await one_connection.fetch_all(PREPARED)
    assert len([statement for statement in prepared if "tasks" in statement]) == 1


async def test_nothing_is_prepared_where_that_is_switched_off(connect: Connect) -> None:
    database = await connect(pool_size=1, prepare=False)
    async with database.transaction() as tx:
        assert await tx.fetch_one(select(bindparam("value", type_=Integer)), value=5) == 5
        assert await tx.fetch_all(PREPARED) == []


def widen_titles(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE tasks ALTER COLUMN title TYPE varchar(300)")


async def test_a_statement_survives_a_migration_of_its_table(one_connection: Database, task: Task, dsn: str) -> None:
    statement = select(Task.title)
    assert await one_connection.fetch_one(statement) == task.title
    widen_titles(dsn)
    assert await one_connection.fetch_one(statement) == task.title


async def test_a_transaction_on_a_migrated_table_is_a_conflict_once(
    one_connection: Database, task: Task, dsn: str
) -> None:
    statement = select(Task.title)

    async def read() -> str | None:
        async with one_connection.transaction() as tx:
            return await tx.fetch_one(statement)

    await read()
    widen_titles(dsn)
    with pytest.raises(Conflict):
        await read()
    assert await read() == task.title


# --- the pool ---------------------------------------------------------------------------------------------------------
async def test_many_callers_share_few_connections_and_get_their_own_answers(database: Database) -> None:
    echo = select(bindparam("value", type_=Integer), func.pg_sleep(0.001).label("slept"))
    rows = await asyncio.gather(*(database.fetch_one(echo, value=value) for value in range(200)))
    assert [row[0] for row in rows if row is not None] == list(range(200))


async def test_whoever_waits_too_long_for_a_connection_is_told_when_to_come_back(connect: Connect) -> None:
    database = await connect(pool_size=1, pool_wait=0.05)
    async with database.transaction() as tx:
        await tx.fetch_one(select(literal(1)))
        with pytest.raises(Unavailable) as caught:
            await asyncio.create_task(ask(database))
    assert caught.value.retry_after > 0
    assert await ask(database) == 1


async def test_the_queue_for_a_connection_has_an_end(connect: Connect) -> None:
    database = await connect(pool_size=1, pool_queue=2)
    answers = await asyncio.gather(*(ask(database) for _ in range(5)), return_exceptions=True)
    assert [answer for answer in answers if answer == 1] == [1, 1, 1]
    assert [type(answer) for answer in answers if answer != 1] == [Unavailable, Unavailable]


async def test_a_caller_that_left_the_queue_takes_no_connection_along(connect: Connect) -> None:
    database = await connect(pool_size=1)
    for _ in range(20):
        callers = [asyncio.create_task(ask(database)) for _ in range(5)]
        await asyncio.sleep(0)
        for caller in callers[::2]:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    assert await ask(database) == 1


async def test_an_old_connection_is_replaced(connect: Connect) -> None:
    database = await connect(pool_size=1, connection_lifetime=0.0)
    backend = select(func.pg_backend_pid())
    assert await database.fetch_one(backend) != await database.fetch_one(backend)


async def test_a_closed_database_is_unavailable(connect: Connect) -> None:
    database = await connect()
    await database.close()
    with pytest.raises(Unavailable):
        await ask(database)


async def test_what_waits_for_a_connection_is_told_that_the_database_closes(connect: Connect) -> None:
    database = await connect(pool_size=1)
    async with database.transaction() as tx:
        await tx.fetch_one(select(literal(1)))
        waiting = asyncio.create_task(ask(database))
        await asyncio.sleep(0.01)
        await database.close()
        with pytest.raises(Unavailable):
            await waiting


async def test_there_is_no_connecting_to_nothing() -> None:
    with pytest.raises(Unavailable):
        await Database.connect(DatabaseSettings(dsn="postgresql://127.0.0.1:1/nothing"))


async def ask(database: Database) -> int | None:
    return await database.fetch_one(select(literal(1)))
