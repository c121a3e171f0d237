"""The audit log is append-only, and its listings use indexes."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Unpack

import psycopg
import pytest
from sqlalchemy import Delete, Update, bindparam, delete, func, select, update

from accord_db.engine.database import Database
from accord_db.engine.errors import DatabaseError
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Cursor, Page
from accord_db.queries import accounts, audit
from accord_db.queries.audit import EventFilters
from accord_db.schema import Account, AuditEvent
from tests.conftest import Connect
from tests.db.plans import filled_database, generic_plan


async def insert(database: Database, account: Account) -> None:
    await audit.insert_event(
        database,
        event_id=uuid7(),
        account_id=account.id,
        method="/accord.accounts.v1.AccountService/SignOut",
        peer="ipv4:192.0.2.1",
        code="OK",
        request_id="request",
    )


async def test_insert_event_stores_all_fields(database: Database, account: Account) -> None:
    event_id = uuid7()
    await audit.insert_event(
        database,
        event_id=event_id,
        account_id=None,
        method="/accord.accounts.v1.AccountService/SignIn",
        target="account",
        peer="ipv4:192.0.2.1",
        user_agent="grpcurl",
        code="UNAUTHENTICATED",
        reason="SIGN_IN_REFUSED",
        request_id="request",
    )
    event = await database.fetch_one(select(AuditEvent))
    assert event is not None
    assert (event.id, event.account_id, event.target, event.peer) == (event_id, None, "account", "ipv4:192.0.2.1")
    assert (event.code, event.reason, event.user_agent) == ("UNAUTHENTICATED", "SIGN_IN_REFUSED", "grpcurl")


@pytest.mark.parametrize("change", [update(AuditEvent).values(code="OK"), delete(AuditEvent)], ids=["update", "delete"])
async def test_events_cannot_be_updated_or_deleted(
    database: Database, account: Account, change: Update | Delete
) -> None:
    await insert(database, account)
    with pytest.raises(DatabaseError, match="42501"):
        await database.execute(change)
    assert len(await database.fetch_all(select(AuditEvent))) == 1


async def test_log_cannot_be_truncated(database: Database, account: Account, dsn: str) -> None:
    await insert(database, account)
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("TRUNCATE audit_events CASCADE")


async def test_event_outlives_its_account(database: Database, account: Account) -> None:
    await insert(database, account)
    await database.execute(delete(Account).where(Account.id == bindparam("account_id")), account_id=account.id)
    [event] = await database.fetch_all(select(AuditEvent))
    assert event.account_id == account.id


ONE, OTHER = uuid7(), uuid7()
# The first and last times that the contract accepts.
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


async def inserted(database: Database, name: str, **values: object) -> None:
    fields: dict[str, Any] = {"account_id": None, "method": "/m", "peer": "p", "code": "OK"} | values
    await audit.insert_event(database, event_id=uuid7(), request_id=name, **fields)


async def listed(database: Database, **filters: Unpack[EventFilters]) -> list[str]:
    return [event.request_id for event in await audit.list_events(database, page=Page(100), **filters)]


async def test_events_are_filtered_by_account_actor_organization_method_and_target(database: Database) -> None:
    await inserted(database, "signed in", account_id=ONE, method="/SignIn", target="session")
    await inserted(database, "impersonated", account_id=ONE, impersonator_id=OTHER, organization_id=OTHER)
    await inserted(database, "by a service", account_id=OTHER, service_account_id=OTHER, method="/SignIn")
    assert await listed(database) == ["by a service", "impersonated", "signed in"]
    assert await listed(database, account_id=ONE) == ["impersonated", "signed in"]
    assert await listed(database, actor_id=OTHER) == ["by a service", "impersonated"]
    assert await listed(database, actor_id=ONE) == []
    assert await listed(database, organization_id=OTHER) == ["impersonated"]
    assert await listed(database, method="/SignIn") == ["by a service", "signed in"]
    assert await listed(database, method="/SignIn", account_id=ONE) == ["signed in"]
    assert await listed(database, target="session") == ["signed in"]


async def test_events_are_filtered_by_a_half_open_range_of_time(database: Database) -> None:
    for name in ("first", "second", "third"):
        await inserted(database, name)
    third, second, first = await audit.list_events(database, page=Page(3))
    assert await listed(database, occurred_from=second.occurred_at) == ["third", "second"]
    assert await listed(database, occurred_before=second.occurred_at) == ["first"]
    assert await listed(database, occurred_from=first.occurred_at, occurred_before=third.occurred_at) == [
        "second",
        "first",
    ]
    assert len(await listed(database, occurred_from=FIRST, occurred_before=LAST)) == 3
    assert await listed(database, occurred_from=LAST) == await listed(database, occurred_before=FIRST) == []


async def test_events_are_listed_in_pages(database: Database) -> None:
    for name in "abcde":
        await inserted(database, name, account_id=ONE)
    await inserted(database, "another's", account_id=OTHER)
    pages: list[str] = []
    after_id = None
    while page := await audit.list_events(
        database, page=Page(2, Cursor(after_id, after_id) if after_id else None), account_id=ONE
    ):
        pages.append("".join(event.request_id for event in page))
        after_id = page[-1].id
    assert pages == ["ed", "cb", "a"]


_MANY = """
INSERT INTO audit_events
    (id, account_id, organization_id, impersonator_id, service_account_id, method, target, peer, code, request_id)
SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
       CASE WHEN n % 10 = 0 THEN gen_random_uuid() END,
       CASE WHEN n % 10 = 1 THEN gen_random_uuid() END,
       '/method/' || n % 50, gen_random_uuid(), 'p', 'OK', 'r'
FROM generate_series(1, 20000) n
"""


@pytest.fixture(scope="module")
def many(postgres: str, template: str) -> Iterator[str]:
    with filled_database(postgres, template, _MANY) as dsn:
        yield dsn


@pytest.mark.server
@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ([], "pk_audit_events"),
        (["account_id"], "ix_audit_events_account_id_id"),
        (["actor_id"], "ix_audit_events_actor_id_id"),
        (["organization_id"], "ix_audit_events_organization_id_id"),
        (["method"], "ix_audit_events_method_id"),
        (["target"], "ix_audit_events_target_id"),
        (["occurred_from", "occurred_before"], "pk_audit_events"),
        (["account_id", "method", "occurred_from"], "ix_audit_events_account_id_id"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("later_page", [False, True], ids=["first page", "later page"])
def test_listing_events_uses_an_index(many: str, filters: list[str], index: str, later_page: bool) -> None:
    statement = audit._list(frozenset(filters), later_page)
    with psycopg.connect(many) as connection:
        plan = generic_plan(connection, statement, "audit_events")
    assert index in plan, plan
    assert "Seq Scan" not in plan
    # The generic plan assumes a short range of time, and sorts it. For longer ranges PostgreSQL makes a custom plan.
    assert "Sort" not in plan or filters == ["occurred_from", "occurred_before"]


async def test_event_of_a_call_that_waited_is_later_than_what_it_waited_for(connect: Connect, account: Account) -> None:
    """Both calls lock the same row. The one that waits has begun first."""
    one, other = await connect(), await connect()

    async def call(database: Database, method: str, locked: asyncio.Event, go_on: asyncio.Event) -> None:
        async with database.transaction() as tx:
            await tx.fetch_one(select(func.now()))
            begun[method].set()
            await locked.wait()
            await accounts.get_account_locked(tx, account_id=account.id)
            go_on.set()
            await audit.insert_event(tx, event_id=uuid7(), account_id=account.id, method=method, **CALLED)

    begun = {"first": asyncio.Event(), "second": asyncio.Event()}
    has_lock = asyncio.Event()
    waiting = asyncio.create_task(call(one, "second", has_lock, asyncio.Event()))
    await begun["second"].wait()
    await call(other, "first", begun["second"], has_lock)
    await waiting
    events = await one.fetch_all(select(AuditEvent.method).order_by(AuditEvent.occurred_at))
    assert events == ["first", "second"]
    assert [event.method for event in await audit.list_events(one, page=Page(10))] == ["second", "first"]


CALLED: Final[Any] = {"peer": "192.0.2.1", "code": "OK", "request_id": "request"}
