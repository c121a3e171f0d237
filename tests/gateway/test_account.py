"""`accord account ban` and `unban`, with an effect on every gateway that serves."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import psycopg
import pytest

from accord.accounts.v1.accounts_pb2 import GetSessionRequest, SignInRequest, SignInResponse, SignUpRequest
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from tests.clocks import SHIFTS, shifted_database
from tests.conftest import temporary_database
from tests.factories import bearer
from tests.gateway.conftest import Start, eventually, healthy, run_command, url

EMAIL, PASSWORD = "joan@example.com", "correct horse battery"


def account(folder: Path, action: str, email: str = EMAIL, *arguments: str, **settings: object) -> tuple[int, str]:
    done = run_command(["account", action, email, *arguments], folder, settings)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def sign_up(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        AccountServiceStub(channel).SignUp(SignUpRequest(email=EMAIL, password=PASSWORD, display_name="Joan"))


def sign_in(address: str) -> SignInResponse:
    with grpc.insecure_channel(address) as channel:
        return AccountServiceStub(channel).SignIn(SignInRequest(email=EMAIL, password=PASSWORD))


def is_accepted(address: str, session: SignInResponse) -> bool:
    with grpc.insecure_channel(address) as channel:
        headers = bearer(session.session_token)
        try:
            AccountServiceStub(channel).GetSession(GetSessionRequest(), metadata=headers)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED
            return False
        return True


def test_every_gateway_rejects_a_banned_account_until_it_is_unbanned(
    start: Start, database_url: str, tmp_path: Path
) -> None:
    addresses = [start(DATABASE_URL=database_url).address for _ in range(2)]
    sign_up(addresses[0])
    sessions = [sign_in(address) for address in addresses]
    assert all(is_accepted(address, session) for address in addresses for session in sessions)
    status, output = account(tmp_path, "ban", EMAIL.upper(), DATABASE_URL=database_url)
    assert (status, output) == (0, f"{EMAIL.upper()} is banned. Sessions ended: 2.\n")
    for address in addresses:
        for session in sessions:
            eventually(lambda: not is_accepted(address, session) or None)  # noqa: B023 — called at once
        with pytest.raises(grpc.RpcError) as error:
            sign_in(address)
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
    status, output = account(tmp_path, "unban", DATABASE_URL=database_url)
    assert (status, output) == (0, f"{EMAIL} is not banned. Sessions ended: 0.\n")
    assert is_accepted(addresses[1], sign_in(addresses[0]))
    assert not any(is_accepted(address, session) for address in addresses for session in sessions)


def test_a_ban_has_a_reason_and_an_end(start: Start, database_url: str, dsn: str, tmp_path: Path) -> None:
    gateway = start(DATABASE_URL=database_url)
    sign_up(gateway.address)
    arguments = (EMAIL, "--until", "2100-01-31T18:00", "--reason", "spam")
    status, output = account(tmp_path, "ban", *arguments, DATABASE_URL=database_url)
    assert (status, output) == (0, f"{EMAIL} is banned until 2100-01-31 18:00 UTC. Sessions ended: 0.\n")
    with psycopg.connect(dsn) as connection:
        query = "SELECT extract(epoch FROM banned_until)::bigint, ban_reason FROM accounts"
        assert connection.execute(query).fetchone() == (4105101600, "spam")
        query = "SELECT stated_reason FROM audit_events WHERE method = 'accord account ban'"
        assert connection.execute(query).fetchone() == ("spam",)
    with pytest.raises(grpc.RpcError):
        sign_in(gateway.address)


@pytest.mark.parametrize(
    ("action", "arguments", "message"),
    [
        (
            "ban",
            ["--until", "tomorrow"],
            "must be a time in the future, such as 2030-01-31T18:00Z (it is tomorrow)",
        ),
        ("ban", ["--reason", "x" * 501], "--reason must have at most 500 characters"),
        ("unban", ["--reason", "sorry"], "apply to bans only"),
    ],
    ids=["not a time", "too long", "unban"],
)
def test_invalid_arguments_are_refused(tmp_path: Path, action: str, arguments: list[str], message: str) -> None:
    status, output = account(tmp_path, action, EMAIL, *arguments)
    assert status == 1
    assert output.startswith("accord: ")
    assert message in output


def test_ban_until_a_time_that_has_passed_is_refused(dsn: str, database_url: str, tmp_path: Path) -> None:
    status, output = account(tmp_path, "ban", EMAIL, "--until", "2001-01-01", DATABASE_URL=database_url)
    assert status == 1
    assert "a time in the future, such as 2030-01-31T18:00Z (it is 2001-01-01T00:00:00+00:00)" in output


@pytest.mark.parametrize("by", SHIFTS.values(), ids=list(SHIFTS))
def test_end_of_a_ban_is_compared_with_the_clock_of_the_database(postgres: str, tmp_path: Path, by: timedelta) -> None:
    with shifted_database(postgres, by) as dsn:
        for minutes, message in ((-1, "--until must be a time in the future"), (1, "No account has the address")):
            until = datetime.now(UTC) + by + timedelta(minutes=minutes)
            found = account(tmp_path, "ban", EMAIL, "--until", until.isoformat(), DATABASE_URL=url(dsn))
            assert message in found[1]


def test_ban_works_on_the_embedded_postgres_of_a_running_gateway(start: Start, tmp_path: Path) -> None:
    gateway = start()
    assert healthy(gateway.address)
    sign_up(gateway.address)
    session = sign_in(gateway.address)
    for action in ("ban", "ban", "unban"):
        assert account(tmp_path, action)[0] == 0
    assert not is_accepted(gateway.address, session)


def test_ban_and_unban_are_audited(start: Start, database_url: str, dsn: str, tmp_path: Path) -> None:
    gateway = start(DATABASE_URL=database_url)
    sign_up(gateway.address)
    for action in ("ban", "unban"):
        account(tmp_path, action, DATABASE_URL=database_url)
    with psycopg.connect(dsn) as connection:
        [(account_id,)] = connection.execute("SELECT id FROM accounts")
        query = "SELECT method, peer, code, account_id, target FROM audit_events ORDER BY occurred_at OFFSET 1"
        assert connection.execute(query).fetchall() == [
            ("accord account ban", "command line", "OK", account_id, str(account_id)),
            ("accord account unban", "command line", "OK", account_id, str(account_id)),
        ]


@pytest.mark.parametrize("action", ["ban", "unban"])
def test_an_account_that_does_not_exist_is_reported(database_url: str, dsn: str, tmp_path: Path, action: str) -> None:
    status, output = account(tmp_path, action, "missing@example.com", DATABASE_URL=database_url)
    assert (status, output) == (1, "accord: No account has the address missing@example.com.\n")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM audit_events").fetchone() == (0,)


def test_a_database_that_is_not_migrated_is_refused(postgres: str, tmp_path: Path) -> None:
    with temporary_database(postgres) as empty:
        status, output = account(tmp_path, "ban", DATABASE_URL=url(empty))
    assert status == 1
    assert "Run `accord migrate`" in output
