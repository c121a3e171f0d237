"""Sign-ins with providers are used once; one process at a time refreshes tokens."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.queries import providers
from accord_db.queries.providers import EncryptedTokens
from accord_db.schema import Account, LinkedProvider
from tests.db.conftest import NewAccount

HASH = b"h" * 32
HOUR = timedelta(hours=1)


async def begin(database: Database, *, account_id: UUID | None = None, lifetime: timedelta = HOUR) -> None:
    await providers.insert_provider_sign_in(
        database,
        sign_in_id=uuid7(),
        token_hash=HASH,
        provider="corp",
        redirect_uri="https://app.example.com",
        lifetime=lifetime,
        account_id=account_id,
    )


async def link(
    database: Database, account: Account, *, subject: str = "ada", lifetime: timedelta = HOUR
) -> LinkedProvider:
    async with database.transaction() as tx:
        return await providers.insert_linked_provider(
            tx,
            linked_provider_id=uuid7(),
            account_id=account.id,
            provider="corp",
            issuer="https://corp.example.com",
            subject=subject,
            email=None,
            tokens=EncryptedTokens(b"access", b"refresh", lifetime),
        )


async def test_one_of_twenty_concurrent_uses_of_a_sign_in_succeeds(database: Database) -> None:
    await begin(database)
    used = await asyncio.gather(
        *(providers.use_provider_sign_in(database, token_hash=HASH, account_id=None) for _ in range(20))
    )
    assert sorted(used) == [0] * 19 + [1]
    assert await providers.get_provider_sign_in(database, token_hash=HASH, account_id=None) is None


async def test_sign_in_is_found_only_by_the_account_that_began_it(database: Database, new_account: NewAccount) -> None:
    mine, other = (await new_account()).id, (await new_account()).id
    await begin(database, account_id=mine)
    for account_id in (None, other):
        assert await providers.get_provider_sign_in(database, token_hash=HASH, account_id=account_id) is None
        assert not await providers.use_provider_sign_in(database, token_hash=HASH, account_id=account_id)
    assert await providers.use_provider_sign_in(database, token_hash=HASH, account_id=mine)


async def test_expired_sign_in_cannot_be_used(database: Database) -> None:
    await begin(database, lifetime=timedelta(0))
    assert not await providers.use_provider_sign_in(database, token_hash=HASH, account_id=None)


async def test_identity_is_found_by_issuer_and_subject_together(database: Database, new_account: NewAccount) -> None:
    linked = await link(database, await new_account())
    found = await providers.get_linked_provider(database, issuer=linked.issuer, subject="ada")
    assert found == linked
    assert await providers.get_linked_provider(database, issuer=linked.issuer, subject="Ada") is None
    assert await providers.get_linked_provider(database, issuer="https://other.example.com", subject="ada") is None


async def test_second_lock_of_an_identity_waits_for_the_first(database: Database) -> None:
    identity = {"issuer": "https://corp.example.com", "subject": "ada"}

    async def lock() -> None:
        async with database.transaction() as tx:
            await providers.lock_identity(tx, **identity)

    async with database.transaction() as tx:
        await providers.lock_identity(tx, **identity)
        waiting = asyncio.create_task(lock())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.1)
    await waiting


async def test_refresh_token_stays_if_a_sign_in_returns_none(database: Database, new_account: NewAccount) -> None:
    linked = await link(database, await new_account())
    async with database.transaction() as tx:
        renewed = await providers.update_linked_provider(
            tx,
            linked_provider_id=linked.id,
            provider="corp",
            email="ada@example.com",
            tokens=EncryptedTokens(b"new", None, None),
        )
    assert renewed is not None
    assert (renewed.access_token, renewed.refresh_token) == (b"new", b"refresh")
    assert renewed.access_token_expires_at is None


async def test_one_of_concurrent_claims_of_a_refresh_succeeds_until_the_lease_ends(
    database: Database, new_account: NewAccount
) -> None:
    linked = await link(database, await new_account(), lifetime=timedelta(0))

    async def claim(lease: timedelta, seen: bytes = b"access") -> datetime | None:
        return await providers.claim_refresh(database, linked_provider_id=linked.id, access_token=seen, lease=lease)

    claims = await asyncio.gather(*(claim(HOUR) for _ in range(10)))
    assert sum(claimed is not None for claimed in claims) == 1
    (mine,) = [claimed for claimed in claims if claimed is not None]
    tokens = EncryptedTokens(b"new", b"newer", HOUR)
    assert await providers.update_tokens(database, linked_provider_id=linked.id, claimed=mine, tokens=tokens) == 1
    assert await providers.update_tokens(database, linked_provider_id=linked.id, claimed=mine, tokens=tokens) == 0
    assert await claim(HOUR) is None  # the access token has been replaced
    assert await claim(timedelta(0), b"new") is not None
    assert await claim(HOUR, b"new") is not None
