"""Sign-up and sign-in for tests."""

import asyncio
from base64 import b32decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import psycopg
from argon2 import PasswordHasher

from accord.accounts.v1.accounts_pb2 import SignInRequest, SignInResponse, SignUpRequest, SignUpResponse
from accord.second_factors.v1.second_factors_pb2 import ConfirmSecondFactorRequest, CreateSecondFactorRequest
from accord.second_factors.v1.second_factors_pb2_grpc import SecondFactorServiceStub
from tests.api.conftest import Client, Refusal, refusal
from tests.authenticator import Authenticator
from tests.conftest import change
from tests.factories import Headers, bearer

PASSWORD = "correct horse battery"
OTHER_PASSWORD = "staple battery, correct"
EMAIL = "user@example.com"
OTHER_EMAIL = "elsewhere@example.org"


async def sign_up(client: Client, email: str = EMAIL, password: str = PASSWORD, name: str = "Me") -> SignUpResponse:
    return await client.accounts.SignUp(SignUpRequest(email=email, password=password, display_name=name))


async def sign_in(client: Client, email: str = EMAIL, password: str = PASSWORD) -> SignInResponse:
    return await client.accounts.SignIn(SignInRequest(email=email, password=password))


async def signed_in(client: Client, email: str = EMAIL) -> Headers:
    """Signs up a new user and returns the headers of their session."""
    await sign_up(client, email)
    return bearer((await sign_in(client, email)).session_token)


class SecondFactor(NamedTuple):
    app: Authenticator
    recovery_codes: list[str]


async def add_second_factor(client: Client, headers: Headers) -> SecondFactor:
    factors = SecondFactorServiceStub(client.channel)
    created = await factors.CreateSecondFactor(CreateSecondFactorRequest(), metadata=headers)
    app = await Authenticator.enrolled(client.database, b32decode(created.secret))
    confirmed = await factors.ConfirmSecondFactor(ConfirmSecondFactorRequest(code=app.code()), metadata=headers)
    return SecondFactor(app, list(confirmed.recovery_codes))


async def refused_sign_in(client: Client, email: str = EMAIL, password: str = PASSWORD) -> Refusal:
    return await refusal(client.accounts.SignIn(SignInRequest(email=email, password=password)))


def ban(dsn: str, email: str) -> None:
    change(dsn, "UPDATE accounts SET banned_at = now() WHERE email = %s", email)


def remove_password(dsn: str, email: str) -> None:
    """Removes the password, so that only a provider can sign in to the account."""
    change(dsn, "UPDATE accounts SET password_hash = NULL WHERE email = %s", email)


def outdated_hash(password: str = PASSWORD) -> str:
    """A valid hash with other parameters than the gateway's. The next sign-in renews it."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password)


@asynccontextmanager
async def hash_changed_during(dsn: str, password_hash: str) -> AsyncIterator[None]:
    """Changes the hash of every account. Commits when the call started in the block has verified the old hash and waits for
    the row lock."""
    with psycopg.connect(dsn) as writer, psycopg.connect(dsn, autocommit=True) as observer:
        writer.execute("UPDATE accounts SET password_hash = %s", [password_hash])
        yield
        async with asyncio.timeout(20):
            while observer.execute(_WAITING).rowcount == 0:
                await asyncio.sleep(0.01)
        writer.commit()


_WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
