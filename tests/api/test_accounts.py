import asyncio
from typing import Any

import grpc
import psycopg
import pytest
import structlog

from accord.accounts.v1.accounts_pb2 import (
    GetAccountRequest,
    GetSessionRequest,
    SessionStatus,
    SignInRequest,
    SignOutRequest,
    SignUpRequest,
)
from accord_auth.tokens import new_session_token
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_gateway.server.gateway import Runtime, build_server
from accord_gateway.settings import Settings
from tests.api.conftest import SECRET_KEY, Client, outcome, refusal
from tests.api.signing_in import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    hash_changed_during,
    outdated_hash,
    refused_sign_in,
    sign_in,
    sign_up,
)
from tests.conftest import change, count
from tests.factories import bearer


async def test_user_signs_up_and_signs_in(client: Client) -> None:
    await sign_up(client, "User@Example.com", name="Søme Bødy")
    response = await sign_in(client, "user@EXAMPLE.com")
    who = await client.accounts.GetSession(GetSessionRequest(), metadata=bearer(response.session_token))
    assert (who.account.email, who.account.display_name) == (EMAIL, "Søme Bødy")
    assert (who.session.status, who.session.current) == (SessionStatus.SESSION_STATUS_ACTIVE, True)
    who.session.ClearField("status")  # SignIn sets neither on the session that it creates
    who.session.ClearField("current")
    assert who.session == response.session
    assert who.session.account_id == who.account.id
    lifetime = who.session.expires_at.ToDatetime() - who.session.created_at.ToDatetime()
    assert lifetime.days == 30


async def test_wrong_password_and_unknown_account_get_the_same_response(client: Client) -> None:
    await sign_up(client)
    wrong = await refused_sign_in(client, password=PASSWORD + "!")
    unknown = await refused_sign_in(client, email="unknown@example.com")
    assert wrong == unknown
    assert (wrong.code, wrong.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGN_IN_REFUSED")
    assert not wrong.metadata


@pytest.mark.parametrize("password", [PASSWORD.upper(), PASSWORD + " ", " " + PASSWORD, PASSWORD[:-1], PASSWORD * 2])
async def test_password_is_verified_exactly_as_it_was_set(client: Client, password: str) -> None:
    await sign_up(client)
    assert (await refused_sign_in(client, password=password)).reason == "SIGN_IN_REFUSED"


async def test_sign_up_with_an_existing_email_gets_the_same_response_and_changes_nothing(client: Client) -> None:
    first = await sign_up(client)
    assert await sign_up(client, EMAIL.upper(), "another password, long") == first
    assert (await refused_sign_in(client, password="another password, long")).reason == "SIGN_IN_REFUSED"
    await sign_in(client)


async def test_ten_concurrent_sign_ups_create_one_account(client: Client, dsn: str) -> None:
    await asyncio.gather(*(sign_up(client) for _ in range(10)))
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM accounts").fetchone() == (1,)


@pytest.mark.parametrize(
    "password", ["correct horse b", "x" * 128, "ü" * 15, "𝕏" * 128, " " * 15, "\0" * 15, "tab\tand\nline......"]
)
async def test_password_at_its_length_limits_is_accepted_with_any_character(client: Client, password: str) -> None:
    await sign_up(client, password=password)
    await sign_in(client, password=password)


@pytest.mark.parametrize("password", ["", "x" * 7, "x" * 14, "ü" * 14, "x" * 129, "𝕏" * 129])
async def test_password_outside_its_length_limits_is_a_violation_of_its_field(client: Client, password: str) -> None:
    request = SignUpRequest(email=EMAIL, password=password, display_name="Me")
    refused = await refusal(client.accounts.SignUp(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    assert list(refused.violations) == ["password"]
    assert not password or password not in repr(refused)


@pytest.mark.parametrize(
    "email", ["", "x", "@", "a@", "@b", "a b@c.de", "a@b@c", "x" * 250 + "@b.de", "a@b.de\0", "a@b.de\n", "Me <a@b.de>"]
)
async def test_invalid_email_is_a_violation_of_its_field(client: Client, email: str) -> None:
    refused = await refusal(client.accounts.SignUp(SignUpRequest(email=email, password=PASSWORD, display_name="Me")))
    assert list(refused.violations) == ["email"]


@pytest.mark.parametrize("name", ["", "x" * 101, "nul\0", "line\nbreak"])
async def test_invalid_name_is_a_violation_of_its_field(client: Client, name: str) -> None:
    request = SignUpRequest(email=EMAIL, password=PASSWORD, display_name=name)
    assert list((await refusal(client.accounts.SignUp(request))).violations) == ["display_name"]


async def test_token_is_refused_after_sign_out_and_other_sessions_remain_valid(client: Client) -> None:
    await sign_up(client)
    mine, other = await sign_in(client), await sign_in(client)
    assert mine.session_token != other.session_token
    await client.accounts.SignOut(SignOutRequest(), metadata=bearer(mine.session_token))
    refused = await refusal(client.accounts.GetSession(GetSessionRequest(), metadata=bearer(mine.session_token)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")
    await client.accounts.GetSession(GetSessionRequest(), metadata=bearer(other.session_token))


async def test_token_sent_with_a_sign_in_is_never_adopted(client: Client) -> None:
    """Session fixation: no token that the attacker invented or owns becomes the token of the user who signs in."""
    await sign_up(client)
    attacker, invented = await client.new_user(), new_session_token()
    mine = await sign_in(client)
    for token in (invented, attacker.token, mine.session_token):
        headers = bearer(token)
        response = await client.accounts.SignIn(SignInRequest(email=EMAIL, password=PASSWORD), metadata=headers)
        assert response.session_token not in (invented, attacker.token, mine.session_token)
        assert response.session.id != mine.session.id
    refused = await refusal(client.accounts.GetSession(GetSessionRequest(), metadata=bearer(invented)))
    assert refused.reason == "CREDENTIAL_INVALID"
    who = await client.accounts.GetSession(GetSessionRequest(), metadata=attacker.headers)
    assert who.account.id == str(attacker.account_id)


async def test_recently_used_token_is_refused_on_the_next_call_after_sign_out(client: Client) -> None:
    """Repeated, because the possible fault is a race between the cache and the revocation."""
    users = [await client.new_user() for _ in range(10)]

    async def use_then_sign_out(headers: Any) -> None:
        await asyncio.gather(
            *(client.accounts.GetSession(GetSessionRequest(), metadata=headers) for _ in range(5)),
        )
        busy = [asyncio.create_task(try_session(headers)) for _ in range(10)]
        await client.accounts.SignOut(SignOutRequest(), metadata=headers)
        assert not await try_session(headers)
        await asyncio.gather(*busy)
        assert not await try_session(headers)

    async def try_session(headers: Any) -> bool:
        try:
            await client.accounts.GetSession(GetSessionRequest(), metadata=headers)
        except grpc.aio.AioRpcError:
            return False
        return True

    await asyncio.gather(*(use_then_sign_out(user.headers) for user in users))


async def test_sign_out_in_one_gateway_takes_effect_in_another(client: Client, dsn: str, settings: Any) -> None:
    user = await client.new_user()
    database, listener = await Database.connect(settings), Listener(dsn)
    other_settings = Settings(port=0, metrics_port=0)
    other = build_server(Runtime(other_settings, SECRET_KEY, database, listener))
    await listener.start()
    port = other.server.listen()
    await other.server.start()
    while not listener.connected:
        await asyncio.sleep(0.01)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        elsewhere = Client(channel, client.tasks, type(client.accounts)(channel), database)
        await elsewhere.accounts.GetSession(GetSessionRequest(), metadata=user.headers)
        await client.accounts.SignOut(SignOutRequest(), metadata=user.headers)
        await asyncio.sleep(0.1)  # a notification takes a millisecond; the cache alone would keep it for seconds
        refused = await refusal(elsewhere.accounts.GetSession(GetSessionRequest(), metadata=user.headers))
    assert refused.reason == "CREDENTIAL_INVALID"
    await other.server.stop(None)
    await listener.close()
    await database.close()


async def test_deleted_account_is_signed_out(client: Client, dsn: str) -> None:
    await sign_up(client)
    response = await sign_in(client)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE accounts SET deleted_at = now()")
    refused = await refusal(client.accounts.GetSession(GetSessionRequest(), metadata=bearer(response.session_token)))
    assert refused.reason == "CREDENTIAL_INVALID"
    assert (await refused_sign_in(client)).reason == "SIGN_IN_REFUSED"


async def test_database_contains_no_token_and_no_password(client: Client, dsn: str) -> None:
    await sign_up(client)
    token = (await sign_in(client)).session_token
    with psycopg.connect(dsn) as connection:
        tables = ("accounts", "sessions", "audit_events", "idempotency_keys")
        rows = "".join(str(connection.execute(f"SELECT * FROM {table}").fetchall()) for table in tables)
    assert token not in rows
    assert PASSWORD not in rows
    assert "$argon2id$" in rows


async def test_log_lines_contain_no_password_and_no_token(client: Client) -> None:
    with structlog.testing.capture_logs() as lines:
        await sign_up(client)
        response = await sign_in(client)
        await refused_sign_in(client, password="wrong password in clear")
        await refusal(client.accounts.SignUp(SignUpRequest(email=EMAIL, password="short one", display_name="Me")))
        await client.accounts.SignOut(SignOutRequest(), metadata=bearer(response.session_token))
    text = str(lines)
    assert len(lines) >= 5
    for secret in (PASSWORD, response.session_token, "wrong password in clear", "short one", EMAIL):
        assert secret not in text


async def test_events_of_an_account_are_audited(client: Client, dsn: str) -> None:
    await sign_up(client)
    response = await sign_in(client)
    await refused_sign_in(client, password="wrong password, long")
    await client.accounts.SignOut(SignOutRequest(), metadata=bearer(response.session_token))
    with psycopg.connect(dsn) as connection:
        query = "SELECT method, code, reason, account_id::text, target FROM audit_events ORDER BY occurred_at"
        events = connection.execute(query).fetchall()
    account, session = response.session.account_id, response.session.id
    assert [(event[0].rpartition("/")[2], *event[1:]) for event in events] == [
        ("SignUp", "OK", None, account, account),
        ("SignIn", "OK", None, account, session),
        ("SignIn", "UNAUTHENTICATED", "SIGN_IN_REFUSED", account, account),
        ("SignOut", "OK", None, account, session),
    ]


async def test_sign_in_is_limited_by_address(client: Client) -> None:
    refusals = [await refused_sign_in(client, email=f"user{number % 3}@example.com") for number in range(21)]
    assert {refused.reason for refused in refusals[:20]} == {"SIGN_IN_REFUSED"}
    assert refusals[20].reason == "RATE_LIMITED"


async def test_sign_in_is_limited_after_ten_failures_of_one_account(client: Client) -> None:
    refusals = [await refused_sign_in(client, email=EMAIL if number % 2 else EMAIL.upper()) for number in range(11)]
    assert {refused.reason for refused in refusals[:10]} == {"SIGN_IN_REFUSED"}
    assert refusals[10].reason == "RATE_LIMITED"


async def test_sign_in_renews_the_hash_when_its_parameters_have_changed(client: Client, dsn: str) -> None:
    await sign_up(client)
    change(dsn, "UPDATE accounts SET password_hash = %s", outdated_hash())
    await sign_in(client)
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT password_hash FROM accounts").fetchone()
    assert row is not None
    assert "m=19456,t=2" in row[0]
    await sign_in(client)


async def test_concurrent_sign_ins_all_succeed_while_the_hash_is_renewed(client: Client, dsn: str) -> None:
    await sign_up(client)
    change(dsn, "UPDATE accounts SET password_hash = %s", outdated_hash())
    assert await asyncio.gather(*(outcome(sign_in(client)) for _ in range(10))) == ["OK"] * 10
    assert count(dsn, "sessions") == 10


async def test_sign_in_succeeds_when_the_hash_is_renewed_while_the_password_is_verified(
    client: Client, dsn: str
) -> None:
    await sign_up(client)
    async with hash_changed_during(dsn, outdated_hash()):
        call = asyncio.ensure_future(outcome(sign_in(client)))
    assert await call == "OK"
    with psycopg.connect(dsn) as connection:
        events = connection.execute("SELECT code FROM audit_events WHERE method LIKE '%/SignIn'").fetchall()
    assert events == [("OK",)]


async def test_renewing_the_hash_keeps_the_etag_of_the_account(client: Client, dsn: str) -> None:
    await sign_up(client)
    headers = bearer((await sign_in(client)).session_token)
    change(dsn, "UPDATE accounts SET password_hash = %s", outdated_hash())
    seen = (await client.accounts.GetAccount(GetAccountRequest(), metadata=headers)).account
    await sign_in(client)
    assert (await client.accounts.GetAccount(GetAccountRequest(), metadata=headers)).account == seen


async def test_sign_in_is_refused_when_the_password_is_changed_while_it_is_verified(client: Client, dsn: str) -> None:
    await sign_up(client)
    async with hash_changed_during(dsn, outdated_hash(OTHER_PASSWORD)):
        call = asyncio.ensure_future(outcome(sign_in(client)))
    assert await call == "SIGN_IN_REFUSED"
    assert count(dsn, "sessions") == 0
