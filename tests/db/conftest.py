"""Fixtures: accounts and organizations."""

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine

from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.queries import organizations
from accord_db.queries.accounts import insert_account
from accord_db.schema import Account
from tests.rows import Rows

NewAccount = Callable[[], Awaitable[Account]]
NewRows = Callable[[Account], Rows]


@pytest.fixture
def new_rows(dsn: str) -> Iterator[NewRows]:
    """Inserts rows of an account into any table, and sees all tenants."""
    engine = create_engine("postgresql+psycopg://", creator=partial(psycopg.connect, dsn), poolclass=NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield lambda account: Rows(connection, account.id)
    engine.dispose()


@pytest.fixture
def new_account(database: Database) -> NewAccount:
    async def new_account() -> Account:
        account_id = uuid7()
        account = await insert_account(
            database,
            account_id=account_id,
            email=f"{account_id}@example.com",
            display_name="Ada",
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
