"""The clean-up: what is due goes, in batches, by one process at a time, and what is not due stays."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import ColumnElement, Interval, bindparam, cast, func, insert, select, text, update
from sqlalchemy.orm import InstrumentedAttribute

from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.engine.model import Model
from accord_db.engine.statements import compiled
from accord_db.queries import audit, organizations
from accord_db.queries.cleanup import Due, delete_due, everything_due, is_alone
from accord_db.schema import (
    Account,
    AccountToken,
    ApiKey,
    AuditEvent,
    DeviceSignIn,
    IdempotencyKey,
    Invitation,
    LinkedProvider,
    Member,
    MemberRole,
    Organization,
    OutboxMessage,
    ProviderSignIn,
    RateLimit,
    RecoveryCode,
    Role,
    SecondFactor,
    Session,
    Task,
    TokenPurpose,
    metadata,
)
from tests.conftest import Connect
from tests.db.conftest import NewAccount

KEPT = timedelta(days=30)
SECOND = timedelta(seconds=1)
_now = func.now()
_AGE_ACCOUNT = (
    update(Account)
    .where(Account.id == bindparam("account_id"))
    .values(deleted_at=_now - cast(bindparam("age"), Interval))
)

_AGE_ORGANIZATION = (
    update(Organization)
    .where(Organization.id == bindparam("organization_id"))
    .values(deleted_at=_now - cast(bindparam("age"), Interval))
)


def ago(age: timedelta) -> ColumnElement[datetime]:
    return _now - cast(age, Interval)


def hashed() -> bytes:
    return uuid7().bytes * 2


def row_of(model: type[Model], account: Account) -> dict[str, Any]:
    """What a row must have, beside the times that a test is about."""
    own = {"id": uuid7(), "account_id": account.id}
    rows: dict[type[Model], dict[str, Any]] = {
        Session: own | {"token_hash": hashed(), "expires_at": _now},
        AccountToken: own
        | {"token_hash": hashed(), "expires_at": _now, "purpose": TokenPurpose.VERIFY_EMAIL, "email": "a@example.com"},
        ProviderSignIn: own | {"token_hash": hashed(), "expires_at": _now, "provider": "google", "redirect_uri": "x"},
        DeviceSignIn: {"id": uuid7(), "device_code_hash": hashed(), "user_code_hash": hashed()}
        | {"device_name": "x", "peer": "x", "expires_at": _now, "interval_seconds": 5},
        SecondFactor: own | {"secret": b"x"},
        IdempotencyKey: {"account_id": account.id, "request_id": uuid7(), "request_hash": b"x"},
        RateLimit: {"key": hashed(), "count": 1, "reset_at": _now},
        LinkedProvider: own | {"provider": "google", "issuer": "x", "subject": str(uuid7())},
        Task: {"id": uuid7(), "created_by": account.id, "title": "x"},
        OutboxMessage: {"id": uuid7(), "template": "x", "content": b"x"},
    }
    return rows[model]


async def add(database: Database, model: type[Model], account: Account, **values: Any) -> None:
    await database.execute(insert(model).values(row_of(model, account) | values))


async def count(database: Database, model: type[Model]) -> int:
    found = await database.fetch_one(select(func.count()).select_from(model))
    assert found is not None
    return found


def due_after(kept: timedelta, *, batch: int = 500) -> list[Due]:
    return everything_due(deleted_accounts_kept=kept, deleted_organizations_kept=kept, batch=batch)


async def clean_up(database: Database, *, kept: timedelta = KEPT, batch: int = 500) -> Counter[str]:
    """How many rows went, by table."""
    deleted: Counter[str] = Counter()
    for due in due_after(kept, batch=batch):
        while number := await delete_due(database, due):
            assert number <= batch
            deleted[due.table] += number
    return +deleted


DUE = [
    (Session, "expires_at", timedelta(days=30)),
    (AccountToken, "expires_at", timedelta(days=1)),
    (ProviderSignIn, "expires_at", timedelta(days=1)),
    (DeviceSignIn, "expires_at", timedelta(days=1)),
    (SecondFactor, "created_at", timedelta(days=1)),
    (IdempotencyKey, "created_at", timedelta(hours=24)),
    (RateLimit, "reset_at", timedelta(0)),
]
each_kind = pytest.mark.parametrize(("model", "since", "kept"), DUE, ids=[model.__tablename__ for model, _, _ in DUE])


# --- what goes and what stays --------------------------------------------------------------------------------------------
@each_kind
async def test_what_is_due_goes_and_what_is_not_stays(
    database: Database, new_account: NewAccount, model: type[Model], since: str, kept: timedelta
) -> None:
    for age in (kept + SECOND, kept - timedelta(minutes=1)):
        await add(database, model, await new_account(), **{since: ago(age)})
    assert await clean_up(database) == {model.__tablename__: 1}
    [left] = await database.fetch_all(select(getattr(model, since) > ago(kept)))
    assert left is True


async def test_what_has_just_been_made_stays(database: Database, account: Account) -> None:
    for model, _, _ in DUE:
        if model is not RateLimit:
            await add(database, model, account)
    await add(database, RateLimit, account, reset_at=ago(-timedelta(seconds=60)))
    assert await clean_up(database) == {}


async def test_a_revoked_session_stays_until_a_month_after_it_would_have_expired(
    database: Database, account: Account
) -> None:
    await add(database, Session, account, expires_at=ago(timedelta(days=29)), revoked_at=ago(timedelta(days=59)))
    assert await clean_up(database) == {}


async def test_a_confirmed_second_factor_stays_for_ever(database: Database, account: Account) -> None:
    await add(database, SecondFactor, account, created_at=ago(timedelta(days=900)), confirmed_at=_now)
    assert await clean_up(database) == {}


async def test_used_tokens_and_codes_go_with_the_others(database: Database, account: Account) -> None:
    for model in (AccountToken, ProviderSignIn, DeviceSignIn):
        await add(database, model, account, expires_at=ago(timedelta(days=2)), used_at=ago(timedelta(days=2)))
    assert sum((await clean_up(database)).values()) == 3


async def test_mail_that_waits_stays_however_old_it_is(database: Database, account: Account) -> None:
    await add(database, OutboxMessage, account, created_at=ago(timedelta(days=900)))
    assert await clean_up(database) == {}


def test_every_table_whose_rows_expire_is_cleaned() -> None:
    expiring = {name for name, table in metadata.tables.items() if {"expires_at", "reset_at"} & set(table.c.keys())}
    assert expiring <= {due.table for due in due_after(KEPT)}


# --- batches ---------------------------------------------------------------------------------------------------------------
async def test_a_batch_is_no_larger_than_it_may_be(database: Database, account: Account) -> None:
    for days in (5, 9, 7, 3):
        await add(database, AccountToken, account, expires_at=ago(timedelta(days=days)))
    tokens = next(due for due in due_after(KEPT, batch=3) if due.table == "account_tokens")
    assert [await delete_due(database, tokens) for _ in range(3)] == [3, 1, 0]


async def test_the_oldest_go_first(database: Database, account: Account) -> None:
    for days in (5, 9, 7):
        await add(database, AccountToken, account, expires_at=ago(timedelta(days=days)))
    tokens = next(due for due in due_after(KEPT, batch=2) if due.table == "account_tokens")
    await delete_due(database, tokens)
    assert await database.fetch_all(select(AccountToken.expires_at > ago(timedelta(days=6)))) == [True]


async def test_a_row_that_somebody_has_locked_is_left_without_waiting(
    database: Database, account: Account, dsn: str
) -> None:
    for key in (b"locked", b"free"):
        await add(database, RateLimit, account, key=key)
    with locked(dsn, "SELECT FROM rate_limits WHERE key = 'locked' FOR UPDATE"):
        assert await asyncio.wait_for(clean_up(database), 10) == {"rate_limits": 1}
    assert await clean_up(database) == {"rate_limits": 1}


async def test_an_index_serves_each_of_the_statements(database: Database, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("SET enable_seqscan = off")  # which leaves it to those that have nothing else
        for due in due_after(KEPT):
            sql = compiled(due.delete).bind({}).sql
            plan = "\n".join(line for (line,) in connection.execute(b"EXPLAIN " + sql))
            assert "Seq Scan" not in plan


# --- one at a time -----------------------------------------------------------------------------------------------------------
async def test_one_transaction_at_a_time_is_alone(connect: Connect) -> None:
    one, other = await connect(), await connect()
    async with one.transaction() as first:
        assert await is_alone(first)
        async with other.transaction() as second:
            assert not await is_alone(second)
    async with other.transaction() as second:
        assert await is_alone(second)


# --- accounts ----------------------------------------------------------------------------------------------------------------
async def test_an_account_goes_once_it_was_deleted_as_long_ago_as_the_settings_say(
    database: Database, new_account: NewAccount
) -> None:
    living, fresh, old = [await new_account() for _ in range(3)]
    await database.execute(_AGE_ACCOUNT, account_id=fresh.id, age=timedelta(days=7) - timedelta(minutes=1))
    await database.execute(_AGE_ACCOUNT, account_id=old.id, age=timedelta(days=7) + SECOND)
    assert await clean_up(database, kept=timedelta(days=7)) == {"accounts": 1}
    assert set(await database.fetch_all(select(Account.id))) == {living.id, fresh.id}


async def test_everything_that_an_account_has_goes_with_it_and_nobody_elses(
    database: Database, new_account: NewAccount
) -> None:
    gone, other = await new_account(), await new_account()
    for account in (gone, other):
        await everything(database, account)
    await database.execute(_AGE_ACCOUNT, account_id=gone.id, age=KEPT + SECOND)
    before = {model: await count(database, model) for model in ALL}
    deleted = await clean_up(database)
    assert {model: await count(database, model) for model in ALL} == {model: n // 2 for model, n in before.items()}
    # Recovery codes go with their second factor, of which an account has one.
    assert deleted == {model.__tablename__: before[model] // 2 for model in ALL if model is not RecoveryCode}


ALL: tuple[type[Model], ...] = (
    Session,
    AccountToken,
    ProviderSignIn,
    DeviceSignIn,
    SecondFactor,
    RecoveryCode,
    IdempotencyKey,
    LinkedProvider,
    Task,
    Account,
)


async def everything(database: Database, account: Account) -> None:
    """Of which nothing is due by itself."""
    for model in (Session, AccountToken, ProviderSignIn, IdempotencyKey, LinkedProvider, Task, Task, Task):
        await add(database, model, account)
    await add(database, DeviceSignIn, account, account_id=account.id, denied_at=_now)
    factor_id = uuid7()
    await add(database, SecondFactor, account, id=factor_id, confirmed_at=_now)
    await database.execute(insert(RecoveryCode).values(id=uuid7(), second_factor_id=factor_id, code_hash=hashed()))


# --- organizations -------------------------------------------------------------------------------------------------------
async def organization(database: Database, account: Account) -> UUID:
    """With a member, a role that they have, an invitation, an API key and three tasks. None is due by itself."""
    own = {"organization_id": uuid7()}
    made = own | {"created_by": account.id}
    role_id = uuid7()
    rows: Sequence[tuple[type[Model], dict[str, Any]]] = (
        (Organization, {"id": own["organization_id"], "name": "x", "slug": str(own["organization_id"])}),
        (Member, own | {"account_id": account.id, "role": "owner"}),
        (Role, own | {"id": role_id, "name": "x", "permissions": []}),
        (MemberRole, own | {"account_id": account.id, "role_id": role_id}),
        (Invitation, made | {"id": uuid7(), "email": "x", "role_ids": [], "token_hash": hashed(), "expires_at": _now}),
        (ApiKey, made | {"id": uuid7(), "name": "x", "prefix": "x", "key_hash": hashed(), "scopes": []}),
        *((Task, made | {"id": uuid7(), "title": "x"}) for _ in range(3)),
    )
    for model, values in rows:
        await database.execute(insert(model).values(values))
    return own["organization_id"]


THEIRS: tuple[type[Model], ...] = (Organization, Member, Role, MemberRole, Invitation, ApiKey, Task)


async def test_an_organization_goes_once_it_was_deleted_as_long_ago_as_the_settings_say(
    database: Database, account: Account
) -> None:
    living, fresh, old = [await organization(database, account) for _ in range(3)]
    await database.execute(_AGE_ORGANIZATION, organization_id=fresh, age=timedelta(days=7) - timedelta(minutes=1))
    await database.execute(_AGE_ORGANIZATION, organization_id=old, age=timedelta(days=7) + SECOND)
    assert (await clean_up(database, kept=timedelta(days=7)))["organizations"] == 1
    assert set(await database.fetch_all(select(Organization.id))) == {living, fresh}


async def test_everything_that_an_organization_has_goes_with_it_and_nobody_elses(
    database: Database, account: Account
) -> None:
    gone, _ = await organization(database, account), await organization(database, account)
    await database.execute(_AGE_ORGANIZATION, organization_id=gone, age=KEPT + SECOND)
    before = {model: await count(database, model) for model in THEIRS}
    deleted = await clean_up(database)
    assert {model: await count(database, model) for model in THEIRS} == {model: n // 2 for model, n in before.items()}
    # What says which roles a member has goes with the member, or the role.
    assert deleted == {model.__tablename__: before[model] // 2 for model in THEIRS if model is not MemberRole}
    assert await count(database, Account) == 1


async def test_an_invitation_goes_a_month_after_it_would_have_expired_however_it_ended(
    database: Database, account: Account
) -> None:
    made = {"organization_id": await organization(database, account), "created_by": account.id, "email": "x"}
    for age in (timedelta(days=30) + SECOND, timedelta(days=30) - timedelta(minutes=1)):
        for end in ({}, {"ended_at": ago(timedelta(days=36)), "outcome": "declined"}):
            own = {"id": uuid7(), "role_ids": [], "token_hash": hashed(), "expires_at": ago(age)}
            await database.execute(insert(Invitation).values(made | own | end))
    assert await clean_up(database) == {"invitations": 2}


async def test_an_organization_that_somebody_is_about_to_bring_back_is_left_whole(
    database: Database, account: Account, dsn: str
) -> None:
    await database.execute(_AGE_ORGANIZATION, organization_id=await organization(database, account), age=KEPT + SECOND)
    with locked(dsn, "SELECT FROM organizations FOR NO KEY UPDATE"):
        assert await clean_up(database) == {}


async def test_an_organization_cannot_be_brought_back_once_it_is_due(database: Database, account: Account) -> None:
    fresh, old = [await organization(database, account) for _ in range(2)]
    await database.execute(_AGE_ORGANIZATION, organization_id=fresh, age=KEPT - timedelta(minutes=1))
    await database.execute(_AGE_ORGANIZATION, organization_id=old, age=KEPT + SECOND)
    assert await organizations.undelete_organization(database, organization_id=fresh, deleted_kept=KEPT) is not None
    assert await organizations.undelete_organization(database, organization_id=old, deleted_kept=KEPT) is None


@pytest.mark.parametrize("column", [ApiKey.expires_at, ApiKey.revoked_at])
async def test_an_api_key_goes_90_days_after_its_end(
    database: Database, account: Account, column: InstrumentedAttribute[datetime]
) -> None:
    for age in (timedelta(days=90) + SECOND, timedelta(days=90) - timedelta(minutes=1)):
        theirs = ApiKey.organization_id == await organization(database, account)
        await database.execute(update(ApiKey).where(theirs).values({column: ago(age)}))
    await organization(database, account)
    assert (await clean_up(database))["api_keys"] == 1
    assert await count(database, ApiKey) == 2


def test_all_tables_that_belong_to_organizations_are_emptied_before_these_go() -> None:
    order = [due.table for due in due_after(KEPT)]
    organizations = metadata.tables["organizations"]
    theirs = {
        name
        for name, table in metadata.tables.items()
        if any(k.column.table is organizations and k.ondelete == "CASCADE" for k in table.foreign_keys)
    }
    assert theirs
    assert theirs <= set(order[: order.index("organizations")])


# --- accounts that are large --------------------------------------------------------------------------------------------
def test_all_tables_that_belong_to_accounts_are_emptied_before_these_go() -> None:
    """So that the size of an account does not tell how long a transaction is; also for features that are yet to come."""
    order = [due.table for due in due_after(KEPT)]
    accounts = metadata.tables["accounts"]
    theirs = {
        name
        for name, table in metadata.tables.items()
        if any(k.column.table is accounts and k.ondelete == "CASCADE" for k in table.foreign_keys)
        or "owner_id" in table.c
    }
    assert theirs <= set(order[:-1])
    assert order[-1] == "accounts"


async def test_a_large_account_goes_in_batches(database: Database, account: Account) -> None:
    await database.execute(
        insert(Task).from_select(
            ["id", "created_by", "title"],
            select(func.gen_random_uuid(), text(f"'{account.id}'::uuid"), text("'x'")).select_from(
                func.generate_series(1, 1200).table_valued("n")
            ),
        )
    )
    await database.execute(_AGE_ACCOUNT, account_id=account.id, age=KEPT + SECOND)
    assert await clean_up(database) == {"tasks": 1200, "accounts": 1}  # none of it by ON DELETE CASCADE


async def test_what_was_recorded_of_an_account_stays(database: Database, account: Account) -> None:
    await audit.insert_event(
        database, event_id=uuid7(), account_id=account.id, method="m", peer="p", code="OK", request_id="r"
    )
    await database.execute(_AGE_ACCOUNT, account_id=account.id, age=timedelta(days=900))
    assert await clean_up(database) == {"accounts": 1}
    assert await count(database, AuditEvent) == 1


@contextmanager
def locked(dsn: str, statement: str) -> Iterator[None]:
    """What the statement locks stays so during the block."""
    with psycopg.connect(dsn) as connection:
        connection.execute(statement.encode())
        yield
