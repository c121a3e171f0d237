"""Inserts and updates that name their columns once, on a table with defaults, JSON and arrays."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import bindparam, func, select

from accord_db.engine.database import Database
from accord_db.engine.dml import etag_matches, insert_row, insert_rows, update_row
from accord_db.engine.errors import AlreadyExists, InvalidValue
from accord_db.engine.ids import uuid7
from tests.conftest import Connect
from tests.db.items import Item, create_table

THIS: Final = (Item.id == bindparam("item_id"), etag_matches(Item))


@pytest.fixture(autouse=True)
def _table(dsn: str) -> None:
    create_table(dsn)


async def test_insert_row_returns_the_row_with_its_defaults(database: Database) -> None:
    id = uuid7()
    row = await insert_row(database, Item, id=id, name="x", tags=["a"])
    assert (row.id, row.name, row.number, row.status, row.note) == (id, "x", 7, "active", "none")
    assert (row.settings, row.tags, row.extra, row.numbers) == ({}, ["a"], None, None)
    assert isinstance(row.etag, UUID)
    assert isinstance(row.created_at, datetime)


async def test_columns_that_a_row_of_a_batch_lacks_get_their_default_or_null(database: Database) -> None:
    everything: dict[str, Any] = {
        "id": uuid7(),
        "name": "whole",
        "number": 0,
        "status": "paused",
        "owner": uuid4(),
        "note": "note",
        "settings": {"a": [1]},
        "extra": {},
        "tags": ["a", "b"],
        "numbers": [1, 2],
    }
    rows = await insert_rows(
        database, Item, [everything, {"id": uuid7(), "name": "bare"}, {**everything, "id": uuid7()}]
    )
    whole, bare, again = rows
    for row in (whole, again):
        assert {name: getattr(row, name) for name in everything if name != "id"} == {
            name: value for name, value in everything.items() if name != "id"
        }
    assert (bare.number, bare.status, bare.settings, bare.tags) == (7, "active", {}, [])
    assert (bare.owner, bare.note, bare.extra, bare.numbers) == (None, None, None, None)


async def test_missing_column_without_a_default_in_a_batch_is_invalid(database: Database) -> None:
    with pytest.raises(InvalidValue) as caught:
        await insert_rows(database, Item, [{"id": uuid7(), "name": "x"}, {"id": uuid7()}])
    assert caught.value.column == "name"
    assert await database.fetch_all(select(Item)) == []


async def test_batch_keeps_its_order_and_shares_columns(database: Database) -> None:
    new = [{"id": uuid7(), "name": str(number), "numbers": list(range(number))} for number in (3, 0, 2, 1)]
    rows = await insert_rows(database, Item, new, note="shared", tags=["x"])
    assert [(row.name, row.numbers) for row in rows] == [("3", [0, 1, 2]), ("0", []), ("2", [0, 1]), ("1", [0])]
    assert {(row.note, *row.tags) for row in rows} == {("shared", "x")}


async def test_empty_batch_and_batch_with_an_invalid_row_insert_nothing(database: Database) -> None:
    assert await insert_rows(database, Item, []) == []
    id = uuid7()
    with pytest.raises(AlreadyExists):
        await insert_rows(database, Item, [{"id": id, "name": "x"}, {"id": id, "name": "y"}])
    assert await database.fetch_one(select(func.count()).select_from(Item)) == 0


async def test_json_list_in_a_batch_is_one_value(database: Database) -> None:
    """It is not an array of its elements."""
    value: Any = ["a", ["b"], {}]
    [row] = await insert_rows(database, Item, [{"id": uuid7(), "name": "x", "extra": value}])
    assert row.extra == value


@pytest.mark.parametrize("tags", [[], ["a,b", '"', "\\", "", "NULL", "{}", " ", "ü\n"]])
async def test_texts_of_an_array_keep_every_character(database: Database, tags: list[str]) -> None:
    [row] = await insert_rows(database, Item, [{"id": uuid7(), "name": "x", "tags": tags}])
    assert row.tags == tags
    assert (await insert_row(database, Item, id=uuid7(), name="x", tags=tags)).tags == tags


async def test_update_sets_the_named_columns_and_a_new_etag(database: Database) -> None:
    row = await insert_row(database, Item, id=uuid7(), name="x", extra={"a": 1})
    changed = await update_row(database, Item, THIS, {"extra": None, "tags": ["a"]}, item_id=row.id, seen_etag=row.etag)
    assert changed is not None
    assert (changed.name, changed.extra, changed.tags) == ("x", None, ["a"])
    assert changed.etag != row.etag
    assert await database.fetch_one(select(Item.extra.is_(None))) is True
    assert await update_row(database, Item, THIS, {"name": "y"}, item_id=row.id, seen_etag=row.etag) is None
    assert (await update_row(database, Item, THIS, {"name": "y"}, item_id=row.id, seen_etag=None)) is not None


async def test_history_written_after_a_wait_sorts_after_what_it_waited_for(connect: Connect) -> None:
    """now() is the start of the transaction, which was earlier."""
    one, other = await connect(), await connect()
    async with one.transaction() as waiting, other.transaction() as waited_for:
        await waiting.fetch_one(select(func.now()))
        first = await insert_row(waited_for, Item, id=uuid7(), name="first")
        second = await insert_row(waiting, Item, id=uuid7(), name="second")
    assert second.created_at < first.created_at
    assert second.occurred_at > first.occurred_at
