"""The database: rows, parameters, prepared statements and the pool."""

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

NIL = UUID(int=0)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
async def task(database: Database, account: Account) -> Task:
    return await tasks.insert_task(database, task_id=uuid7(), created_by=account.id, title="Water the plants")


# --- rows -------------------------------------------------------------------------------------------------------------
async def test_entity_is_a_record_with_its_attributes(database: Database, task: Task) -> None:
    found = await database.fetch_one(select(Task))
    assert found is not None
    assert (found.id, found.title, found.completed, found.deleted_at) == (task.id, "Water the plants", False, None)


async def test_record_is_immutable(task: Task) -> None:
    with pytest.raises(AttributeError):
        task.title = "Something else"


class SomeModel(DeclarativeBase):
    pass


class SomeAccount(SomeModel):
    __tablename__ = "accounts"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    password_hash: Mapped[str] = mapped_column(info={"sensitive": True})


async def test_repr_of_a_record_hides_sensitive_columns(database: Database, account: Account) -> None:
    shown = repr(await database.fetch_one(select(SomeAccount)))
    assert str(account.id) in shown
    assert "password_hash" not in shown


async def test_single_column_is_returned_as_its_value(database: Database, task: Task) -> None:
    assert await database.fetch_one(select(func.count()).select_from(Task)) == 1
    assert await database.fetch_all(select(Task.title)) == ["Water the plants"]


async def test_several_columns_are_returned_as_a_row_with_labels(database: Database, task: Task) -> None:
    row = await database.fetch_one(select(Task.id, func.char_length(Task.title).label("length")))
    assert row is not None
    task_id, length = row
    assert (row.id, row.length) == (task_id, length) == (task.id, len(task.title))


async def test_entity_selected_with_a_column_keeps_its_attributes(database: Database, task: Task) -> None:
    row = await database.fetch_one(select(Task, func.char_length(Task.title).label("length")))
    assert row is not None
    assert (row[0].title, row.Task.id, row.length) == (task.title, task.id, len(task.title))


async def test_two_entities_with_equal_column_names_are_distinct(
    database: Database, task: Task, account: Account
) -> None:
    row = await database.fetch_one(select(Account, Task).join(Task, Task.created_by == Account.id))
    assert row == (account, task)


async def test_entity_without_a_match_in_an_outer_join_is_none(database: Database, account: Account) -> None:
    row = await database.fetch_one(select(Account, Task).outerjoin(Task, Task.created_by == Account.id))
    assert row == (account, None)


async def test_alias_is_an_entity(database: Database, task: Task) -> None:
    other = aliased(Task, name="other")
    row = await database.fetch_one(select(Task, other).join(other, other.id == Task.id))
    assert row == (task, task)


async def test_union_has_the_labels_of_its_columns(database: Database) -> None:
    numbers = union_all(select(literal(1).label("number"), null().label("nothing")), select(literal(2), null()))
    rows: list[Any] = await database.fetch_all(numbers)
    assert [row.number for row in rows] == [1, 2]


async def test_no_rows_are_none_and_an_empty_list(database: Database) -> None:
    assert await database.fetch_one(select(Task)) is None
    assert await database.fetch_all(select(Task)) == []


async def test_execute_returns_the_number_of_changed_rows(database: Database, task: Task) -> None:
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
        (Uuid(), NIL),
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
        (ARRAY(Uuid), [NIL, UUID(int=1)]),
        (ARRAY(Uuid), []),
        (ARRAY(String), ["a,b", '"', "\\", "", "NULL", None]),
        (ARRAY(Integer), [1, 2**31 - 1]),
        (ARRAY(COLOUR), [Colour.RED]),
    ],
)
async def test_value_is_returned_as_it_was_sent(database: Database, type_: TypeEngine[Any], value: object) -> None:
    echo: ColumnElement[Any] = cast(bindparam("value", type_=type_), type_)
    statement = select(echo)
    assert await database.fetch_one(statement, value=value) == value
    assert await database.fetch_one(statement, value=None) is None


async def test_integers_of_all_sizes_fit_one_prepared_statement(database: Database) -> None:
    statement = select(bindparam("value", type_=Integer))
    for value in (1, 2**15, 2**31 - 1, -(2**31)):
        assert await database.fetch_one(statement, value=value) == value


async def test_times_are_returned_in_utc(database: Database) -> None:
    tokyo = timezone(timedelta(hours=9))
    result = await database.fetch_one(select(bindparam("at", type_=DateTime(timezone=True))), at=NOON.astimezone(tokyo))
    assert result is not None
    assert result.tzinfo == UTC


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
async def test_value_that_postgresql_cannot_hold_is_invalid(
    database: Database, type_: TypeEngine[Any], value: object
) -> None:
    with pytest.raises(InvalidValue):
        await database.fetch_one(select(bindparam("value", type_=type_)), value=value)


async def test_literals_of_the_statement_are_no_parameters(database: Database, task: Task) -> None:
    statement = select(Task.title).where(Task.completed == literal(False), Task.id == bindparam("task_id")).limit(1)
    assert await database.fetch_one(statement, task_id=task.id) == "Water the plants"


@pytest.mark.parametrize("parameters", [{}, {"b": 1}, {"a": 1, "b": 1}])
async def test_missing_and_unknown_parameters_raise_type_error(
    database: Database, parameters: Mapping[str, object]
) -> None:
    with pytest.raises(TypeError, match="parameters missing"):
        await database.fetch_one(select(bindparam("a", type_=Integer)), **parameters)


async def test_in_with_a_list_raises_type_error(database: Database) -> None:
    with pytest.raises(TypeError, match="any_"):
        await database.fetch_all(select(Task).where(Task.id.in_([NIL])))


async def test_percent_signs_are_literal(database: Database) -> None:
    assert await database.fetch_one(select(func.format("%s%%", literal("100")), literal_column("'%s %%'"))) == (
        "100%",
        "%s %%",
    )


async def test_data_definition_raises_type_error(database: Database) -> None:
    with pytest.raises(TypeError, match="migration"):
        await database.execute(DropTable(Task.metadata.tables["tasks"]))


# --- defaults ---------------------------------------------------------------------------------------------------------
async def test_update_sets_the_onupdate_columns_of_the_schema(database: Database, task: Task) -> None:
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


async def test_statements_with_equal_text_are_prepared_once(one_connection: Database) -> None:
    for _ in range(3):
        await one_connection.fetch_one(
            select(Task).where(Task.title == bindparam("title")), title="another statement, same text"
        )
    prepared = await one_connection.fetch_all(PREPARED)
    assert len([statement for statement in prepared if "tasks" in statement]) == 1


async def test_prepare_false_prepares_nothing(connect: Connect) -> None:
    database = await connect(pool_size=1, prepare=False)
    async with database.transaction() as tx:
        assert await tx.fetch_one(select(bindparam("value", type_=Integer)), value=5) == 5
        assert await tx.fetch_all(PREPARED) == []


def widen_titles(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE tasks ALTER COLUMN title TYPE varchar(300)")


async def test_statement_survives_a_migration_of_its_table(one_connection: Database, task: Task, dsn: str) -> None:
    statement = select(Task.title)
    assert await one_connection.fetch_one(statement) == task.title
    widen_titles(dsn)
    assert await one_connection.fetch_one(statement) == task.title


async def test_transaction_on_a_migrated_table_is_a_conflict_once(
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
async def test_concurrent_callers_share_connections_and_get_their_own_results(database: Database) -> None:
    echo = select(bindparam("value", type_=Integer), func.pg_sleep(0.001).label("slept"))
    rows = await asyncio.gather(*(database.fetch_one(echo, value=value) for value in range(200)))
    assert [row[0] for row in rows if row is not None] == list(range(200))


async def test_waiting_too_long_for_a_connection_is_unavailable_with_retry_after(connect: Connect) -> None:
    database = await connect(pool_size=1, pool_wait=0.05)
    async with database.transaction() as tx:
        await tx.fetch_one(select(literal(1)))
        with pytest.raises(Unavailable) as caught:
            await asyncio.create_task(select_one(database))
    assert caught.value.retry_after > 0
    assert await select_one(database) == 1


async def test_number_of_callers_waiting_for_a_connection_is_limited(connect: Connect) -> None:
    database = await connect(pool_size=1, pool_queue=2)
    results = await asyncio.gather(*(select_one(database) for _ in range(5)), return_exceptions=True)
    assert [result for result in results if result == 1] == [1, 1, 1]
    assert [type(result) for result in results if result != 1] == [Unavailable, Unavailable]


async def test_caller_cancelled_while_waiting_does_not_lose_a_connection(connect: Connect) -> None:
    database = await connect(pool_size=1)
    for _ in range(20):
        callers = [asyncio.create_task(select_one(database)) for _ in range(5)]
        await asyncio.sleep(0)
        for caller in callers[::2]:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    assert await select_one(database) == 1


async def test_connection_is_replaced_after_its_lifetime(connect: Connect) -> None:
    database = await connect(pool_size=1, connection_lifetime=0.0)
    backend = select(func.pg_backend_pid())
    assert await database.fetch_one(backend) != await database.fetch_one(backend)


async def test_closed_database_is_unavailable(connect: Connect) -> None:
    database = await connect()
    await database.close()
    with pytest.raises(Unavailable):
        await select_one(database)


async def test_close_makes_waiting_callers_unavailable(connect: Connect) -> None:
    database = await connect(pool_size=1)
    async with database.transaction() as tx:
        await tx.fetch_one(select(literal(1)))
        waiting = asyncio.create_task(select_one(database))
        await asyncio.sleep(0.01)
        await database.close()
        with pytest.raises(Unavailable):
            await waiting


async def test_connect_without_a_server_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await Database.connect(DatabaseSettings(dsn="postgresql://127.0.0.1:1/nothing"))


async def select_one(database: Database) -> int | None:
    return await database.fetch_one(select(literal(1)))
