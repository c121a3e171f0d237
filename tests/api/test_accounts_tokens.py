"""Mailed tokens and second-step tokens: each is valid for one purpose, for one use, until it expires."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import cycle, islice

import grpc
import psycopg
import pytest
from prometheus_client import REGISTRY

from accord.accounts.v1.accounts_pb2 import (
    ChangeEmailRequest,
    CompleteSignInRequest,
    GetSessionRequest,
    RequestPasswordResetRequest,
    ResendVerificationEmailRequest,
    ResetPasswordRequest,
    VerifyEmailRequest,
)
from accord_api import account_tokens
from accord_api.account_tokens import Kind
from accord_api.outbox import Mail
from accord_auth.tokens import new_token, token_hash
from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.queries import account_tokens as token_queries
from tests.api.conftest import Client, outcome, refusal
from tests.api.forged_tokens import flipped
from tests.api.mailbox import mailed_to_anyone, mailed_token
from tests.api.signing_in import EMAIL, OTHER_EMAIL, OTHER_PASSWORD, sign_up, signed_in
from tests.conftest import change
from tests.factories import Person

Use = Callable[[Client, str], Awaitable[object]]


@dataclass(frozen=True)
class Example:
    """A kind of token, and the call that uses it."""

    kind: Kind
    use: Use

    async def token(self, database: Database, me: Person) -> str:
        """Inserts a valid token of the account of `me`."""
        token = new_token(self.kind.prefix)
        assert await token_queries.insert_token(
            database,
            token_id=uuid7(),
            account_id=me.account_id,
            purpose=self.kind.purpose,
            token_hash=token_hash(token),
            email=me.email,
            lifetime=self.kind.lifetime,
        )
        return token

    async def is_refused(self, client: Client, token: str) -> None:
        refused = await refusal(self.use(client, token))
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_INVALID")
        assert refused.message == "The token is invalid, expired or used. Request a new one."
        assert not refused.metadata
        assert not refused.violations


def verify(client: Client, token: str) -> Awaitable[object]:
    return client.accounts.VerifyEmail(VerifyEmailRequest(token=token))


def reset(client: Client, token: str) -> Awaitable[object]:
    return client.accounts.ResetPassword(ResetPasswordRequest(token=token, new_password=OTHER_PASSWORD))


def complete(client: Client, token: str) -> Awaitable[object]:
    return client.accounts.CompleteSignIn(CompleteSignInRequest(second_step_token=token, code="123456"))


VERIFY = Example(account_tokens.VERIFY_EMAIL, verify)
CHANGE = Example(account_tokens.CHANGE_EMAIL, verify)
RESET = Example(account_tokens.RESET_PASSWORD, reset)
SECOND_STEP = Example(account_tokens.SECOND_STEP, complete)
MAILED = [VERIFY, CHANGE, RESET]
ALL = [*MAILED, SECOND_STEP]


def each(examples: list[Example]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", examples, ids=[example.kind.purpose for example in examples])


def token_queries_total() -> float:
    labels = {"operation": "select", "table": "account_tokens"}
    return REGISTRY.get_sample_value("db_queries_total", labels) or 0.0


# --- one use ----------------------------------------------------------------------------------------------------------
@each(MAILED)
async def test_a_token_works_once(client: Client, me: Person, example: Example) -> None:
    token = await example.token(client.database, me)
    await example.use(client, token)
    await example.is_refused(client, token)


@each(MAILED)
async def test_one_of_fifty_concurrent_uses_succeeds(client: Client, me: Person, example: Example) -> None:
    token = await example.token(client.database, me)
    outcomes = await asyncio.gather(*(outcome(example.use(client, token)) for _ in range(50)))
    assert sorted(outcomes) == ["OK", *["TOKEN_INVALID"] * 49]


# --- expiry and replacement -------------------------------------------------------------------------------------------
@each(ALL)
async def test_a_token_that_has_expired_is_refused(client: Client, me: Person, dsn: str, example: Example) -> None:
    token = await example.token(client.database, me)
    change(dsn, "UPDATE account_tokens SET expires_at = now()")
    await example.is_refused(client, token)


@each(ALL)
async def test_a_token_of_a_deleted_account_is_refused(client: Client, me: Person, dsn: str, example: Example) -> None:
    token = await example.token(client.database, me)
    change(dsn, "UPDATE accounts SET deleted_at = now()")
    await example.is_refused(client, token)


@each(ALL)
async def test_a_new_token_invalidates_the_former_ones_of_its_purpose(
    client: Client, me: Person, example: Example
) -> None:
    former, other = await example.token(client.database, me), await example.token(client.database, me)
    await example.is_refused(client, former)
    if example is not SECOND_STEP:
        await example.use(client, other)


@each(MAILED)
async def test_a_new_token_of_another_purpose_or_account_changes_nothing(
    client: Client, me: Person, example: Example
) -> None:
    token = await example.token(client.database, me)
    for other in ALL:
        if other is not example:
            await other.token(client.database, me)
    await example.token(client.database, await client.new_user())
    await example.use(client, token)


async def test_two_concurrently_created_tokens_leave_one_valid(client: Client, dsn: str) -> None:
    await sign_up(client)
    request = RequestPasswordResetRequest(email=EMAIL)
    await asyncio.gather(*(client.accounts.RequestPasswordReset(request) for _ in range(5)))
    with psycopg.connect(dsn) as connection:
        query = "SELECT count(*) FROM account_tokens WHERE purpose = 'reset_password'"
        assert connection.execute(query).fetchone() == (1,)


# --- other tokens -----------------------------------------------------------------------------------------------------
@each(ALL)
async def test_a_token_of_another_purpose_is_refused(client: Client, me: Person, example: Example) -> None:
    for other in ALL:
        if other.use is not example.use:
            await example.is_refused(client, await other.token(client.database, me))


@each(ALL)
async def test_a_token_with_the_prefix_of_another_purpose_is_refused(
    client: Client, me: Person, example: Example
) -> None:
    """Even if its checksum is recomputed and the same hash is stored."""
    for other in ALL:
        if other.kind.prefix != example.kind.prefix:
            token = await other.token(client.database, me)
            await example.is_refused(client, example.kind.prefix + token.removeprefix(other.kind.prefix))


@each(ALL)
async def test_a_session_token_is_refused_as_an_account_token(client: Client, me: Person, example: Example) -> None:
    await example.is_refused(client, me.token)


@each(ALL)
async def test_an_account_token_is_refused_as_a_session_token(client: Client, me: Person, example: Example) -> None:
    token = await example.token(client.database, me)
    who = Person(me.account_id, me.session_id, me.email, token)
    refused = await refusal(client.accounts.GetSession(GetSessionRequest(), metadata=who.headers))
    assert refused.reason == "CREDENTIAL_INVALID"


@each(MAILED)
async def test_a_token_with_any_one_character_changed_is_refused(client: Client, me: Person, example: Example) -> None:
    token = await example.token(client.database, me)
    others = cycle("AZaz09-_")
    for place in range(len(token)):
        other = next(character for character in others if character != token[place])
        await example.is_refused(client, token[:place] + other + token[place + 1 :])
    await example.use(client, token)


@each(ALL)
async def test_a_token_with_one_bit_flipped_and_a_valid_checksum_is_refused(
    client: Client, me: Person, example: Example
) -> None:
    token = await example.token(client.database, me)
    for forged in islice(
        flipped(token, example.kind.prefix), 0, None, 15
    ):  # few enough for the limits of a second step
        await example.is_refused(client, forged)


@each(ALL)
async def test_a_malformed_token_is_refused_without_a_query(client: Client, me: Person, example: Example) -> None:
    token = await example.token(client.database, me)
    before = token_queries_total()
    for part in (
        token[:4],
        token[:8],
        token[:-1],
        token[4:],
        token + "A",
        token + " ",
        " " + token,
        token.upper(),
        "x",
    ):
        await example.is_refused(client, part)
    assert token_queries_total() == before
    await example.is_refused(client, new_token(example.kind.prefix))
    assert token_queries_total() == before + 1


# --- storage and audit ------------------------------------------------------------------------------------------------
async def test_database_contains_mailed_tokens_only_encrypted(client: Client, dsn: str) -> None:
    headers = await signed_in(client)
    await client.accounts.ResendVerificationEmail(ResendVerificationEmailRequest(email=EMAIL))
    await client.accounts.RequestPasswordReset(RequestPasswordResetRequest(email=EMAIL))
    await client.accounts.ChangeEmail(ChangeEmailRequest(new_email=OTHER_EMAIL), metadata=headers)
    reset_token = await mailed_token(client.database, EMAIL, Mail.RESET_PASSWORD)
    await RESET.use(client, reset_token)
    await VERIFY.is_refused(client, reset_token)
    letters = [letter for _, letter in await mailed_to_anyone(client.database)]
    tokens = [letter.values["token"] for letter in letters if "token" in letter.values]
    assert len(set(tokens)) == 4
    with psycopg.connect(dsn) as connection:
        tables = [name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        rows = "".join(str(connection.execute(f"SELECT * FROM {table}").fetchall()) for table in tables)
    assert {"accounts", "account_tokens", "audit_events", "outbox_messages"} <= set(tables)
    assert rows
    for token in tokens:
        assert token not in rows
        assert token[4:36] not in rows


@each(ALL)
async def test_a_refused_token_is_audited_without_its_value(
    client: Client, me: Person, dsn: str, example: Example
) -> None:
    token = new_token(example.kind.prefix)
    await example.is_refused(client, token)
    with psycopg.connect(dsn) as connection:
        (event,) = connection.execute("SELECT code, reason, audit_events::text FROM audit_events").fetchall()
    assert event[:2] == ("FAILED_PRECONDITION", "TOKEN_INVALID")
    assert token not in event[2]
