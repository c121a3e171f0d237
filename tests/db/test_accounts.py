"""Accounts: an e-mail address belongs to at most one account that is not deleted."""

import asyncio

import pytest
from sqlalchemy import func, select, text

from accord_db.engine.database import Database, Executor
from accord_db.engine.errors import AlreadyExists, InvalidValue
from accord_db.engine.ids import uuid7
from accord_db.queries import accounts
from accord_db.schema import Account
from tests.conftest import WAITING


async def insert(database: Database, email: str, display_name: str = "Ada") -> Account | None:
    return await accounts.insert_account(
        database, account_id=uuid7(), email=email, display_name=display_name, password_hash="$argon2id$"
    )


async def test_insert_account_returns_the_row_with_the_address_in_lower_case(database: Database) -> None:
    account = await insert(database, "Ada@Example.COM")
    assert account is not None
    assert (account.email, account.display_name, account.password_hash) == ("ada@example.com", "Ada", "$argon2id$")
    assert account.deleted_at is None


async def test_insert_account_with_a_taken_address_is_none_and_does_not_change_the_account(database: Database) -> None:
    first = await insert(database, "ada@example.com")
    assert await insert(database, "ADA@example.com", "Someone else") is None
    assert await accounts.get_account_by_email(database, email="ada@example.com") == first


async def test_ten_concurrent_inserts_of_one_address_create_one_account(database: Database) -> None:
    made = await asyncio.gather(*(insert(database, "ada@example.com") for _ in range(10)))
    assert len([account for account in made if account is not None]) == 1


async def test_deletion_frees_the_address_of_an_account(database: Database) -> None:
    first = await insert(database, "ada@example.com")
    assert first is not None
    await accounts.delete_account(database, account_id=first.id)
    assert await accounts.get_account(database, account_id=first.id) is None
    assert await accounts.get_account_by_email(database, email="ada@example.com") is None
    second = await insert(database, "ada@example.com")
    assert second is not None
    assert second.id != first.id


async def test_get_account_by_email_ignores_case_and_has_no_wildcards(database: Database) -> None:
    account = await insert(database, "ada@example.com")
    assert await accounts.get_account_by_email(database, email="aDa@eXample.com") == account
    assert await accounts.get_account_by_email(database, email="ada_example.com") is None
    assert await accounts.get_account_by_email(database, email="%") is None


@pytest.mark.parametrize(
    ("email", "display_name"),
    [("a" * 243 + "@example.com", "Ada"), ("ada@example.com", ""), ("ada@example.com", "x" * 101)],
    ids=["long address", "no name", "long name"],
)
async def test_insert_account_beyond_the_length_limits_is_an_invalid_value(
    database: Database, email: str, display_name: str
) -> None:
    with pytest.raises(InvalidValue):
        await insert(database, email, display_name)


async def test_account_without_a_password_has_no_hash(database: Database) -> None:
    account = await accounts.insert_account(
        database, account_id=uuid7(), email="ada@example.com", display_name="Ada", password_hash=None
    )
    assert account is not None
    assert account.password_hash is None


async def test_update_account_changes_the_given_columns_and_the_etag(database: Database, account: Account) -> None:
    changed = await accounts.update_account(database, account_id=account.id, changes={"display_name": "Ada"})
    assert changed is not None
    assert (changed.display_name, changed.email) == ("Ada", account.email)
    assert changed.etag != account.etag
    assert changed.updated_at > account.updated_at


async def test_update_account_with_another_etag_is_none_and_changes_nothing(
    database: Database, account: Account
) -> None:
    changes: accounts.AccountChanges = {"display_name": "Ada"}
    assert await accounts.update_account(database, account_id=account.id, changes=changes, etag=uuid7()) is None
    assert await accounts.get_account(database, account_id=account.id) == account
    assert await accounts.update_account(database, account_id=account.id, changes=changes, etag=account.etag)


async def test_update_email_verifies_the_new_address_and_rejects_a_taken_one(
    database: Database, account: Account
) -> None:
    assert await accounts.update_email(database, account_id=account.id, email="New@Example.com") == 1
    changed = await accounts.get_account_by_email(database, email="new@example.com")
    assert changed is not None
    assert (changed.id, changed.email) == (account.id, "new@example.com")
    assert changed.email_verified_at is not None
    other = await insert(database, "other@example.com")
    assert other is not None
    with pytest.raises(AlreadyExists):
        await accounts.update_email(database, account_id=other.id, email="NEW@example.com")


async def test_update_email_verified_requires_the_current_address_and_keeps_the_first_time(
    database: Database, account: Account
) -> None:
    assert await accounts.update_email_verified(database, account_id=account.id, email="other@example.com") == 0
    assert await accounts.update_email_verified(database, account_id=account.id, email=account.email.upper()) == 1
    first = await accounts.get_account(database, account_id=account.id)
    assert await accounts.update_email_verified(database, account_id=account.id, email=account.email) == 1
    second = await accounts.get_account(database, account_id=account.id)
    assert first is not None
    assert second is not None
    assert first.email_verified_at is not None
    assert second.email_verified_at == first.email_verified_at


async def test_delete_account_is_soft_and_happens_once(database: Database, account: Account) -> None:
    deleted = await accounts.delete_account(database, account_id=account.id)
    assert deleted is not None
    assert deleted.deleted_at is not None
    assert await accounts.delete_account(database, account_id=account.id) is None
    assert await accounts.get_account(database, account_id=account.id) is None


@pytest.mark.parametrize("by_email", [False, True], ids=["by id", "by address"])
async def test_second_lock_of_an_account_waits_for_the_first_and_sees_its_change(
    database: Database, account: Account, by_email: bool
) -> None:
    async def locked(tx: Executor) -> Account | None:
        if by_email:
            return await accounts.get_account_by_email_locked(tx, email=account.email.upper())
        return await accounts.get_account_locked(tx, account_id=account.id)

    async def look() -> Account | None:
        async with database.transaction() as tx:
            return await locked(tx)

    async with database.transaction() as tx:
        assert await locked(tx) == account
        looking = asyncio.create_task(look())
        async with asyncio.timeout(10):
            while not await database_waits(database):
                await asyncio.sleep(0.01)
        await accounts.update_password_hash(tx, account_id=account.id, password_hash="new")
    seen = await looking
    assert seen is not None
    assert seen.password_hash == "new"


async def database_waits(database: Database) -> bool:
    """Whether a statement waits for a lock."""
    waiting = select(func.count()).select_from(text(WAITING))
    return bool(await asyncio.create_task(database.fetch_one(waiting)))  # another task is not part of the transaction


async def test_lock_of_an_unknown_account_is_none(database: Database) -> None:
    assert await accounts.get_account_locked(database, account_id=uuid7()) is None
    assert await accounts.get_account_by_email_locked(database, email="unknown@example.com") is None
