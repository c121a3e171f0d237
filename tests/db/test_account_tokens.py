"""Account tokens: valid for one purpose, once, until they expire or are replaced."""

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
async def test_get_token_finds_a_token_by_hash_and_purpose_only(
    database: Database, account: Account, purpose: TokenPurpose
) -> None:
    assert await insert(database, account.id, purpose=purpose)
    found = await got(database, "token", purpose)
    assert (found.account_id, found.purpose, found.email) == (account.id, purpose, "ada@example.com")
    assert found.expires_at - found.created_at == DAY
    assert await got(database, "token", *TokenPurpose) == found
    assert await get(database, "another", purpose) is None
    assert await get(database, "token", *(other for other in TokenPurpose if other is not purpose)) is None


async def test_repr_of_a_row_does_not_show_the_hash(database: Database, account: Account) -> None:
    await insert(database, account.id)
    found = await got(database)
    assert found.token_hash == token_hash()
    assert repr(token_hash()) not in repr(found)


async def test_insert_token_replaces_the_token_of_the_same_account_and_purpose(
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


async def test_insert_token_for_an_unknown_or_deleted_account_inserts_nothing(
    database: Database, account: Account
) -> None:
    await accounts.delete_account(database, account_id=account.id)
    assert not await insert(database, account.id)
    assert not await insert(database, uuid7())
    assert await database.fetch_one(_COUNT) == 0


async def test_get_token_of_a_deleted_account_is_none(database: Database, account: Account) -> None:
    await insert(database, account.id)
    await accounts.delete_account(database, account_id=account.id)
    assert await get(database) is None


async def test_expired_token_is_not_found_and_cannot_be_used(database: Database, account: Account) -> None:
    await insert(database, account.id)
    found = await got(database)
    await database.execute(update(AccountToken).values(expires_at=func.now()))
    assert await get(database) is None
    assert not await account_tokens.use_token(database, token_id=found.id)


async def test_token_can_be_used_once(database: Database, account: Account) -> None:
    await insert(database, account.id)
    found = await got(database)
    assert await account_tokens.use_token(database, token_id=found.id)
    assert not await account_tokens.use_token(database, token_id=found.id)
    assert await get(database) is None


async def test_one_of_twenty_concurrent_uses_of_a_token_succeeds(database: Database, account: Account) -> None:
    await insert(database, account.id)
    found = await got(database)
    used = await asyncio.gather(*(account_tokens.use_token(database, token_id=found.id) for _ in range(20)))
    assert sorted(used) == [False] * 19 + [True]


async def test_rolled_back_use_leaves_the_token_valid(database: Database, account: Account) -> None:
    await insert(database, account.id)
    found = await got(database)
    with pytest.raises(LookupError):
        async with database.transaction() as tx:
            assert await account_tokens.use_token(tx, token_id=found.id)
            raise LookupError
    assert await account_tokens.use_token(database, token_id=found.id)


async def test_delete_tokens_deletes_only_those_of_the_account_and_purposes(
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


async def test_token_hash_must_be_unique_and_a_sha256(database: Database, account: Account) -> None:
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


async def test_one_of_ten_concurrent_tokens_remains_if_each_insert_locks_the_account(
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
