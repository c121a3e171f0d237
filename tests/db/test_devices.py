"""Device sign-ins: the interval between polls, one approval or denial, and one use."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Interval, bindparam, cast, func, select, update

from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.queries import devices, sessions
from accord_db.queries.devices import Poll
from accord_db.schema import Account, DeviceSignIn, Session
from tests.conftest import WAITING, Connect
from tests.db.conftest import NewAccount
from tests.factories import Person, signed_in_person

DEVICE, USER = b"d" * 32, b"u" * 32
_EXPIRE = update(DeviceSignIn).values(expires_at=func.now())
_AGE_POLL = update(DeviceSignIn).values(last_polled_at=func.now() - cast(bindparam("age"), Interval))
_AUTHENTICATED_BEFORE = (
    update(Session)
    .where(Session.id == bindparam("session_id"))
    .values(authenticated_at=func.now() - cast(bindparam("age"), Interval))
)
_GET = select(DeviceSignIn)


async def insert(database: Database, **changes: Any) -> DeviceSignIn | None:
    values: dict[str, Any] = {
        "sign_in_id": uuid7(),
        "device_code_hash": DEVICE,
        "user_code_hash": USER,
        "device_name": "a command line",
        "peer": "192.0.2.7",
        "user_agent": None,
        "lifetime": timedelta(minutes=10),
        "interval_seconds": 5,
    }
    return await devices.insert_device_sign_in(database, **values | changes)


@pytest.fixture
async def waiting(database: Database) -> DeviceSignIn:
    sign_in = await insert(database)
    assert sign_in is not None
    return sign_in


@pytest.fixture
async def me(database: Database) -> Person:
    return await signed_in_person(database)


async def poll(database: Database) -> Poll:
    found = await devices.poll_device_sign_in(database, device_code_hash=DEVICE, slow_down_seconds=5)
    assert found is not None
    return found


async def approve(database: Database, approver: Person) -> DeviceSignIn | None:
    return await devices.approve_device_sign_in(
        database, user_code_hash=USER, account_id=approver.account_id, session_id=approver.session_id
    )


async def deny(database: Database, account_id: UUID) -> DeviceSignIn | None:
    return await devices.deny_device_sign_in(database, user_code_hash=USER, account_id=account_id)


async def is_pending(database: Database) -> bool:
    return await devices.get_pending_device_sign_in(database, user_code_hash=USER) is not None


# --- codes -------------------------------------------------------------------------------------------------------------
async def test_new_sign_in_has_no_account(waiting: DeviceSignIn) -> None:
    assert waiting.account_id is None
    assert (waiting.approved_at, waiting.denied_at, waiting.used_at) == (None, None, None)
    assert waiting.expires_at - waiting.created_at == timedelta(minutes=10)


@pytest.mark.parametrize("other", [{"device_code_hash": b"o" * 32}, {"user_code_hash": b"o" * 32}])
async def test_insert_with_a_code_of_another_sign_in_is_none(
    database: Database, waiting: DeviceSignIn, other: dict[str, bytes]
) -> None:
    assert await insert(database, **other) is None
    assert await insert(database, device_code_hash=b"o" * 32, user_code_hash=b"o" * 32) is not None


async def test_expired_sign_in_cannot_be_polled_approved_or_denied(
    database: Database, waiting: DeviceSignIn, me: Person
) -> None:
    await database.execute(_EXPIRE)
    assert await devices.poll_device_sign_in(database, device_code_hash=DEVICE, slow_down_seconds=5) is None
    assert not await is_pending(database)
    assert await approve(database, me) is None
    assert await deny(database, me.account_id) is None


async def test_approved_sign_in_cannot_be_used_after_its_expiry(
    database: Database, waiting: DeviceSignIn, me: Person
) -> None:
    await approve(database, me)
    await database.execute(_EXPIRE)
    assert not await devices.use_device_sign_in(database, sign_in_id=waiting.id)


# --- polls ---------------------------------------------------------------------------------------------------------------
async def test_first_poll_and_poll_after_the_interval_are_not_too_soon(
    database: Database, waiting: DeviceSignIn
) -> None:
    assert not (await poll(database)).too_soon
    await database.execute(_AGE_POLL, age=timedelta(seconds=5))
    assert not (await poll(database)).too_soon


async def test_every_poll_that_is_too_soon_makes_the_interval_longer(database: Database, waiting: DeviceSignIn) -> None:
    await poll(database)
    await database.execute(_AGE_POLL, age=timedelta(seconds=4.5))
    second = await poll(database)
    assert (second.too_soon, second.interval_seconds) == (True, 10)
    await database.execute(_AGE_POLL, age=timedelta(seconds=9.5))
    third = await poll(database)
    assert (third.too_soon, third.interval_seconds) == (True, 15)
    await database.execute(_AGE_POLL, age=timedelta(seconds=15))
    fourth = await poll(database)
    assert (fourth.too_soon, fourth.interval_seconds) == (False, 15)


async def test_all_but_one_of_concurrent_polls_are_too_soon(connect: Connect, waiting: DeviceSignIn, dsn: str) -> None:
    database = await connect(pool_size=10)
    waiting_for_locks = f"SELECT count(*) FROM {WAITING}".encode()
    with psycopg.connect(dsn) as holder, psycopg.connect(dsn, autocommit=True) as observer:
        holder.execute("SELECT FROM device_sign_ins FOR UPDATE")
        polls = [asyncio.create_task(poll(database)) for _ in range(8)]
        while observer.execute(waiting_for_locks).fetchone() != (8,):
            await asyncio.sleep(0.01)
    results = await asyncio.gather(*polls)
    assert sum(each.too_soon for each in results) == 7
    assert max(each.interval_seconds for each in results) == 5 + 7 * 5


async def test_no_poll_of_an_approved_sign_in_is_too_soon(
    database: Database, waiting: DeviceSignIn, me: Person
) -> None:
    await poll(database)
    await approve(database, me)
    assert [(await poll(database)).too_soon for _ in range(3)] == [False] * 3


# --- decisions -----------------------------------------------------------------------------------------------------------
async def test_approved_sign_in_has_the_account_and_authentication_time_of_the_approver(
    database: Database, waiting: DeviceSignIn, me: Person
) -> None:
    await database.execute(_AUTHENTICATED_BEFORE, session_id=me.session_id, age=timedelta(hours=3))
    session = await sessions.get_session(database, session_id=me.session_id, account_id=me.account_id)
    approved = await approve(database, me)
    assert session is not None
    assert approved is not None
    assert (approved.account_id, approved.session_id) == (me.account_id, me.session_id)
    assert approved.authenticated_at == session.authenticated_at
    assert approved.approved_at is not None
    assert not await is_pending(database)


async def test_sign_in_is_approved_or_denied_once(database: Database, waiting: DeviceSignIn, me: Person) -> None:
    other = await signed_in_person(database)
    assert await approve(database, me) is not None
    assert await approve(database, me) is None
    assert await approve(database, other) is None
    assert await deny(database, other.account_id) is None


async def test_denied_sign_in_cannot_be_approved_or_used(database: Database, waiting: DeviceSignIn, me: Person) -> None:
    assert await deny(database, me.account_id) is not None
    assert await approve(database, me) is None
    assert not await devices.use_device_sign_in(database, sign_in_id=waiting.id)


async def test_session_of_another_account_cannot_approve(
    database: Database, waiting: DeviceSignIn, me: Person, new_account: NewAccount
) -> None:
    other: Account = await new_account()
    approved = await devices.approve_device_sign_in(
        database, user_code_hash=USER, account_id=other.id, session_id=me.session_id
    )
    assert approved is None
    assert await is_pending(database)


async def test_revoked_session_cannot_approve(database: Database, waiting: DeviceSignIn, me: Person) -> None:
    await sessions.revoke_session(database, session_id=me.session_id, account_id=me.account_id)
    assert await approve(database, me) is None
    assert await is_pending(database)


# --- use -----------------------------------------------------------------------------------------------------------------
async def test_sign_in_that_is_not_approved_cannot_be_used(database: Database, waiting: DeviceSignIn) -> None:
    assert not await devices.use_device_sign_in(database, sign_in_id=waiting.id)


async def test_one_of_twenty_concurrent_uses_succeeds(connect: Connect, waiting: DeviceSignIn, me: Person) -> None:
    database = await connect(pool_size=10)
    await approve(database, me)
    used = await asyncio.gather(
        *(devices.use_device_sign_in(database, sign_in_id=waiting.id) for _ in range(20)),
    )
    assert sum(used) == 1
    assert await devices.poll_device_sign_in(database, device_code_hash=DEVICE, slow_down_seconds=5) is None


async def test_approval_ends_with_the_session_that_gave_it(
    database: Database, waiting: DeviceSignIn, me: Person
) -> None:
    await approve(database, me)
    await sessions.revoke_session(database, session_id=me.session_id, account_id=me.account_id)
    assert not await devices.use_device_sign_in(database, sign_in_id=waiting.id)
