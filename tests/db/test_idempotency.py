"""Idempotency keys: claimed once, with a stored response for a day."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from sqlalchemy import bindparam, cast, func, select, text, update
from sqlalchemy.types import Interval

from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.queries import idempotency
from accord_db.schema import Account, IdempotencyKey
from tests.conftest import WAITING
from tests.db.conftest import NewAccount

_AGE = update(IdempotencyKey).values(created_at=func.now() - cast(bindparam("age"), Interval))


async def claim(database: Database, account: Account, request_id: UUID, request_hash: bytes = b"hash") -> bool:
    key = await idempotency.claim_key(database, account_id=account.id, request_id=request_id, request_hash=request_hash)
    return key is not None


async def test_key_can_be_claimed_once(database: Database, account: Account) -> None:
    request_id = uuid7()
    assert await claim(database, account, request_id)
    assert not await claim(database, account, request_id)


async def test_key_of_one_account_is_free_for_another(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    request_id = uuid7()
    assert await claim(database, account, request_id)
    assert await claim(database, await new_account(), request_id)


async def test_response_is_stored_with_the_hash_of_the_request(database: Database, account: Account) -> None:
    request_id = uuid7()
    await claim(database, account, request_id, b"hash")
    stored = await idempotency.store_response(
        database, account_id=account.id, request_id=request_id, response=b"\0response"
    )
    key = await idempotency.get_key(database, account_id=account.id, request_id=request_id)
    assert stored == 1
    assert key is not None
    assert (key.request_hash, key.response) == (b"hash", b"\0response")


async def test_key_is_free_again_after_a_day_without_the_old_response(database: Database, account: Account) -> None:
    request_id = uuid7()
    await claim(database, account, request_id)
    await idempotency.store_response(database, account_id=account.id, request_id=request_id, response=b"old")
    await database.execute(_AGE, age=timedelta(hours=23, minutes=59))
    assert not await claim(database, account, request_id)
    await database.execute(_AGE, age=timedelta(hours=24, minutes=1))
    assert await claim(database, account, request_id, b"new")
    key = await idempotency.get_key(database, account_id=account.id, request_id=request_id)
    assert key is not None
    assert (key.request_hash, key.response) == (b"new", None)


async def until_waiting(database: Database) -> None:
    """Returns when a statement waits for the lock of another transaction."""
    async with asyncio.timeout(10):
        while not await asyncio.create_task(database.fetch_one(select(func.count()).select_from(text(WAITING)))):
            await asyncio.sleep(0.01)


async def test_second_claim_waits_and_finds_the_response_of_the_first(database: Database, account: Account) -> None:
    request_id = uuid7()
    async with database.transaction() as transaction:
        await idempotency.claim_key(transaction, account_id=account.id, request_id=request_id, request_hash=b"hash")
        second = asyncio.create_task(claim(database, account, request_id))
        await until_waiting(database)
        assert not second.done()
        await idempotency.store_response(transaction, account_id=account.id, request_id=request_id, response=b"first")
    assert not await second
    key = await idempotency.get_key(database, account_id=account.id, request_id=request_id)
    assert key is not None
    assert key.response == b"first"


async def test_second_claim_succeeds_if_the_first_transaction_fails(database: Database, account: Account) -> None:
    request_id = uuid7()
    with suppress(ZeroDivisionError):
        async with database.transaction() as transaction:
            await idempotency.claim_key(transaction, account_id=account.id, request_id=request_id, request_hash=b"hash")
            second = asyncio.create_task(claim(database, account, request_id))
            await until_waiting(database)
            raise ZeroDivisionError
    assert await second
