"""The audit log grows, and that is all it does."""

import psycopg
import pytest
from sqlalchemy import Delete, Update, bindparam, delete, select, update

from accord_db.database import Database
from accord_db.errors import DatabaseError
from accord_db.ids import uuid7
from accord_db.queries import audit
from accord_db.schema import Account, AuditEvent


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


async def test_an_event_is_kept_as_it_was_told(database: Database, account: Account) -> None:
    event_id = uuid7()
    await audit.insert_event(
        database,
        event_id=event_id,
        account_id=None,
        method="/accord.accounts.v1.AccountService/SignIn",
        target="somebody",
        peer="ipv4:192.0.2.1",
        user_agent="grpcurl",
        code="UNAUTHENTICATED",
        reason="SIGN_IN_REFUSED",
        request_id="request",
    )
    event = await database.first(select(AuditEvent))
    assert event is not None
    assert (event.id, event.account_id, event.target, event.peer) == (event_id, None, "somebody", "ipv4:192.0.2.1")
    assert (event.code, event.reason, event.user_agent) == ("UNAUTHENTICATED", "SIGN_IN_REFUSED", "grpcurl")


@pytest.mark.parametrize("change", [update(AuditEvent).values(code="OK"), delete(AuditEvent)], ids=["update", "delete"])
async def test_an_event_is_not_changed(database: Database, account: Account, change: Update | Delete) -> None:
    await insert(database, account)
    with pytest.raises(DatabaseError, match="42501"):
        await database.run(change)
    assert len(await database.all(select(AuditEvent))) == 1


async def test_the_log_is_not_truncated(database: Database, account: Account, dsn: str) -> None:
    await insert(database, account)
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("TRUNCATE audit_events CASCADE")


async def test_an_event_outlives_its_account(database: Database, account: Account) -> None:
    await insert(database, account)
    await database.run(delete(Account).where(Account.id == bindparam("account_id")), account_id=account.id)
    [event] = await database.all(select(AuditEvent))
    assert event.account_id == account.id
