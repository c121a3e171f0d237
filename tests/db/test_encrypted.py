"""Encrypted columns: all are known, listed in batches, and updated if they have not changed."""

from sqlalchemy import LargeBinary

from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.queries import outbox, second_factors
from accord_db.queries.encrypted import (
    ENCRYPTED_COLUMNS,
    EncryptedColumn,
    list_encrypted_values,
    update_encrypted_value,
)
from accord_db.schema import metadata
from tests.db.conftest import NewAccount

SECRET, ACCESS_TOKEN, REFRESH_TOKEN, CONTENT, PRIVATE_KEY = ENCRYPTED_COLUMNS


def test_every_secret_that_is_not_a_hash_is_an_encrypted_column() -> None:
    secret = {
        str(column)
        for table in metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, LargeBinary) and column.info.get("sensitive") and not column.name.endswith("_hash")
    }
    assert secret == {str(column) for column in ENCRYPTED_COLUMNS}


async def messages(database: Database, count: int) -> list[bytes]:
    made = [b"content %d" % number for number in range(count)]
    for content in made:
        await outbox.insert_message(database, message_id=uuid7(), template="verify_email", content=content)
    return made


async def read(database: Database, column: EncryptedColumn, limit: int) -> list[list[bytes]]:
    batches, after = [], None
    while batch := await list_encrypted_values(database, column=column, after=after, limit=limit):
        batches.append([stored.value for stored in batch])
        after = batch[-1].row_id
    return batches


async def test_values_are_listed_in_batches(database: Database) -> None:
    one, two, three, four, five = await messages(database, 5)
    assert await read(database, CONTENT, 2) == [[one, two], [three, four], [five]]
    assert await read(database, CONTENT, 5) == [[one, two, three, four, five]]


async def test_account_of_a_value_is_returned_if_it_has_one(database: Database, new_account: NewAccount) -> None:
    account, factor_id = await new_account(), uuid7()
    await second_factors.insert_second_factor(
        database, second_factor_id=factor_id, account_id=account.id, secret=b"secret"
    )
    assert await list_encrypted_values(database, column=SECRET, after=None, limit=9) == [
        (factor_id, account.id, b"secret")
    ]
    await messages(database, 1)
    [message] = await list_encrypted_values(database, column=CONTENT, after=None, limit=9)
    assert message.account_id is None


async def test_value_is_replaced_only_if_it_has_not_changed(database: Database) -> None:
    [old] = await messages(database, 1)
    [stored] = await list_encrypted_values(database, column=CONTENT, after=None, limit=1)

    async def replace(old: bytes, new: bytes) -> int:
        return await update_encrypted_value(database, column=CONTENT, row_id=stored.row_id, old=old, new=new)

    assert await replace(b"something else", b"new") == 0
    assert await replace(old, b"new") == 1
    assert await replace(old, b"newer") == 0
    assert await read(database, CONTENT, 1) == [[b"new"]]


async def test_every_encrypted_column_can_be_listed_and_updated(database: Database) -> None:
    for column in ENCRYPTED_COLUMNS:
        assert await read(database, column, 1) == []
        assert await update_encrypted_value(database, column=column, row_id=uuid7(), old=b"old", new=b"new") == 0
