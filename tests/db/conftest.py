"""Rows that many tests need."""

from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import pytest

from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.queries import organizations
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


async def new_organization(database: Database) -> UUID:
    organization = await organizations.insert_organization(
        database, organization_id=uuid7(), name="x", slug=uuid4().hex
    )
    assert organization is not None
    return organization.id


@pytest.fixture
async def ours(database: Database) -> UUID:
    return await new_organization(database)


@pytest.fixture
async def theirs(database: Database) -> UUID:
    return await new_organization(database)
