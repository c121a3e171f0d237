"""Rows that tests about something else need."""

from collections.abc import Awaitable, Callable

import pytest

from accord_db.database import Database
from accord_db.ids import uuid7
from accord_db.queries.accounts import insert_account
from accord_db.schema import Account

NewAccount = Callable[[], Awaitable[Account]]


@pytest.fixture
def new_account(database: Database) -> NewAccount:
    async def new_account() -> Account:
        account_id = uuid7()
        account = await insert_account(
            database,
            account_id=account_id,
            email=f"{account_id}@example.com",
            display_name="Somebody",
            password_hash="none",
        )
        assert account is not None
        return account

    return new_account


@pytest.fixture
async def account(new_account: NewAccount) -> Account:
    return await new_account()
