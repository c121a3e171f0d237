"""`accord admin grant` and `revoke`, with an effect on every gateway that serves."""

from pathlib import Path

import grpc
import psycopg
import pytest

from accord.accounts.v1.accounts_pb2 import SignInRequest, SignUpRequest
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord.admin.v1.admin_pb2 import ListAccountsRequest
from accord.admin.v1.admin_pb2_grpc import AdminServiceStub
from tests.conftest import change
from tests.factories import Headers, bearer
from tests.gateway.conftest import Start, eventually, run_command

EMAIL, PASSWORD = "joan@example.com", "correct horse battery"


def admin(folder: Path, action: str, email: str = EMAIL, **settings: object) -> tuple[int, str]:
    done = run_command(["admin", action, email], folder, settings)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def signed_in(address: str, dsn: str) -> Headers:
    """Headers of an account whose address is verified."""
    with grpc.insecure_channel(address) as channel:
        stub = AccountServiceStub(channel)
        stub.SignUp(SignUpRequest(email=EMAIL, password=PASSWORD, display_name="Joan"))
        change(dsn, "UPDATE accounts SET email_verified_at = now()")
        return bearer(stub.SignIn(SignInRequest(email=EMAIL, password=PASSWORD)).session_token)


def is_administrator(address: str, headers: Headers) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            AdminServiceStub(channel).ListAccounts(ListAccountsRequest(), metadata=headers)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.PERMISSION_DENIED
            return False
        return True


def test_grant_and_revoke_apply_to_every_gateway_and_include_the_first_and_last_administrator(
    start: Start, database_url: str, dsn: str, tmp_path: Path
) -> None:
    addresses = [start(DATABASE_URL=database_url).address for _ in range(2)]
    headers = signed_in(addresses[0], dsn)
    assert not any(is_administrator(address, headers) for address in addresses)
    status, output = admin(tmp_path, "grant", EMAIL.upper(), DATABASE_URL=database_url)
    assert (status, output) == (0, f"{EMAIL.upper()} is an administrator.\n")
    for address in addresses:
        eventually(lambda: is_administrator(address, headers) or None)  # noqa: B023 — called at once
    status, output = admin(tmp_path, "revoke", DATABASE_URL=database_url)
    assert (status, output) == (0, f"{EMAIL} is not an administrator.\n")
    for address in addresses:
        eventually(lambda: not is_administrator(address, headers) or None)  # noqa: B023 — called at once


def test_grant_and_revoke_are_audited(start: Start, database_url: str, dsn: str, tmp_path: Path) -> None:
    signed_in(start(DATABASE_URL=database_url).address, dsn)
    for action in ("grant", "revoke"):
        assert admin(tmp_path, action, DATABASE_URL=database_url)[0] == 0
    with psycopg.connect(dsn) as connection:
        [(account_id,)] = connection.execute("SELECT id FROM accounts")
        query = "SELECT method, peer, code, account_id, target FROM audit_events ORDER BY id OFFSET 2"
        assert connection.execute(query).fetchall() == [
            ("accord admin grant", "command line", "OK", account_id, str(account_id)),
            ("accord admin revoke", "command line", "OK", account_id, str(account_id)),
        ]


def test_an_account_whose_address_is_not_verified_does_not_become_an_administrator(
    start: Start, database_url: str, dsn: str, tmp_path: Path
) -> None:
    signed_in(start(DATABASE_URL=database_url).address, dsn)
    change(dsn, "UPDATE accounts SET email_verified_at = NULL")
    status, output = admin(tmp_path, "grant", DATABASE_URL=database_url)
    expected = f"The address {EMAIL} is not verified. Verify it first."
    assert (status, output) == (1, f"accord: {expected}\n")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT role FROM accounts").fetchall() == [("person",)]


@pytest.mark.parametrize("action", ["grant", "revoke"])
def test_an_account_that_does_not_exist_is_reported(database_url: str, dsn: str, tmp_path: Path, action: str) -> None:
    status, output = admin(tmp_path, action, "missing@example.com", DATABASE_URL=database_url)
    assert (status, output) == (1, "accord: No account has the address missing@example.com.\n")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM audit_events").fetchone() == (0,)
