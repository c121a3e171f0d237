"""Second factors: at most one per account; each code can be used once, also by concurrent callers."""

import asyncio
from datetime import timedelta
from uuid import UUID

from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.queries import second_factors
from accord_db.schema import Account
from tests.db.conftest import NewAccount

CODE, OTHER_CODE = b"1" * 32, b"2" * 32


async def unconfirmed(database: Database, account: Account, secret: bytes = b"secret") -> UUID:
    made = await second_factors.insert_second_factor(
        database, second_factor_id=uuid7(), account_id=account.id, secret=secret
    )
    assert made is not None
    return made


async def confirmed(database: Database, account: Account, step: int = 100) -> UUID:
    factor_id = await unconfirmed(database, account)
    assert await second_factors.confirm_second_factor(database, second_factor_id=factor_id, step=step) == 1
    return factor_id


async def with_codes(database: Database, account: Account) -> UUID:
    factor_id = await confirmed(database, account)
    await second_factors.insert_recovery_codes(
        database, second_factor_id=factor_id, ids=[uuid7(), uuid7()], code_hashes=[CODE, OTHER_CODE]
    )
    return factor_id


async def use_step(database: Database, factor_id: UUID, step: int) -> bool:
    return await second_factors.use_step(database, second_factor_id=factor_id, step=step)


async def use_code(database: Database, account: Account, code: bytes = CODE) -> bool:
    return await second_factors.use_recovery_code(database, account_id=account.id, code_hash=code)


async def test_new_second_factor_is_unconfirmed(database: Database, account: Account) -> None:
    factor_id = await unconfirmed(database, account)
    found = await second_factors.get_unconfirmed_second_factor(database, account_id=account.id)
    assert found is not None
    assert (found.factor.id, found.factor.account_id, found.factor.secret) == (factor_id, account.id, b"secret")
    assert await second_factors.get_confirmed_second_factor(database, account_id=account.id) is None
    assert await second_factors.get_second_factor_summary(database, account_id=account.id) is None
    assert await second_factors.lock_second_factor(database, account_id=account.id) is None
    assert await second_factors.delete_second_factor(database, account_id=account.id) is None


async def test_confirmed_second_factor_is_not_unconfirmed(database: Database, account: Account) -> None:
    factor_id = await confirmed(database, account)
    found = await second_factors.get_confirmed_second_factor(database, account_id=account.id)
    assert found is not None
    assert (found.factor.id, found.factor.last_step) == (factor_id, 100)
    assert found.factor.confirmed_at is not None
    assert timedelta() <= found.now - found.factor.confirmed_at < timedelta(minutes=1)
    assert await second_factors.get_unconfirmed_second_factor(database, account_id=account.id) is None
    assert await second_factors.lock_second_factor(database, account_id=account.id) == factor_id


async def test_repr_of_a_row_does_not_show_the_secret(database: Database, account: Account) -> None:
    await unconfirmed(database, account, b"the secret")
    found = await second_factors.get_unconfirmed_second_factor(database, account_id=account.id)
    assert "the secret" not in repr(found)


async def test_insert_replaces_an_unconfirmed_second_factor_with_a_new_id(database: Database, account: Account) -> None:
    first, second = await unconfirmed(database, account), await unconfirmed(database, account, b"another")
    assert first != second
    assert await second_factors.confirm_second_factor(database, second_factor_id=first, step=1) == 0
    assert await second_factors.confirm_second_factor(database, second_factor_id=second, step=1) == 1


async def test_confirmed_second_factor_cannot_be_replaced_or_confirmed_again(
    database: Database, account: Account
) -> None:
    factor_id = await confirmed(database, account)
    another = await second_factors.insert_second_factor(
        database, second_factor_id=uuid7(), account_id=account.id, secret=b"another"
    )
    assert another is None
    assert await second_factors.confirm_second_factor(database, second_factor_id=factor_id, step=1000) == 0
    found = await second_factors.get_confirmed_second_factor(database, account_id=account.id)
    assert found is not None
    assert (found.factor.secret, found.factor.last_step) == (b"secret", 100)


async def test_steps_only_go_up(database: Database, account: Account) -> None:
    factor_id = await confirmed(database, account, step=100)
    used = [await use_step(database, factor_id, step) for step in (99, 100, 101, 101, 100, 103, 102)]
    assert used == [0, 0, 1, 0, 0, 1, 0]


async def test_step_of_an_unconfirmed_second_factor_cannot_be_used(database: Database, account: Account) -> None:
    assert not await use_step(database, await unconfirmed(database, account), 1)


async def test_one_of_fifty_concurrent_uses_of_a_step_succeeds(database: Database, account: Account) -> None:
    factor_id = await confirmed(database, account)
    assert sum(await asyncio.gather(*(use_step(database, factor_id, 101) for _ in range(50)))) == 1


async def test_rolled_back_use_of_a_step_leaves_it_unused(database: Database, account: Account) -> None:
    factor_id = await confirmed(database, account)
    try:
        async with database.transaction() as tx:
            assert await second_factors.use_step(tx, second_factor_id=factor_id, step=101)
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert await use_step(database, factor_id, 101)


async def test_one_of_fifty_concurrent_uses_of_a_recovery_code_succeeds(database: Database, account: Account) -> None:
    await with_codes(database, account)
    assert sum(await asyncio.gather(*(use_code(database, account) for _ in range(50)))) == 1
    assert not await use_code(database, account)
    assert await use_code(database, account, OTHER_CODE)


async def test_recovery_code_of_another_account_is_rejected(database: Database, new_account: NewAccount) -> None:
    mine, theirs = await new_account(), await new_account()
    await with_codes(database, theirs)
    await confirmed(database, mine)
    assert not await use_code(database, mine)
    assert await use_code(database, theirs)


async def test_summary_counts_unused_recovery_codes(database: Database, account: Account) -> None:
    await with_codes(database, account)
    await use_code(database, account)
    found = await second_factors.get_second_factor_summary(database, account_id=account.id)
    assert found is not None
    assert found.recovery_codes_left == 1


async def test_deletion_of_a_second_factor_deletes_its_recovery_codes(database: Database, account: Account) -> None:
    factor_id = await with_codes(database, account)
    assert await second_factors.delete_second_factor(database, account_id=account.id) == factor_id
    assert await second_factors.get_confirmed_second_factor(database, account_id=account.id) is None
    assert not await use_code(database, account)
    assert await second_factors.delete_recovery_codes(database, second_factor_id=factor_id) == 0


async def test_one_of_twenty_concurrent_inserts_remains_unconfirmed(database: Database, account: Account) -> None:
    made = await asyncio.gather(*(unconfirmed(database, account) for _ in range(20)))
    found = await second_factors.get_unconfirmed_second_factor(database, account_id=account.id)
    assert found is not None
    assert found.factor.id in made
    confirmed = [await second_factors.confirm_second_factor(database, second_factor_id=each, step=1) for each in made]
    assert sum(confirmed) == 1
