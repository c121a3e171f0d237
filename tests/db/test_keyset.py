"""Lists with keyset pagination: every row once and in order, for every order, filter and page size."""

from collections.abc import Mapping
from itertools import product
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import String, any_, bindparam, func, select, update

from accord_db.engine.database import Database
from accord_db.engine.dml import insert_rows
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Contains, Cursor, Listing, Page
from accord_db.engine.statements import compiled
from tests.db.items import Item, create_table

NIL: Final = UUID(int=0)
ORDERS: Final = {"created_at": Item.created_at, "name": Item.name, "number": Item.number, "status": Item.status}
LISTING: Final = Listing[Item](
    select(Item).where(Item.number >= bindparam("least")),
    id=Item.id,
    orders={**ORDERS, "length": func.char_length(Item.name)},
    filters={
        "status": Item.status == bindparam("status"),
        "tag": bindparam("tag", type_=String) == any_(Item.tags),
        "text": Contains(Item.name),
        "owned": Item.owner.is_not(None),
    },
    unless={"show_ended": Item.ended_at.is_(None)},
)


@pytest.fixture
async def items(database: Database, dsn: str) -> list[Item]:
    """60 rows with many equal values in each column."""
    create_table(dsn)
    rows: list[dict[str, Any]] = [
        {
            "id": uuid7(),
            "name": ("a", "B", "ab", "100% ", "%", "_", "\\")[number % 7],
            "number": number % 3,
            "status": ("active", "paused")[number % 2],
            "tags": (["x"], ["y", "x"], [])[number % 3],
            "owner": (None, NIL)[number % 2],
        }
        for number in range(60)
    ]
    return await insert_rows(database, Item, rows)


async def pages(database: Database, size: int, order_by: str, descending: bool, **filters: object) -> list[Any]:
    rows: list[Any] = []
    while True:
        after = Cursor(getattr(rows[-1], order_by), rows[-1].id) if rows else None
        page = Page(limit=size, after=after, order_by=order_by, descending=descending)
        found = await LISTING.fetch(database, page, filters=filters, least=0)
        assert len(found) <= size
        rows += found
        if len(found) < size:
            return rows


async def test_pages_list_every_row_once_in_order_also_with_equal_values(database: Database, items: list[Item]) -> None:
    for order_by, descending, size in product(ORDERS, (False, True), (1, 11, 13, 1000)):
        rows = await pages(database, size, order_by, descending)
        assert {row.id for row in rows} == {item.id for item in items}
        assert len(rows) == 60
        in_order = select(Item.id).order_by(
            *(each.desc() if descending else each for each in (ORDERS[order_by], Item.id))
        )
        assert [row.id for row in rows] == await database.fetch_all(in_order)


FILTERS: Final[Mapping[str, tuple[object, Any]]] = {
    "status": ("paused", lambda item: item.status == "paused"),
    "tag": ("x", lambda item: "x" in item.tags),
    "text": ("A", lambda item: "a" in item.name.lower()),
    "owned": (True, lambda item: item.owner is not None),
}


async def test_every_combination_of_filters_lists_the_rows_that_match(database: Database, items: list[Item]) -> None:
    for chosen in product((False, True), repeat=len(FILTERS)):
        filters = {name: FILTERS[name][0] for name, is_on in zip(FILTERS, chosen, strict=True) if is_on}
        expected = {item.id for item in items if all(FILTERS[name][1](item) for name in filters)}
        assert {row.id for row in await pages(database, 11, "name", True, **filters)} == expected
        assert await LISTING.count(database, filters=filters, least=0) == len(expected)


async def test_filters_that_are_none_or_false_do_not_apply(database: Database, items: list[Item]) -> None:
    filters = {"status": None, "tag": None, "text": None, "owned": False}
    assert await LISTING.count(database, filters=filters, least=0) == len(items)
    assert await LISTING.count(database, filters={"owned": None}, least=0) == len(items)


@pytest.mark.parametrize("text", ["%", "_", "\\", "0% "])
async def test_text_is_found_literally(database: Database, items: list[Item], text: str) -> None:
    expected = [item for item in items if text in item.name]
    assert expected
    assert await LISTING.count(database, filters={"text": text}, least=0) == len(expected)


@pytest.mark.usefixtures("items")
async def test_condition_applies_unless_its_flag_is_true(database: Database) -> None:
    ended = update(Item).where(Item.number == 0).values(ended_at=func.now())
    assert await database.execute(ended) == 20
    assert await LISTING.count(database, least=0) == 40
    assert await LISTING.count(database, filters={"show_ended": False}, least=0) == 40
    assert await LISTING.count(database, filters={"show_ended": True}, least=0) == 60
    assert await LISTING.count(database, filters={"show_ended": True}, least=1) == 40


@pytest.mark.usefixtures("items")
async def test_unknown_filter_raises_type_error(database: Database) -> None:
    with pytest.raises(TypeError, match="the list has no filter nonsense"):
        await LISTING.count(database, filters={"nonsense": None}, least=0)


@pytest.mark.parametrize("column", [Item.note, Item.owner])
def test_order_by_a_nullable_column_raises_value_error(column: Any) -> None:
    """A row whose value is NULL is neither before nor after the cursor: it would be on no page."""
    with pytest.raises(ValueError, match="keyset order by a column that can be NULL: some"):
        Listing[Item](select(Item), id=Item.id, orders={"name": Item.name, "some": column})


@pytest.mark.usefixtures("items")
async def test_statements_are_compiled_once_for_each_shape(database: Database) -> None:
    listing = Listing[Item](
        select(Item), id=Item.id, orders=ORDERS, filters={"status": Item.status == bindparam("status")}
    )
    page = Page(limit=21, order_by="name")
    for status in ("active", "paused", "active"):
        await listing.fetch(database, page, filters={"status": status})
    assert listing._page.cache_info().currsize == 1
    assert (
        b"LIMIT 21"
        in compiled(listing._page(frozenset({"status"}), "name", True, False, 21, False)).bind({"status": "x"}).sql
    )
