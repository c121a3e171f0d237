"""Second factors on a real database: which codes work, and how often."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from sqlalchemy import bindparam, select, update

from accord_auth.encryption import KEY_BYTES, Keyring, Undecipherable
from accord_auth.second_factors import SecondFactors
from accord_db.engine.database import Database
from accord_db.queries.second_factors import confirm_second_factor
from accord_db.schema import SecondFactor
from accord_rpc.errors import RpcError
from tests.authenticator import Authenticator
from tests.conftest import Connect
from tests.factories import signed_in_person

KEYS = Keyring({"now": secrets.token_bytes(KEY_BYTES)})
_SECRETS = select(SecondFactor.secret)
_MOVE = update(SecondFactor).values(account_id=bindparam("new_account_id"))
_FORGET_USE = update(SecondFactor).values(last_step=None)


@dataclass
class Owner:
    account_id: UUID
    app: Authenticator
    recovery_codes: list[str] = field(default_factory=list)

    def code(self, off: int = 0) -> str:
        return self.app.code(off)


@pytest.fixture
def second_factors(database: Database) -> SecondFactors:
    return SecondFactors(KEYS)


NewOwner = Callable[[], Awaitable[Owner]]


@pytest.fixture
def new_owner(second_factors: SecondFactors, database: Database) -> NewOwner:
    async def new_owner() -> Owner:
        account_id = (await signed_in_person(database)).account_id
        async with database.transaction() as tx:
            factor_id, secret = await second_factors.create(tx, account_id)
            owner = Owner(account_id, await Authenticator.shown(tx, secret))
            # With the previous step's code, so that the codes of this step and the next are still valid.
            await confirm_second_factor(tx, second_factor_id=factor_id, step=owner.app.step - 1)
            _, owner.recovery_codes = await second_factors.renew_recovery_codes(tx, account_id)
        return owner

    return new_owner


@pytest.fixture
async def owner(new_owner: NewOwner) -> Owner:
    return await new_owner()


async def test_code_works_once(second_factors: SecondFactors, database: Database, owner: Owner) -> None:
    code = owner.code()
    assert await second_factors.verify(database, owner.account_id, code=code)
    assert not await second_factors.verify(database, owner.account_id, code=code)


async def test_code_that_confirmed_the_factor_does_not_work_again(
    second_factors: SecondFactors, database: Database
) -> None:
    me = (await signed_in_person(database)).account_id
    async with database.transaction() as tx:
        _, secret = await second_factors.create(tx, me)
    app = await Authenticator.shown(database, secret)
    async with database.transaction() as tx:
        await second_factors.confirm(tx, me, code=app.code())
    assert not await second_factors.verify(database, me, code=app.code())
    assert await second_factors.verify(database, me, code=app.code(+1))


async def test_code_before_the_last_used_one_is_refused(
    second_factors: SecondFactors, database: Database, owner: Owner
) -> None:
    present = owner.code()
    assert await second_factors.verify(database, owner.account_id, code=owner.code(+1))
    assert not await second_factors.verify(database, owner.account_id, code=present)


async def test_old_codes_are_refused(second_factors: SecondFactors, owner: Owner, database: Database) -> None:
    await database.execute(_FORGET_USE)
    assert not await second_factors.verify(database, owner.account_id, code=owner.code(-2))
    assert not await second_factors.verify(database, owner.account_id, code=owner.code(+10))


async def test_wrong_code_uses_no_code_up(second_factors: SecondFactors, database: Database, owner: Owner) -> None:
    right = owner.code()
    wrong = f"{(int(right) + 1) % 1_000_000:06}"
    assert not await second_factors.verify(database, owner.account_id, code=wrong)
    assert await second_factors.verify(database, owner.account_id, code=right)


async def test_empty_code_is_refused(second_factors: SecondFactors, database: Database, owner: Owner) -> None:
    assert not await second_factors.verify(database, owner.account_id)


async def test_recovery_code_works_once(second_factors: SecondFactors, database: Database, owner: Owner) -> None:
    for code in owner.recovery_codes:
        assert await second_factors.verify(database, owner.account_id, recovery_code=code.lower().replace("-", ""))
        assert not await second_factors.verify(database, owner.account_id, recovery_code=code)


async def test_new_recovery_codes_replace_the_previous_ones(
    second_factors: SecondFactors, owner: Owner, database: Database
) -> None:
    async with database.transaction() as tx:
        _, codes = await second_factors.renew_recovery_codes(tx, owner.account_id)
    assert not await second_factors.verify(database, owner.account_id, recovery_code=owner.recovery_codes[0])
    assert await second_factors.verify(database, owner.account_id, recovery_code=codes[0])


async def test_concurrent_renewals_leave_ten_recovery_codes(
    second_factors: SecondFactors, owner: Owner, database: Database
) -> None:
    async def renew() -> list[str]:
        async with database.transaction() as tx:
            return (await second_factors.renew_recovery_codes(tx, owner.account_id))[1]

    made = await asyncio.gather(*(renew() for _ in range(8)))
    good = [
        await second_factors.verify(database, owner.account_id, recovery_code=code) for codes in made for code in codes
    ]
    assert sum(good) == 10


async def test_codes_of_another_account_are_refused(
    second_factors: SecondFactors, database: Database, new_owner: NewOwner
) -> None:
    me, other = await new_owner(), await new_owner()
    assert not await second_factors.verify(database, me.account_id, code=other.code())
    assert not await second_factors.verify(database, me.account_id, recovery_code=other.recovery_codes[0])
    assert await second_factors.verify(database, other.account_id, code=other.code())


@pytest.mark.parametrize("by", ["code", "recovery_code"])
async def test_one_of_fifty_concurrent_uses_of_a_code_succeeds(
    second_factors: SecondFactors, owner: Owner, database: Database, by: str
) -> None:
    proof = {by: owner.code() if by == "code" else owner.recovery_codes[0]}

    async def sign_in() -> bool:
        async with database.transaction() as tx:
            return await second_factors.verify(tx, owner.account_id, **proof)

    assert sum(await asyncio.gather(*(sign_in() for _ in range(50)))) == 1


@pytest.mark.parametrize("by", ["code", "recovery_code"])
async def test_code_of_a_failed_call_is_not_used_up(
    second_factors: SecondFactors, owner: Owner, database: Database, by: str
) -> None:
    proof = {by: owner.code() if by == "code" else owner.recovery_codes[0]}
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as tx:
            assert await second_factors.verify(tx, owner.account_id, **proof)
            raise ZeroDivisionError
    assert await second_factors.verify(database, owner.account_id, **proof)


async def test_concurrent_use_of_a_code_waits_for_the_first_and_is_refused(
    second_factors: SecondFactors, owner: Owner, database: Database
) -> None:
    code = owner.code()
    async with database.transaction() as tx:
        assert await second_factors.verify(tx, owner.account_id, code=code)
        other = asyncio.create_task(second_factors.verify(database, owner.account_id, code=code))
        await asyncio.sleep(0)
    assert not await other


async def test_factor_is_enabled_once_it_is_confirmed(second_factors: SecondFactors, database: Database) -> None:
    me = (await signed_in_person(database)).account_id
    assert not await second_factors.is_enabled(database, me)
    async with database.transaction() as tx:
        _, secret = await second_factors.create(tx, me)
    app = await Authenticator.shown(database, secret)
    assert not await second_factors.is_enabled(database, me)
    assert not await second_factors.verify(database, me, code=app.code())
    async with database.transaction() as tx:
        await second_factors.confirm(tx, me, code=app.code())
    assert await second_factors.is_enabled(database, me)


async def test_secret_is_encrypted_and_bound_to_its_account(
    second_factors: SecondFactors, owner: Owner, database: Database
) -> None:
    stored = await database.fetch_one(_SECRETS)
    assert stored is not None
    assert owner.app.secret not in stored
    with pytest.raises(Undecipherable):
        await SecondFactors(Keyring({"now": secrets.token_bytes(KEY_BYTES)})).verify(
            database, owner.account_id, code=owner.code()
        )
    thief = (await signed_in_person(database)).account_id
    await database.execute(_MOVE, new_account_id=thief)
    with pytest.raises(Undecipherable):
        await second_factors.verify(database, thief, code=owner.code())


async def test_concurrent_confirmation_and_creation_are_serialized(
    second_factors: SecondFactors, connect: Connect
) -> None:
    database = await connect(pool_size=8)
    for _ in range(10):
        me = (await signed_in_person(database)).account_id
        async with database.transaction() as tx:
            _, secret = await second_factors.create(tx, me)
        code = (await Authenticator.shown(database, secret)).code()

        async def confirm(me: UUID = me, code: str = code) -> str:
            async with database.transaction() as tx:
                await second_factors.confirm(tx, me, code=code)
            return "confirmed"

        async def create(me: UUID = me) -> str:
            async with database.transaction() as tx:
                await second_factors.create(tx, me)
            return "created"

        ended = await asyncio.gather(confirm(), create(), confirm(), create(), return_exceptions=True)
        outcomes = [str(each) for each in ended]
        if await second_factors.is_enabled(database, me):
            # Later calls were refused, and no creation replaced the secret before.
            assert outcomes.count("confirmed") == 1, outcomes
        else:
            assert "confirmed" not in outcomes, outcomes
        assert {type(each) for each in ended} <= {str, RpcError}, outcomes
