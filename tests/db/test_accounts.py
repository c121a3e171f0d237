"""Accounts: one living account an address, whatever its case."""

import asyncio

import pytest
from sqlalchemy import bindparam, delete, func, update

from accord_db.database import Database
from accord_db.errors import InvalidValue
from accord_db.ids import uuid7
from accord_db.queries import accounts, tasks
from accord_db.schema import Account

_SOFT_DELETE = update(Account).where(Account.id == bindparam("account_id")).values(deleted_at=func.now())
_DELETE = delete(Account).where(Account.id == bindparam("account_id"))


async def insert(database: Database, email: str, display_name: str = "Ada") -> Account | None:
    return await accounts.insert_account(
        database, account_id=uuid7(), email=email, display_name=display_name, password_hash="$argon2id$"
    )


async def test_insert_account_answers_the_row_with_its_address_in_lower_case(database: Database) -> None:
    account = await insert(database, "Ada@Example.COM")
    assert account is not None
    assert (account.email, account.display_name, account.password_hash) == ("ada@example.com", "Ada", "$argon2id$")
    assert account.deleted_at is None


async def test_insert_account_with_a_taken_address_is_none_and_leaves_the_first_as_it_is(database: Database) -> None:
    first = await insert(database, "ada@example.com")
    assert await insert(database, "ADA@example.com", "Someone else") is None
    assert await accounts.get_account_by_email(database, email="ada@example.com") == first


async def test_insert_account_at_once_from_ten_callers_makes_one(database: Database) -> None:
    made = await asyncio.gather(*(insert(database, "ada@example.com") for _ in range(10)))
    assert len([account for account in made if account is not None]) == 1


async def test_the_address_of_a_deleted_account_is_free_again(database: Database) -> None:
    first = await insert(database, "ada@example.com")
    assert first is not None
    await database.run(_SOFT_DELETE, account_id=first.id)
    assert await accounts.get_account(database, account_id=first.id) is None
    assert await accounts.get_account_by_email(database, email="ada@example.com") is None
    second = await insert(database, "ada@example.com")
    assert second is not None
    assert second.id != first.id


async def test_get_account_by_email_is_found_in_any_case_and_by_nothing_else(database: Database) -> None:
    account = await insert(database, "ada@example.com")
    assert await accounts.get_account_by_email(database, email="aDa@eXample.com") == account
    assert await accounts.get_account_by_email(database, email="ada_example.com") is None
    assert await accounts.get_account_by_email(database, email="%") is None


@pytest.mark.parametrize(
    ("email", "display_name"),
    [("a" * 243 + "@example.com", "Ada"), ("ada@example.com", ""), ("ada@example.com", "x" * 101)],
    ids=["long address", "no name", "long name"],
)
async def test_insert_account_beyond_the_limits_is_refused(database: Database, email: str, display_name: str) -> None:
    with pytest.raises(InvalidValue):
        await insert(database, email, display_name)


async def test_with_an_account_goes_all_that_was_its_own(database: Database, account: Account) -> None:
    task = await tasks.insert_task(database, task_id=uuid7(), created_by=account.id, title="Mow")
    assert await database.run(_DELETE, account_id=account.id) == 1
    assert await tasks.get_task(database, task_id=task.id, created_by=account.id, show_deleted=True) is None
