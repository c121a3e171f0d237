"""The clean-up: expired rows are deleted in batches, by one process at a time, and other rows stay."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import (
    ColumnElement,
    Interval,
    MetaData,
    StaticPool,
    Table,
    bindparam,
    create_engine,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy import cast as sql_cast

from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.engine.model import Model
from accord_db.engine.statements import compiled
from accord_db.queries import audit, organizations
from accord_db.queries.cleanup import (
    ExpiredRows,
    Retention,
    _softly_deleted,
    delete_batch,
    expired_rows,
    try_lock_cleanup,
)
from accord_db.schema import (
    Account,
    AccountToken,
    ApiKey,
    AuditEvent,
    DeviceSignIn,
    IdempotencyKey,
    Invitation,
    Organization,
    OutboxMessage,
    ProviderSignIn,
    RateLimit,
    SecondFactor,
    Session,
    Task,
    metadata,
)
from tests.conftest import Connect
from tests.db.conftest import NewAccount, NewRows
from tests.rows import Row, needs_organization

KEPT = timedelta(days=30)
SECOND = timedelta(seconds=1)
_now = func.now()
_AGE_ACCOUNT = (
    update(Account)
    .where(Account.id == bindparam("account_id"))
    .values(deleted_at=_now - sql_cast(bindparam("age"), Interval))
)

_AGE_ORGANIZATION = (
    update(Organization)
    .where(Organization.id == bindparam("organization_id"))
    .values(deleted_at=_now - sql_cast(bindparam("age"), Interval))
)


def ago(age: timedelta) -> ColumnElement[datetime]:
    return _now - sql_cast(age, Interval)


Add = Callable[..., Row]


@pytest.fixture
def add(new_rows: NewRows) -> Add:
    """Inserts a row of the account. Values are of what the test is about, such as times."""

    def add(model: type[Model], account: Account, **values: Any) -> Row:
        return new_rows(account).insert(table_of(model), **values)

    return add


def table_of(model: type[Model]) -> Table:
    return metadata.tables[model.__tablename__]


async def count(database: Database, table: Table) -> int:
    found = await database.fetch_one(select(func.count()).select_from(table))
    assert found is not None
    return found


def expired_after(kept: timedelta, *, batch: int = 500) -> list[ExpiredRows]:
    return expired_rows(
        deleted_accounts_kept=kept, deleted_organizations_kept=kept, deleted_rows_kept=Retention(kept), batch=batch
    )


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
async def test_what_is_due_goes_and_what_is_not_stays(
    database: Database, add: Add, new_account: NewAccount, model: type[Model], since: str, kept: timedelta
) -> None:
    for age in (kept + SECOND, kept - timedelta(minutes=1)):
        add(model, await new_account(), **{since: ago(age)})
    assert await clean_up(database) == {model.__tablename__: 1}
    [left] = await database.fetch_all(select(getattr(model, since) > ago(kept)))
    assert left is True


async def test_what_has_just_been_made_stays(database: Database, add: Add, account: Account) -> None:
    for model, _, _ in DUE:
        if model is not RateLimit:
            add(model, account)
    add(RateLimit, account, reset_at=ago(-timedelta(seconds=60)))
    assert await clean_up(database) == {}


async def test_a_revoked_session_stays_until_a_month_after_it_would_have_expired(
    database: Database, add: Add, account: Account
) -> None:
    add(Session, account, expires_at=ago(timedelta(days=29)), revoked_at=ago(timedelta(days=59)))
    assert await clean_up(database) == {}


async def test_a_confirmed_second_factor_stays_for_ever(database: Database, add: Add, account: Account) -> None:
    add(SecondFactor, account, created_at=ago(timedelta(days=900)), confirmed_at=_now)
    assert await clean_up(database) == {}


async def test_used_tokens_and_codes_go_with_the_others(database: Database, add: Add, account: Account) -> None:
    for model in (AccountToken, ProviderSignIn, DeviceSignIn):
        add(model, account, expires_at=ago(timedelta(days=2)), used_at=ago(timedelta(days=2)))
    assert sum((await clean_up(database)).values()) == 3


async def test_mail_that_waits_stays_however_old_it_is(database: Database, add: Add, account: Account) -> None:
    add(OutboxMessage, account, created_at=ago(timedelta(days=900)))
    assert await clean_up(database) == {}


def test_every_table_with_an_expiry_is_cleaned() -> None:
    expiring = {name for name, table in metadata.tables.items() if {"expires_at", "reset_at"} & set(table.c.keys())}
    assert {"sessions", "rate_limits"} <= expiring
    assert expiring <= {expired.table for expired in expired_after(KEPT)}


# --- batches ---------------------------------------------------------------------------------------------------------------
async def test_a_batch_is_no_larger_than_it_may_be(database: Database, add: Add, account: Account) -> None:
    for days in (5, 9, 7, 3):
        add(AccountToken, account, expires_at=ago(timedelta(days=days)))
    tokens = next(due for due in expired_after(KEPT, batch=3) if due.table == "account_tokens")
    assert [await delete_batch(database, tokens) for _ in range(3)] == [3, 1, 0]


async def test_the_oldest_go_first(database: Database, add: Add, account: Account) -> None:
    for days in (5, 9, 7):
        add(AccountToken, account, expires_at=ago(timedelta(days=days)))
    tokens = next(due for due in expired_after(KEPT, batch=2) if due.table == "account_tokens")
    await delete_batch(database, tokens)
    assert await database.fetch_all(select(AccountToken.expires_at > ago(timedelta(days=6)))) == [True]


async def test_locked_row_is_skipped_without_waiting(database: Database, add: Add, account: Account, dsn: str) -> None:
    for key in (b"locked", b"free"):
        add(RateLimit, account, key=key, reset_at=_now)
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


def going_with(owner: str) -> list[Table]:
    """The tables whose rows are deleted with a row of the owner's: an account's or an organization's."""
    found = [metadata.tables[owner]]
    for table in metadata.sorted_tables:
        keys = [key for key in table.foreign_key_constraints if key.ondelete == "CASCADE"]
        owned = owner == "accounts" and "owner_id" in table.c
        if table not in found and (owned or any(key.referred_table in found for key in keys)):
            found.append(table)
    return found


OF_ACCOUNTS, OF_ORGANIZATIONS = going_with("accounts"), going_with("organizations")
# What a row needs so that nothing of it is due by itself, and what its CHECKs demand once it has an account.
KEPT_ROWS: dict[str, dict[str, Any]] = {
    "device_sign_ins": {"denied_at": _now},
    "second_factors": {"confirmed_at": _now},
}


def test_tables_of_accounts_and_organizations_are_found() -> None:
    assert {"tasks", "sessions", "members", "recovery_codes"} < {table.name for table in OF_ACCOUNTS}
    assert {"tasks", "roles", "members", "member_roles"} < {table.name for table in OF_ORGANIZATIONS}


async def test_rows_of_a_deleted_account_are_deleted_and_rows_of_other_accounts_are_kept(
    database: Database, new_account: NewAccount, new_rows: NewRows
) -> None:
    gone, other = await new_account(), await new_account()
    for account in (gone, other):
        fill_account(account, new_rows)
    await database.execute(_AGE_ACCOUNT, account_id=gone.id, age=KEPT + SECOND)
    before = {table.name: await count(database, table) for table in OF_ACCOUNTS}
    assert all(before.values())
    deleted = await clean_up(database)
    half = {name: number // 2 for name, number in before.items()}
    assert {table.name: await count(database, table) for table in OF_ACCOUNTS} == half
    assert deleted == half


def fill_account(account: Account, new_rows: NewRows) -> None:
    """With a row of each table, of which nothing is due by itself."""
    own, in_organization = new_rows(account), new_rows(account)
    in_organization.insert(table_of(Organization))
    for table in OF_ACCOUNTS:
        if table.name != "accounts":
            rows = in_organization if needs_organization(table) else own
            named = [key.parent.name for key in table.foreign_keys if key.column.table.name == "accounts"]
            rows.insert(table, **dict.fromkeys(named, account.id) | KEPT_ROWS.get(table.name, {}))


# --- organizations -------------------------------------------------------------------------------------------------------
NewOrganization = Callable[[], UUID]


@pytest.fixture
def organization(account: Account, new_rows: NewRows) -> NewOrganization:
    """Makes one with a member, and a row of everything else that an organization has. None is due by itself."""

    def organization() -> UUID:
        rows = new_rows(account)
        made = [rows.insert(table) for table in OF_ORGANIZATIONS]
        return cast(UUID, made[0]["id"])

    return organization


async def test_an_organization_goes_once_it_was_deleted_as_long_ago_as_the_settings_say(
    database: Database, organization: NewOrganization
) -> None:
    current, fresh, old = [organization() for _ in range(3)]
    await database.execute(_AGE_ORGANIZATION, organization_id=fresh, age=timedelta(days=7) - timedelta(minutes=1))
    await database.execute(_AGE_ORGANIZATION, organization_id=old, age=timedelta(days=7) + SECOND)
    assert (await clean_up(database, kept=timedelta(days=7)))["organizations"] == 1
    assert set(await database.fetch_all(select(Organization.id))) == {current, fresh}


async def test_rows_of_a_deleted_organization_are_deleted_and_rows_of_others_are_kept(
    database: Database, organization: NewOrganization
) -> None:
    gone, _ = organization(), organization()
    await database.execute(_AGE_ORGANIZATION, organization_id=gone, age=KEPT + SECOND)
    before = {table.name: await count(database, table) for table in OF_ORGANIZATIONS}
    assert all(before.values())
    deleted = await clean_up(database)
    half = {name: number // 2 for name, number in before.items()}
    assert {table.name: await count(database, table) for table in OF_ORGANIZATIONS} == half
    assert deleted == half
    assert await count(database, table_of(Account)) == 1


async def test_an_invitation_goes_a_month_after_it_would_have_expired_however_it_ended(
    database: Database, account: Account, new_rows: NewRows
) -> None:
    for age in (timedelta(days=30) + SECOND, timedelta(days=30) - timedelta(minutes=1)):
        for end in ({}, {"ended_at": ago(timedelta(days=36)), "outcome": "declined"}):
            new_rows(account).insert(table_of(Invitation), expires_at=ago(age), **end)
    assert await clean_up(database) == {"invitations": 2}


async def test_organization_that_is_locked_by_its_restoration_is_kept(
    database: Database, organization: NewOrganization, dsn: str
) -> None:
    await database.execute(_AGE_ORGANIZATION, organization_id=organization(), age=KEPT + SECOND)
    with locked(dsn, "SELECT FROM organizations FOR NO KEY UPDATE"):
        assert await clean_up(database) == {}


async def test_an_organization_cannot_be_brought_back_once_it_is_due(
    database: Database, organization: NewOrganization
) -> None:
    fresh, old = [organization() for _ in range(2)]
    await database.execute(_AGE_ORGANIZATION, organization_id=fresh, age=KEPT - timedelta(minutes=1))
    await database.execute(_AGE_ORGANIZATION, organization_id=old, age=KEPT + SECOND)
    assert await organizations.undelete_organization(database, organization_id=fresh, deleted_kept=KEPT) is not None
    assert await organizations.undelete_organization(database, organization_id=old, deleted_kept=KEPT) is None


@pytest.mark.parametrize("column", ["expires_at", "revoked_at"])
async def test_api_key_is_deleted_90_days_after_its_end(
    database: Database, account: Account, new_rows: NewRows, column: str
) -> None:
    for age in (timedelta(days=90) + SECOND, timedelta(days=90) - timedelta(minutes=1)):
        new_rows(account).insert(table_of(ApiKey), **{column: ago(age)})
    new_rows(account).insert(table_of(ApiKey))
    assert (await clean_up(database))["api_keys"] == 1
    assert await count(database, table_of(ApiKey)) == 2


@pytest.mark.parametrize("owner", ["organizations", "accounts"])
def test_tables_are_emptied_children_first_before_their_owner_is_deleted(owner: str) -> None:
    """Otherwise the duration of a transaction would grow with the owner. Applies to future tables too."""
    order = [expired.table for expired in expired_after(KEPT)]
    order = order[: order.index(owner) + 1][::-1]
    for table in going_with(owner):
        assert table.name in order
        for key in table.foreign_key_constraints:
            if key.ondelete == "CASCADE" and key.referred_table in going_with(owner):
                assert order.index(key.referred_table.name) < order.index(table.name)


# --- rows that were softly deleted ------------------------------------------------------------------------------------------
SOFTLY_DELETED = [
    table
    for name, table in metadata.tables.items()
    if "deleted_at" in table.c and name not in ("accounts", "organizations")
]


@pytest.mark.parametrize("table", SOFTLY_DELETED, ids=str)
async def test_softly_deleted_row_is_deleted_after_the_configured_time(
    database: Database, account: Account, new_rows: NewRows, table: Table
) -> None:
    rows = new_rows(account)
    if needs_organization(table):
        rows.insert(table_of(Organization))
    rows.insert(table)
    rows.insert(table, deleted_at=ago(KEPT - timedelta(minutes=1)))
    rows.insert(table, deleted_at=ago(KEPT + SECOND))
    assert await clean_up(database) == {table.name: 1}
    assert await count(database, table) == 2


async def test_a_table_can_have_a_retention_of_its_own(database: Database, account: Account, add: Add) -> None:
    add(Task, account, deleted_at=ago(KEPT + SECOND))
    longer = Retention(KEPT, {"tasks": 2 * KEPT})
    due = expired_rows(deleted_accounts_kept=KEPT, deleted_organizations_kept=KEPT, deleted_rows_kept=longer)
    assert sum([await delete_batch(database, expired) for expired in due]) == 0
    assert await clean_up(database) == {"tasks": 1}


@pytest.mark.parametrize("name", ["sessions", "accounts", "nothing"])
def test_retention_of_a_table_without_soft_deletion_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        expired_rows(
            deleted_accounts_kept=KEPT, deleted_organizations_kept=KEPT, deleted_rows_kept=Retention(KEPT, {name: KEPT})
        )


async def test_row_that_another_row_refers_to_is_kept_unless_the_other_goes_too(database: Database, dsn: str) -> None:
    """Customers have orders, which restrict their deletion; orders have lines, which payments restrict."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE customers (id int PRIMARY KEY, deleted_at timestamptz);"
            "CREATE TABLE orders (id int PRIMARY KEY, customer_id int REFERENCES customers, deleted_at timestamptz);"
            "CREATE TABLE lines (id int PRIMARY KEY, order_id int REFERENCES orders ON DELETE CASCADE);"
            "CREATE TABLE payments (line_id int REFERENCES lines);"
            "CREATE TABLE notes (id int PRIMARY KEY, order_id int REFERENCES orders ON DELETE SET NULL);"
            "INSERT INTO customers SELECT number, now() - interval '1 year' FROM generate_series(1, 3) number;"
            "INSERT INTO orders SELECT id, id, CASE id WHEN 1 THEN NULL ELSE deleted_at END FROM customers;"
            "INSERT INTO lines SELECT id, id FROM orders; INSERT INTO payments VALUES (2);"
            "INSERT INTO notes SELECT id, id FROM orders;"
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO accord_gateway"
        )
        reflected = MetaData()
        reflected.reflect(create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool))
        for expired in _softly_deleted(Retention(KEPT), 500, reflected):
            await delete_batch(database, expired)
        left = {
            table: [number for (number,) in connection.execute(f"SELECT id FROM {table} ORDER BY id".encode())]
            for table in ("customers", "orders", "lines", "notes")
        }
    # The order 1 is alive; the order 2 has a line with a payment.
    assert left == {"customers": [1, 2], "orders": [1, 2], "lines": [1, 2], "notes": [1, 2, 3]}


# --- large accounts -----------------------------------------------------------------------------------------------------
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
    assert await count(database, table_of(AuditEvent)) == 1


@contextmanager
def locked(dsn: str, statement: str) -> Iterator[None]:
    """Holds the locks of the statement during the block."""
    with psycopg.connect(dsn) as connection:
        connection.execute(statement.encode())
        yield
