"""Account tokens: for one purpose, good once, until they expire or another takes their place."""

import asyncio
import hashlib
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from accord_db.engine.database import Database
from accord_db.engine.errors import AlreadyExists, InvalidValue
from accord_db.engine.ids import uuid7
from accord_db.queries import account_tokens, accounts
from accord_db.schema import Account, AccountToken, TokenPurpose
from tests.db.conftest import NewAccount

DAY = timedelta(days=1)
RESET, VERIFY = TokenPurpose.RESET_PASSWORD, TokenPurpose.VERIFY_EMAIL

_COUNT = select(func.count()).select_from(AccountToken)


def token_hash(token: str = "token") -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def insert(
    database: Database,
    account_id: UUID,
    token: str = "token",
    purpose: TokenPurpose = RESET,
    lifetime: timedelta = DAY,
) -> bool:
    return await account_tokens.insert_token(
        database,
        token_id=uuid7(),
        account_id=account_id,
        purpose=purpose,
        token_hash=token_hash(token),
        email="Ada@Example.com",
        lifetime=lifetime,
    )


async def get(database: Database, token: str = "token", *purposes: TokenPurpose) -> AccountToken | None:
    return await account_tokens.get_token(database, token_hash=token_hash(token), purposes=purposes or [RESET])


async def got(database: Database, token: str = "token", *purposes: TokenPurpose) -> AccountToken:
    found = await get(database, token, *purposes)
    assert found is not None
    return found


@pytest.mark.parametrize("purpose", TokenPurpose)
async def test_a_token_is_found_by_its_hash_and_purpose_alone(
    database: Database, account: Account, purpose: TokenPurpose
) -> None:
    assert await insert(database, account.id, purpose=purpose)
    found = await got(database, "token", purpose)
    assert (found.account_id, found.purpose, found.email) == (account.id, purpose, "ada@example.com")
    assert found.expires_at - found.created_at == DAY
    assert await got(database, "token", *TokenPurpose) == found
    assert await get(database, "another", purpose) is None
    assert await get(database, "token", *(other for other in TokenPurpose if other is not purpose)) is None


async def test_the_hash_is_not_shown_with_the_row(database: Database, account: Account) -> None:
    await insert(database, account.id)
    found = await got(database)
    assert found.token_hash == token_hash()
    assert repr(token_hash()) not in repr(found)


async def test_a_token_takes_the_place_of_those_of_its_account_and_purpose(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    await insert(database, account.id, "former")
    await insert(database, account.id, "of another purpose", VERIFY)
    await insert(database, (await new_account()).id, "of another account")
    await insert(database, account.id, "new")
    assert await get(database, "former") is None
    await got(database, "new")
    await got(database, "of another purpose", VERIFY)
    await got(database, "of another account")


async def test_there_is_no_token_for_an_account_that_is_not_there_or_deleted(
    database: Database, account: Account
) -> None:
    await accounts.delete_account(database, account_id=account.id)
    assert not await insert(database, account.id)
    assert not await insert(database, uuid7())
    assert await database.fetch_one(_COUNT) == 0


async def test_a_token_of_a_deleted_account_is_none(database: Database, account: Account) -> None:
    await insert(database, account.id)
    await accounts.delete_account(database, account_id=account.id)
    assert await get(database) is None


async def test_an_expired_token_is_none_and_cannot_be_used(database: Database, account: Account) -> None:
    await insert(database, account.id)
    found = await got(database)
    await database.execute(update(AccountToken).values(expires_at=func.now()))
    assert await get(database) is None
    assert not await account_tokens.use_token(database, token_id=found.id)


async def test_a_token_is_used_once_and_none_after(database: Database, account: Account) -> None:
    await insert(database, account.id)
    found = await got(database)
    assert await account_tokens.use_token(database, token_id=found.id)
    assert not await account_tokens.use_token(database, token_id=found.id)
    assert await get(database) is None


async def test_of_twenty_uses_at_once_one_is_told_that_it_was_good(database: Database, account: Account) -> None:
    await insert(database, account.id)
    found = await got(database)
    used = await asyncio.gather(*(account_tokens.use_token(database, token_id=found.id) for _ in range(20)))
    assert sorted(used) == [False] * 19 + [True]


async def test_a_use_that_is_rolled_back_leaves_the_token_good(database: Database, account: Account) -> None:
    await insert(database, account.id)
    found = await got(database)
    with pytest.raises(LookupError):
        async with database.transaction() as tx:
            assert await account_tokens.use_token(tx, token_id=found.id)
            raise LookupError
    assert await account_tokens.use_token(database, token_id=found.id)


async def test_delete_tokens_takes_those_of_the_account_and_purposes_alone(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    other = await new_account()
    for purpose in TokenPurpose:
        await insert(database, account.id, purpose, purpose)
        await insert(database, other.id, f"other {purpose}", purpose)
    assert await account_tokens.delete_tokens(database, account_id=account.id, purposes=[RESET, VERIFY]) == 2
    assert await get(database, RESET) is None
    await got(database, TokenPurpose.SECOND_STEP, TokenPurpose.SECOND_STEP)
    await got(database, f"other {RESET}")


async def test_two_tokens_cannot_have_one_hash_and_what_is_no_hash_is_refused(
    database: Database, account: Account
) -> None:
    await insert(database, account.id)
    with pytest.raises(AlreadyExists):
        await insert(database, account.id, purpose=VERIFY)
    with pytest.raises(InvalidValue):
        await account_tokens.insert_token(
            database,
            token_id=uuid7(),
            account_id=account.id,
            purpose=RESET,
            token_hash=b"token",
            email="ada@example.com",
            lifetime=DAY,
        )


async def test_of_new_tokens_at_once_one_stays_if_the_account_is_locked_for_each(
    database: Database, account: Account
) -> None:
    async def insert_locked(number: int) -> None:
        async with database.transaction() as tx:
            await accounts.get_account_locked(tx, account_id=account.id)
            await account_tokens.insert_token(
                tx,
                token_id=uuid7(),
                account_id=account.id,
                purpose=RESET,
                token_hash=token_hash(str(number)),
                email="ada@example.com",
                lifetime=DAY,
            )

    await asyncio.gather(*(insert_locked(number) for number in range(10)))
    assert await database.fetch_one(_COUNT) == 1
