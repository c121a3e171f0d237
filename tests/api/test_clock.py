"""The database's clock decides, whatever the clock of the gateway shows."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from joserfc import jws
from psycopg.conninfo import conninfo_to_dict

from accord.admin.v1.admin_pb2 import BanAccountRequest, GetAccountRequest, ListAuditEventsRequest
from accord.admin.v1.admin_pb2_grpc import AdminServiceStub
from accord.sessions.v1.sessions_pb2 import RevokeOtherSessionsRequest
from accord.sessions.v1.sessions_pb2_grpc import SessionServiceStub
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, ListTasksRequest
from tests.api.conftest import Client, outcome
from tests.api.services import make_administrator, new_service, token_of
from tests.api.signing_in import EMAIL, sign_in, sign_up, signed_in
from tests.clocks import SHIFTS, shifted_database
from tests.conftest import change, temporary_database
from tests.factories import Headers, Person, bearer


@pytest.fixture(scope="module", params=SHIFTS.values(), ids=list(SHIFTS))
def shifted_template(postgres: str, request: pytest.FixtureRequest) -> Iterator[str]:
    with shifted_database(postgres, request.param) as dsn:
        yield str(conninfo_to_dict(dsn)["dbname"])


@pytest.fixture
def dsn(postgres: str, shifted_template: str) -> Iterator[str]:
    with temporary_database(postgres, template=shifted_template) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:  # settings of a database are not copied
            database = conninfo_to_dict(dsn)["dbname"]
            connection.execute(f'ALTER DATABASE "{database}" SET search_path = public, pg_catalog'.encode())
        assert abs(database_time(dsn) - datetime.now(UTC)) > timedelta(minutes=10)
        yield dsn


def database_time(dsn: str) -> datetime:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    time: datetime = row[0]
    return time


async def revoke_others(client: Client, headers: Headers) -> str:
    stub = SessionServiceStub(client.channel)
    return await outcome(stub.RevokeOtherSessions(RevokeOtherSessionsRequest(), metadata=headers))


@pytest.mark.parametrize(
    ("minutes", "end"), [(0, "OK"), (9, "OK"), (10.1, "SIGN_IN_NOT_FRESH"), (30, "SIGN_IN_NOT_FRESH")]
)
async def test_sign_in_is_recent_for_ten_minutes(client: Client, dsn: str, minutes: float, end: str) -> None:
    await sign_up(client)
    token = (await sign_in(client)).session_token
    change(dsn, "UPDATE sessions SET authenticated_at = now() - %s", timedelta(minutes=minutes))
    assert await revoke_others(client, bearer(token)) == end


@pytest.fixture
async def admin(client: Client, dsn: str) -> Person:
    person = await client.somebody()
    make_administrator(dsn, person)
    return person


async def test_ban_ends_when_it_is_over(client: Client, dsn: str, admin: Person) -> None:
    await sign_up(client)
    stub = AdminServiceStub(client.channel)
    with psycopg.connect(dsn) as connection:
        [(account_id,)] = connection.execute("SELECT id FROM accounts WHERE email = %s", [EMAIL]).fetchall()

    async def banned() -> bool:
        request = GetAccountRequest(account_id=str(account_id))
        return (await stub.GetAccount(request, metadata=admin.headers)).account.banned

    for seconds, ends in ((60, "SIGN_IN_REFUSED"), (-60, "OK")):
        change(
            dsn,
            "UPDATE accounts SET banned_at = now() - interval '1 day', banned_until = now() + %s WHERE id = %s",
            timedelta(seconds=seconds),
            account_id,
        )
        assert await outcome(sign_in(client)) == ends
        assert await banned() == (seconds > 0)


async def test_cached_session_is_refused_when_it_expires(client: Client, dsn: str) -> None:
    headers = await signed_in(client)
    change(dsn, "UPDATE sessions SET expires_at = now() + interval '1.5 seconds'")
    assert await outcome(client.tasks.ListTasks(ListTasksRequest(), metadata=headers)) == "OK"
    await asyncio.sleep(1.6)
    assert await outcome(client.tasks.ListTasks(ListTasksRequest(), metadata=headers)) == "CREDENTIAL_INVALID"


async def test_service_token_has_the_database_s_times_and_is_accepted(client: Client, dsn: str) -> None:
    service = await new_service(client.database)
    token = await token_of(client.channel, service)
    claims = jws.extract_compact(token.encode()).payload
    issued_at = datetime.fromtimestamp(int(claims.split(b'"iat":')[1].split(b",")[0]), UTC)
    assert abs(database_time(dsn) - issued_at) < timedelta(seconds=5)
    # Whichever method: the credential is accepted if the reason is another one.
    assert await outcome(client.tasks.ListTasks(ListTasksRequest(), metadata=bearer(token))) == "PERMISSION_DENIED"


async def test_audit_events_are_listed_by_the_database_s_times(client: Client, dsn: str, admin: Person) -> None:
    before = database_time(dsn)
    task = CreateTaskRequest(title="x")
    await client.tasks.CreateTask(task, metadata=admin.headers)
    await sign_up(client)
    request = ListAuditEventsRequest()
    request.occurred_from.FromDatetime(before)
    request.occurred_before.FromDatetime(before + timedelta(minutes=1))
    found = await AdminServiceStub(client.channel).ListAuditEvents(request, metadata=admin.headers)
    assert "/accord.accounts.v1.AccountService/SignUp" in [event.method for event in found.events]


async def test_administrator_bans_until_a_time(client: Client, dsn: str, admin: Person) -> None:
    await sign_up(client)
    with psycopg.connect(dsn) as connection:
        [(account_id,)] = connection.execute("SELECT id FROM accounts WHERE email = %s", [EMAIL]).fetchall()
    until = Timestamp()
    until.FromDatetime(max(database_time(dsn), datetime.now(UTC)) + timedelta(hours=1))
    request = BanAccountRequest(account_id=str(account_id), reason="x", until=until)
    response = await AdminServiceStub(client.channel).BanAccount(request, metadata=admin.headers)
    assert response.account.banned
