"""How tests sign up and in."""

from accord.accounts.v1.accounts_pb2 import SignInRequest, SignInResponse, SignUpRequest, SignUpResponse
from tests.api.conftest import Client, Refusal, refusal
from tests.conftest import change
from tests.factories import Headers, bearer

PASSWORD = "correct horse battery"
OTHER_PASSWORD = "staple battery, correct"
EMAIL = "somebody@example.com"
OTHER_EMAIL = "elsewhere@example.org"


async def sign_up(client: Client, email: str = EMAIL, password: str = PASSWORD, name: str = "Me") -> SignUpResponse:
    return await client.accounts.SignUp(SignUpRequest(email=email, password=password, display_name=name))


async def sign_in(client: Client, email: str = EMAIL, password: str = PASSWORD) -> SignInResponse:
    return await client.accounts.SignIn(SignInRequest(email=email, password=password))


async def signed_in(client: Client, email: str = EMAIL) -> Headers:
    """The headers of somebody who has just signed up, and in."""
    await sign_up(client, email)
    return bearer((await sign_in(client, email)).session_token)


async def refused_sign_in(client: Client, email: str = EMAIL, password: str = PASSWORD) -> Refusal:
    return await refusal(client.accounts.SignIn(SignInRequest(email=email, password=password)))


def ban(dsn: str, email: str) -> None:
    change(dsn, "UPDATE accounts SET banned_at = now() WHERE email = %s", email)


def forget_password(dsn: str, email: str) -> None:
    """Leaves an account that only providers can sign in to."""
    change(dsn, "UPDATE accounts SET password_hash = NULL WHERE email = %s", email)
