"""The gateway's role, created with the SQL of docs/operating.md, can only read the audit log and insert into it."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from accord_db import migrate
from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.ids import uuid7
from accord_db.queries import audit
from accord_postgres import EmbeddedPostgres
from tests.docs.test_operating import SQL, run

ATTEMPTS = {
    "change": "UPDATE audit_events SET code = 'OK'",
    "change nothing": "UPDATE audit_events SET code = code WHERE false",
    "delete": "DELETE FROM audit_events",
    "truncate": "TRUNCATE audit_events",
    "disable the trigger": "ALTER TABLE audit_events DISABLE TRIGGER audit_events_only_grows",
    "disable all triggers": "SET session_replication_role = replica",
    "drop the trigger": "DROP TRIGGER audit_events_only_grows ON audit_events",
    "replace the function of the trigger": "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE sql AS 'SELECT null'",
    "drop the table": "DROP TABLE audit_events",
    "rename the table": "ALTER TABLE audit_events RENAME TO former_events",
    "add a rule": "CREATE RULE lost AS ON INSERT TO audit_events DO INSTEAD NOTHING",
    "add a trigger": "CREATE TRIGGER lost BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "become the owner": "SET ROLE accord_owner",
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The DSN of a server on which the test may create roles."""
    with TemporaryDirectory(prefix="accord-") as folder, EmbeddedPostgres(Path(folder), sync=False) as server:
        yield server.dsn


@pytest.fixture(scope="module")
def gateway(server: str) -> str:
    """A DSN with the gateway's role. The database is created and migrated as the page describes."""
    roles, rights = SQL
    superuser = make_conninfo(server, dbname="postgres")
    run(superuser, "DROP DATABASE accord")
    # Embedded PostgreSQL's superuser already has the name of the page's login role.
    run(superuser, roles.replace("ROLE accord LOGIN", "ROLE accord_login LOGIN"))
    run(server, rights.replace("TO accord;", "TO accord_login;"))
    migrate.apply(make_conninfo(server, user="accord_owner"))
    return make_conninfo(server, user="accord_login")


@pytest.fixture
async def event(gateway: str) -> None:
    """An audit event, inserted with the gateway's role."""
    database = await Database.connect(DatabaseSettings(dsn=gateway, pool_size=1))
    try:
        await audit.insert_event(
            database, event_id=uuid7(), account_id=None, method="/x", peer="192.0.2.1", code="OK", request_id="x"
        )
    finally:
        await database.close()


@pytest.mark.usefixtures("event")
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_role_of_the_gateway_cannot_change_the_log(attempt: str, gateway: str) -> None:
    before = events(gateway)
    with pytest.raises(psycopg.Error) as caught:
        run(gateway, ATTEMPTS[attempt])
    # 42501 is insufficient_privilege. Commands that only an owner may run also fail with it.
    assert caught.value.sqlstate == "42501"
    assert events(gateway) == before


@pytest.mark.usefixtures("event")
def test_role_of_the_gateway_has_no_privilege_to_change_the_log(gateway: str) -> None:
    """Changes fail because of the missing privilege too, not only because of the trigger."""
    with psycopg.connect(gateway) as connection:
        query = "SELECT has_table_privilege('audit_events', privilege) FROM unnest(%s::text[]) AS privilege"
        held = connection.execute(query, (["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"],)).fetchall()
        columns = connection.execute("SELECT has_any_column_privilege('audit_events', 'UPDATE')").fetchall()
    assert [row[0] for row in held] == [True, True, False, False, False]
    assert columns == [(False,)]


@pytest.mark.usefixtures("event")
@pytest.mark.parametrize("attempt", ["change", "change nothing", "delete", "truncate"])
def test_trigger_rejects_changes_by_the_owner(attempt: str, server: str, gateway: str) -> None:
    before = events(gateway)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only ever added"):
        run(make_conninfo(server, user="accord_owner"), ATTEMPTS[attempt])
    assert events(gateway) == before


def events(gateway: str) -> int:
    with psycopg.connect(gateway) as connection:
        row = connection.execute("SELECT count(*) FROM audit_events WHERE code = 'OK'").fetchone()
    assert row is not None
    assert row[0] > 0
    return int(row[0])
