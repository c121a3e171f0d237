"""Rules of docs/security.md that concern several features."""

import ast
import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from psycopg import sql

from accord.accounts.v1.accounts_pb2 import GetSessionRequest, SignInResponse
from accord.devices.v1.devices_pb2 import BeginDeviceSignInRequest, PollDeviceSignInRequest
from accord.devices.v1.devices_pb2_grpc import DeviceServiceStub
from accord.policy.v1.policy_pb2 import ACCESS_PUBLIC, RATE_LIMIT_KEY_PEER
from accord.second_factors.v1.second_factors_pb2 import (
    DeleteSecondFactorRequest,
)
from accord.second_factors.v1.second_factors_pb2_grpc import SecondFactorServiceStub
from accord.sessions.v1.sessions_pb2 import RevokeOtherSessionsRequest
from accord.sessions.v1.sessions_pb2_grpc import SessionServiceStub
from accord_auth.tokens import (
    DEVICE_PREFIX,
    SESSION_PREFIX,
    new_session_token,
    token_hash,
)
from accord_db.engine.ids import uuid7
from accord_db.queries import sessions
from accord_rpc.contract import contract_services
from accord_rpc.fields import fields_of
from accord_rpc.policy import Method, is_sensitive, read_methods
from buf.validate import validate_pb2
from tests.api.conftest import Client, refusal
from tests.api.forged_tokens import flipped
from tests.api.signing_in import add_second_factor, sign_in, sign_up
from tests.api.world import World
from tests.conftest import change
from tests.factories import Person, bearer

METHODS: dict[str, Method] = {method.path: method for method in read_methods(contract_services())[0]}
FRESH = [path for path, method in METHODS.items() if method.policy.fresh]
PACKAGES = Path(__file__).resolve().parents[2] / "packages"


# --- accounts and passwords -------------------------------------------------------------------------------------------
def test_new_database_has_no_accounts_and_no_other_rows(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchall()
        counted = {
            table: connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
            for (table,) in tables
        }
    assert {"accounts", "sessions", "audit_events"} <= counted.keys()
    assert {table for table, count in counted.items() if count != (0,)} == {"alembic_version"}


async def test_password_that_is_years_old_still_signs_in(client: Client, dsn: str) -> None:
    await sign_up(client)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE accounts SET created_at = created_at - interval '9 years'")
    assert (await sign_in(client)).session_token


def test_no_message_has_a_password_hint_or_a_security_question() -> None:
    words = {word for field in fields_of_the_contract() for word in field.name.split("_")}
    assert "password" in words
    assert not words & {"hint", "question", "answer", "birthday", "phone"}


# --- tokens -----------------------------------------------------------------------------------------------------------
async def test_session_token_with_any_byte_flipped_is_refused(client: Client, me: Person) -> None:
    for token in flipped(me.token, SESSION_PREFIX):
        assert await session_reason(client, token) == "CREDENTIAL_INVALID"
    assert await session_reason(client, me.token) is None


async def test_part_of_a_session_token_is_refused(client: Client, me: Person) -> None:
    for length in range(1, len(me.token)):
        for part in (me.token[:length], me.token[length:]):
            assert await session_reason(client, part) == "CREDENTIAL_INVALID"
    assert await session_reason(client, me.token) is None


async def test_device_code_with_any_byte_flipped_is_refused(client: Client) -> None:
    devices = DeviceServiceStub(client.channel)
    response = await devices.BeginDeviceSignIn(BeginDeviceSignInRequest(device_name="terminal"))
    for code in flipped(response.device_code, DEVICE_PREFIX):
        refused = await refusal(devices.PollDeviceSignIn(PollDeviceSignInRequest(device_code=code)))
        assert refused.reason == "DEVICE_CODE_EXPIRED"
    refused = await refusal(devices.PollDeviceSignIn(PollDeviceSignInRequest(device_code=response.device_code)))
    assert refused.reason == "AUTHORIZATION_PENDING"


async def session_reason(client: Client, token: str) -> str | None:
    """The reason why the token is refused. None if it is accepted."""
    call = client.accounts.GetSession(GetSessionRequest(), metadata=bearer(token))
    if await call.code() is grpc.StatusCode.OK:
        return None
    return (await refusal(call)).reason


def test_secrets_come_from_a_cryptographic_generator() -> None:
    """Every random value in accord_auth is a secret, so the package uses only the `secrets` module."""
    imported = {
        alias.name
        for path in (PACKAGES / "auth/accord_auth").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in [*node.names, ast.alias(node.module or "" if isinstance(node, ast.ImportFrom) else "")]
    }
    assert "secrets" in imported
    assert not imported & {"random", "numpy", "uuid1", "uuid4"}


def test_no_message_contains_a_token_of_a_provider() -> None:
    """The only access tokens in messages are those that Accord issues to services."""
    fields = fields_of_the_contract()
    assert "session_token" in {field.name for field in fields}
    assert not {field.name for field in fields} & {"refresh_token", "id_token"}
    own = {field.full_name for field in fields if field.name == "access_token"}
    messages = ("IssueTokenResponse", "ExchangeTokenResponse")
    assert own == {f"accord.services.v1.{message}.access_token" for message in messages}


def fields_of_the_contract() -> list[FieldDescriptor]:
    return [
        field
        for method in METHODS.values()
        for message in (method.request.DESCRIPTOR, method.response.DESCRIPTOR)
        for field in _fields(message, frozenset())
    ]


def _fields(message: Any, seen: frozenset[str]) -> Iterator[FieldDescriptor]:
    descriptor: Descriptor = message
    if descriptor.full_name not in seen:
        for field in descriptor.fields:
            yield field
            if field.message_type is not None:
                yield from _fields(field.message_type, seen | {descriptor.full_name})


# --- sessions ---------------------------------------------------------------------------------------------------------
async def test_an_account_may_have_any_number_of_sessions(client: Client, me: Person) -> None:
    tokens = [new_session_token() for _ in range(100)]
    for token in tokens:
        await sessions.insert_session(
            client.database,
            session_id=uuid7(),
            account_id=me.account_id,
            token_hash=token_hash(token),
            lifetime=timedelta(hours=1),
        )
    assert await asyncio.gather(*(session_reason(client, token) for token in (*tokens, me.token))) == [None] * 101


async def test_user_can_revoke_other_sessions_after_adding_or_deleting_a_second_factor(
    client: Client, dsn: str
) -> None:
    """A password change revokes them automatically. A change of the second factor leaves that to the user."""
    await sign_up(client)
    change(dsn, "UPDATE accounts SET email_verified_at = now()")
    other, mine = await sign_in(client), await sign_in(client)
    await add_second_factor(client, bearer(mine.session_token))
    assert await session_reason(client, other.session_token) is None
    await assert_other_session_is_revoked(client, mine, other)
    factors = SecondFactorServiceStub(client.channel)
    await factors.DeleteSecondFactor(DeleteSecondFactorRequest(), metadata=bearer(mine.session_token))
    await assert_other_session_is_revoked(client, mine, await sign_in(client))


async def assert_other_session_is_revoked(client: Client, mine: SignInResponse, other: SignInResponse) -> None:
    sessions = SessionServiceStub(client.channel)
    response = await sessions.RevokeOtherSessions(RevokeOtherSessionsRequest(), metadata=bearer(mine.session_token))
    assert response.revoked_count == 1
    assert await session_reason(client, other.session_token) == "CREDENTIAL_INVALID"
    assert await session_reason(client, mine.session_token) is None


# Methods that delete data of others, set or issue a credential, or grant privileges. Also AdminService.DeleteAccount.
PRIVILEGED = {
    "CreateAccount",
    "CreateApiKey",
    "CreateServiceAccount",
    "DeleteOrganization",
    "ImpersonateAccount",
    "RotateApiKey",
    "RotateSecret",
    "SetAccountPassword",
    "SetAccountRole",
    "TransferOwnership",
    "UpdateApiKey",
}


def test_methods_that_change_credentials_or_end_sessions_require_a_recent_sign_in() -> None:
    """Exempt are ChangePassword and Reauthenticate, which verify the password, and methods whose token comes from a call
    after a recent sign-in (LinkProvider) or from an e-mail (VerifyEmail, ResetPassword)."""
    assert {METHODS[path].name for path in FRESH} == {
        "ChangeEmail",
        "DeleteAccount",
        "BeginLinkProvider",
        "UnlinkProvider",
        "CreateSecondFactor",
        "ConfirmSecondFactor",
        "CreateRecoveryCodes",
        "DeleteSecondFactor",
        "RevokeSession",
        "RevokeOtherSessions",
        *PRIVILEGED,
    }


@pytest.mark.parametrize("path", FRESH, ids=lambda path: path.rpartition("/")[2])
async def test_session_without_a_recent_sign_in_is_refused(
    client: Client, world: World, me: Person, dsn: str, path: str
) -> None:
    """Even the session of an administrator who owns an organization."""
    world.change_account(me, "role = 'administrator'")
    world.join(me, mine := world.organization(), "owner")
    world.activate(me, mine)
    change(dsn, "UPDATE sessions SET authenticated_at = now() - interval '11 minutes' WHERE id = %s", me.session_id)
    call: Callable[..., Awaitable[object]] = client.channel.unary_unary(path)
    refused = await refusal(call(b"", metadata=me.headers))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGN_IN_NOT_FRESH")


# --- limits -----------------------------------------------------------------------------------------------------------
def test_every_public_method_is_limited_by_address() -> None:
    unlimited = {
        method.name
        for method in METHODS.values()
        if method.policy.access == ACCESS_PUBLIC
        and not any(limit.key == RATE_LIMIT_KEY_PEER and limit.durable for limit in method.policy.rate_limits)
    }
    assert unlimited == {"ListProviders", "GetJwks"}, "they receive and return no secret, and each process limits them"


def test_every_method_with_a_guessable_secret_has_a_durable_limit() -> None:
    guessable = {method for method in METHODS.values() if any(map(is_guessable, fields_of(method.request)))}
    assert {"SignIn", "CompleteSignIn", "Reauthenticate", "ApproveDevice"} <= {method.name for method in guessable}
    for method in guessable:
        assert any(limit.durable for limit in method.policy.rate_limits), method.path


def is_guessable(field: FieldDescriptor) -> bool:
    """True for secrets that users choose, type or copy. Tokens have 256 random bits."""
    digits = field.GetOptions().Extensions[validate_pb2.field].string.pattern == "^[0-9]{6}$"
    return is_sensitive(field) and (digits or field.name in ("password", "current_password", "user_code"))
