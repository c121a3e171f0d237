"""tests/rows.py creates a row of any table for a given owner."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    NullPool,
    String,
    Table,
    Uuid,
    create_engine,
    select,
)

from accord_db.engine.ids import uuid7
from accord_db.engine.model import NAMING_CONVENTION
from accord_db.schema import Account, metadata
from tests.db.items import Item, ItemBase
from tests.rows import OWNERS, Row, Rows, has_owner, needs_organization, of_owner


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    engine = create_engine("postgresql+psycopg://", creator=partial(psycopg.connect, dsn), poolclass=NullPool)
    with engine.begin() as connection:
        yield connection


def test_row_of_every_table_is_created_and_found_by_its_owner(connection: Connection, account: Account) -> None:
    organization = Rows(connection, account.id).insert(metadata.tables["organizations"])["id"]
    rows = Rows(connection, account.id, organization)
    tables = [table for table in metadata.sorted_tables if table.name not in ("accounts", "organizations")]
    assert len(tables) > 15
    for table in tables:
        row = rows.insert(table)
        own = [column == row[column.name] for column in table.primary_key]
        assert connection.execute(select(*table.primary_key).where(*own)).one()
        if has_owner(table) and not is_without_owner(row):
            found = select(*table.primary_key).where(*own, of_owner(table, account.id, organization))
            assert connection.execute(found).one(), table.name
            other = select(*table.primary_key).where(*own, of_owner(table, uuid7(), uuid7()))
            assert connection.execute(other).first() is None, table.name


def is_without_owner(row: Row) -> bool:
    """All owner columns are NULL: rows.py leaves nullable owners empty unless the owner is an organization."""
    own = [row[name] for name in OWNERS if name in row]
    return bool(own) and not any(own)


def test_row_with_json_arrays_and_choices_is_created_from_the_types(connection: Connection, account: Account) -> None:
    ItemBase.metadata.create_all(connection)
    item = Rows(connection, account.id).insert(metadata_of(Item), numbers=[1])
    assert (item["status"], item["settings"], item["tags"], item["numbers"]) == ("active", {}, [], [1])


def metadata_of(model: Any) -> Table:
    return ItemBase.metadata.tables[model.__tablename__]


def test_parents_are_created_first_and_choices_are_read_from_checks(connection: Connection, account: Account) -> None:
    extended = type(metadata)(naming_convention=NAMING_CONVENTION)
    for table in metadata.sorted_tables:
        table.to_metadata(extended)
    parent = Table(
        "parents",
        extended,
        Column("id", Uuid, primary_key=True),
        Column("organization_id", Uuid, ForeignKey("organizations.id"), nullable=False),
        Column("kind", String(9), nullable=False),
        CheckConstraint("kind IN ('good', 'bad')", name="kind"),
    )
    key = ForeignKey("parents.id")
    child = Table(
        "children", extended, Column("id", Uuid, primary_key=True), Column("parent_id", Uuid, key, nullable=False)
    )
    extended.create_all(connection, [parent, child])
    organization = Rows(connection, account.id).insert(extended.tables["organizations"])["id"]
    assert needs_organization(child)
    made = Rows(connection, account.id, organization).insert(child)
    [found] = connection.execute(select(parent.c.id, parent.c.organization_id, parent.c.kind))
    assert found == (made["parent_id"], organization, "good")
    assert connection.execute(select(child.c.id).where(of_owner(child, uuid7(), organization))).one()
