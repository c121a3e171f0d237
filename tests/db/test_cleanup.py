"""The clean-up: expired rows are deleted in batches, by one process at a time, and other rows stay."""

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
from accord_db.queries.cleanup import ExpiredRows, delete_batch, expired_rows, try_lock_cleanup
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
    """The required columns, which tests combine with times."""
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
    return await database.fetch_one(select(func.count()).select_from(model)) or 0


def expired_after(kept: timedelta, *, batch: int = 500) -> list[ExpiredRows]:
    return expired_rows(deleted_accounts_kept=kept, deleted_organizations_kept=kept, batch=batch)


async def clean_up(database: Database, *, kept: timedelta = KEPT, batch: int = 500) -> Counter[str]:
    """The number of deleted rows, by table."""
    deleted: Counter[str] = Counter()
    for expired in expired_after(kept, batch=batch):
        while number := await delete_batch(database, expired):
            assert number <= batch
            deleted[expired.table] += number
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


# --- which rows are deleted ------------------------------------------------------------------------------------------------
@each_kind
async def test_expired_rows_are_deleted_and_others_stay(
    database: Database, new_account: NewAccount, model: type[Model], since: str, kept: timedelta
) -> None:
    for age in (kept + SECOND, kept - timedelta(minutes=1)):
        await add(database, model, await new_account(), **{since: ago(age)})
    assert await clean_up(database) == {model.__tablename__: 1}
    [left] = await database.fetch_all(select(getattr(model, since) > ago(kept)))
    assert left is True


async def test_new_rows_stay(database: Database, account: Account) -> None:
    for model, _, _ in DUE:
        if model is not RateLimit:
            await add(database, model, account)
    await add(database, RateLimit, account, reset_at=ago(-timedelta(seconds=60)))
    assert await clean_up(database) == {}


async def test_revoked_session_stays_until_a_month_after_its_expiry(database: Database, account: Account) -> None:
    await add(database, Session, account, expires_at=ago(timedelta(days=29)), revoked_at=ago(timedelta(days=59)))
    assert await clean_up(database) == {}


async def test_confirmed_second_factor_stays(database: Database, account: Account) -> None:
    await add(database, SecondFactor, account, created_at=ago(timedelta(days=900)), confirmed_at=_now)
    assert await clean_up(database) == {}


async def test_used_tokens_and_codes_are_deleted_too(database: Database, account: Account) -> None:
    for model in (AccountToken, ProviderSignIn, DeviceSignIn):
        await add(database, model, account, expires_at=ago(timedelta(days=2)), used_at=ago(timedelta(days=2)))
    assert sum((await clean_up(database)).values()) == 3


async def test_unsent_mail_stays_regardless_of_its_age(database: Database, account: Account) -> None:
    await add(database, OutboxMessage, account, created_at=ago(timedelta(days=900)))
    assert await clean_up(database) == {}


def test_every_table_with_an_expiry_is_cleaned() -> None:
    expiring = {name for name, table in metadata.tables.items() if {"expires_at", "reset_at"} & set(table.c.keys())}
    assert {"sessions", "rate_limits"} <= expiring
    assert expiring <= {expired.table for expired in expired_after(KEPT)}


# --- batches ---------------------------------------------------------------------------------------------------------------
async def test_delete_batch_deletes_at_most_one_batch(database: Database, account: Account) -> None:
    for days in (5, 9, 7, 3):
        await add(database, AccountToken, account, expires_at=ago(timedelta(days=days)))
    tokens = next(expired for expired in expired_after(KEPT, batch=3) if expired.table == "account_tokens")
    assert [await delete_batch(database, tokens) for _ in range(3)] == [3, 1, 0]


async def test_oldest_rows_are_deleted_first(database: Database, account: Account) -> None:
    for days in (5, 9, 7):
        await add(database, AccountToken, account, expires_at=ago(timedelta(days=days)))
    tokens = next(expired for expired in expired_after(KEPT, batch=2) if expired.table == "account_tokens")
    await delete_batch(database, tokens)
    assert await database.fetch_all(select(AccountToken.expires_at > ago(timedelta(days=6)))) == [True]


async def test_locked_row_is_skipped_without_waiting(database: Database, account: Account, dsn: str) -> None:
    for key in (b"locked", b"free"):
        await add(database, RateLimit, account, key=key)
    with locked(dsn, "SELECT FROM rate_limits WHERE key = 'locked' FOR UPDATE"):
        assert await asyncio.wait_for(clean_up(database), 10) == {"rate_limits": 1}
    assert await clean_up(database) == {"rate_limits": 1}


async def test_every_statement_uses_an_index(database: Database, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("SET enable_seqscan = off")  # plans without a usable index still scan
        assert {"sessions", "accounts", "organizations"} <= {expired.table for expired in expired_after(KEPT)}
        for expired in expired_after(KEPT):
            sql = compiled(expired.delete).bind({}).sql
            plan = "\n".join(line for (line,) in connection.execute(b"EXPLAIN " + sql))
            assert "Seq Scan" not in plan


# --- one at a time -----------------------------------------------------------------------------------------------------------
async def test_only_one_transaction_at_a_time_gets_the_cleanup_lock(connect: Connect) -> None:
    one, other = await connect(), await connect()
    async with one.transaction() as first:
        assert await try_lock_cleanup(first)
        async with other.transaction() as second:
            assert not await try_lock_cleanup(second)
    async with other.transaction() as second:
        assert await try_lock_cleanup(second)


# --- accounts ----------------------------------------------------------------------------------------------------------------
async def test_account_is_removed_after_the_configured_time(database: Database, new_account: NewAccount) -> None:
    current, fresh, old = [await new_account() for _ in range(3)]
    await database.execute(_AGE_ACCOUNT, account_id=fresh.id, age=timedelta(days=7) - timedelta(minutes=1))
    await database.execute(_AGE_ACCOUNT, account_id=old.id, age=timedelta(days=7) + SECOND)
    assert await clean_up(database, kept=timedelta(days=7)) == {"accounts": 1}
    assert set(await database.fetch_all(select(Account.id))) == {current.id, fresh.id}


async def test_rows_of_the_account_are_removed_with_it_and_no_others(
    database: Database, new_account: NewAccount
) -> None:
    gone, other = await new_account(), await new_account()
    for account in (gone, other):
        await add_rows_of(database, account)
    await database.execute(_AGE_ACCOUNT, account_id=gone.id, age=KEPT + SECOND)
    before = {model: await count(database, model) for model in ALL}
    deleted = await clean_up(database)
    assert {model: await count(database, model) for model in ALL} == {model: n // 2 for model, n in before.items()}
    # ON DELETE CASCADE deletes recovery codes with their second factor.
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


async def add_rows_of(database: Database, account: Account) -> None:
    """Rows in every table of accounts, none of them expired."""
    for model in (Session, AccountToken, ProviderSignIn, IdempotencyKey, LinkedProvider, Task, Task, Task):
        await add(database, model, account)
    await add(database, DeviceSignIn, account, account_id=account.id, denied_at=_now)
    factor_id = uuid7()
    await add(database, SecondFactor, account, id=factor_id, confirmed_at=_now)
    await database.execute(insert(RecoveryCode).values(id=uuid7(), second_factor_id=factor_id, code_hash=hashed()))


# --- organizations -------------------------------------------------------------------------------------------------------
async def organization(database: Database, account: Account) -> UUID:
    """With a member, a role of the member, an invitation, an API key and three tasks. None is expired."""
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


OF_ORGANIZATIONS: tuple[type[Model], ...] = (Organization, Member, Role, MemberRole, Invitation, ApiKey, Task)


async def test_organization_is_removed_after_the_configured_time(database: Database, account: Account) -> None:
    current, fresh, old = [await organization(database, account) for _ in range(3)]
    await database.execute(_AGE_ORGANIZATION, organization_id=fresh, age=timedelta(days=7) - timedelta(minutes=1))
    await database.execute(_AGE_ORGANIZATION, organization_id=old, age=timedelta(days=7) + SECOND)
    assert (await clean_up(database, kept=timedelta(days=7)))["organizations"] == 1
    assert set(await database.fetch_all(select(Organization.id))) == {current, fresh}


async def test_rows_of_the_organization_are_removed_with_it_and_no_others(database: Database, account: Account) -> None:
    gone, _ = await organization(database, account), await organization(database, account)
    await database.execute(_AGE_ORGANIZATION, organization_id=gone, age=KEPT + SECOND)
    before = {model: await count(database, model) for model in OF_ORGANIZATIONS}
    deleted = await clean_up(database)
    after = {model: await count(database, model) for model in OF_ORGANIZATIONS}
    assert after == {model: n // 2 for model, n in before.items()}
    # ON DELETE CASCADE deletes the roles of a member with the member, or with the role.
    assert deleted == {model.__tablename__: before[model] // 2 for model in OF_ORGANIZATIONS if model is not MemberRole}
    assert await count(database, Account) == 1


async def test_invitation_is_deleted_a_month_after_its_expiry_also_if_it_ended_earlier(
    database: Database, account: Account
) -> None:
    made = {"organization_id": await organization(database, account), "created_by": account.id, "email": "x"}
    for age in (timedelta(days=30) + SECOND, timedelta(days=30) - timedelta(minutes=1)):
        for end in ({}, {"ended_at": ago(timedelta(days=36)), "outcome": "declined"}):
            own = {"id": uuid7(), "role_ids": [], "token_hash": hashed(), "expires_at": ago(age)}
            await database.execute(insert(Invitation).values(made | own | end))
    assert await clean_up(database) == {"invitations": 2}


async def test_organization_that_is_being_restored_is_skipped(database: Database, account: Account, dsn: str) -> None:
    await database.execute(_AGE_ORGANIZATION, organization_id=await organization(database, account), age=KEPT + SECOND)
    with locked(dsn, "SELECT FROM organizations FOR NO KEY UPDATE"):
        assert await clean_up(database) == {}


async def test_organization_cannot_be_restored_once_it_is_due(database: Database, account: Account) -> None:
    fresh, old = [await organization(database, account) for _ in range(2)]
    await database.execute(_AGE_ORGANIZATION, organization_id=fresh, age=KEPT - timedelta(minutes=1))
    await database.execute(_AGE_ORGANIZATION, organization_id=old, age=KEPT + SECOND)
    assert await organizations.undelete_organization(database, organization_id=fresh, deleted_kept=KEPT) is not None
    assert await organizations.undelete_organization(database, organization_id=old, deleted_kept=KEPT) is None


@pytest.mark.parametrize("column", [ApiKey.expires_at, ApiKey.revoked_at])
async def test_api_key_is_deleted_90_days_after_its_end(
    database: Database, account: Account, column: InstrumentedAttribute[datetime]
) -> None:
    for age in (timedelta(days=90) + SECOND, timedelta(days=90) - timedelta(minutes=1)):
        of_organization = ApiKey.organization_id == await organization(database, account)
        await database.execute(update(ApiKey).where(of_organization).values({column: ago(age)}))
    await organization(database, account)
    assert (await clean_up(database))["api_keys"] == 1
    assert await count(database, ApiKey) == 2


def test_tables_of_organizations_are_cleaned_before_organizations() -> None:
    order = [expired.table for expired in expired_after(KEPT)]
    organizations = metadata.tables["organizations"]
    tables = {
        name
        for name, table in metadata.tables.items()
        if any(k.column.table is organizations and k.ondelete == "CASCADE" for k in table.foreign_keys)
    }
    assert tables
    assert tables <= set(order[: order.index("organizations")])


# --- large accounts -----------------------------------------------------------------------------------------------------
def test_tables_of_accounts_are_cleaned_before_accounts() -> None:
    """Otherwise the duration of a transaction would grow with the account. Applies to future tables too."""
    order = [expired.table for expired in expired_after(KEPT)]
    accounts = metadata.tables["accounts"]
    tables = {
        name
        for name, table in metadata.tables.items()
        if any(k.column.table is accounts and k.ondelete == "CASCADE" for k in table.foreign_keys)
        or "owner_id" in table.c
    }
    assert {"sessions", "tasks"} <= tables
    assert tables <= set(order[:-1])
    assert order[-1] == "accounts"


async def test_large_account_is_deleted_in_batches(database: Database, account: Account) -> None:
    await database.execute(
        insert(Task).from_select(
            ["id", "created_by", "title"],
            select(func.gen_random_uuid(), text(f"'{account.id}'::uuid"), text("'x'")).select_from(
                func.generate_series(1, 1200).table_valued("n")
            ),
        )
    )
    await database.execute(_AGE_ACCOUNT, account_id=account.id, age=KEPT + SECOND)
    assert await clean_up(database) == {"tasks": 1200, "accounts": 1}  # ON DELETE CASCADE deletes none of them


async def test_audit_events_of_a_removed_account_stay(database: Database, account: Account) -> None:
    await audit.insert_event(
        database, event_id=uuid7(), account_id=account.id, method="m", peer="p", code="OK", request_id="r"
    )
    await database.execute(_AGE_ACCOUNT, account_id=account.id, age=timedelta(days=900))
    assert await clean_up(database) == {"accounts": 1}
    assert await count(database, AuditEvent) == 1


@contextmanager
def locked(dsn: str, statement: str) -> Iterator[None]:
    """Holds the locks of the statement during the block."""
    with psycopg.connect(dsn) as connection:
        connection.execute(statement.encode())
        yield
