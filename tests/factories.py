"""Rows for tests: each is told only what the test is about."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from accord_auth.tokens import new_session_token, token_hash
from accord_db.database import Executor
from accord_db.ids import uuid7
from accord_db.queries import accounts, sessions

# Of the form that hashes have, and of no password that anybody knows: it was drawn.
_HASH_OF_NOTHING = "$argon2id$v=19$m=19456,t=2,p=1$5zvLT29oEoG/qvKj7FuJGg$vG0wHL1HOnYT2l2kU3HhAFlLJWh6ey0/4l0dVHcbKOs"


Headers = tuple[tuple[str, str], ...]


def bearer(token: str) -> Headers:
    return (("authorization", f"Bearer {token}"),)


@dataclass(frozen=True)
class Person:
    """Somebody with an account who is signed in."""

    account_id: UUID
    session_id: UUID
    email: str
    token: str

    @property
    def headers(self) -> Headers:
        return bearer(self.token)


async def signed_in_person(db: Executor, *, lifetime: timedelta = timedelta(hours=1)) -> Person:
    """Without the cost of hashing a password: nobody can sign in to this account."""
    account = await accounts.insert_account(
        db,
        account_id=uuid7(),
        email=f"{uuid4().hex}@example.com",
        display_name="Somebody",
        password_hash=_HASH_OF_NOTHING,
    )
    assert account is not None
    await accounts.update_email_verified(db, account_id=account.id, email=account.email)
    token = new_session_token()
    session = await sessions.insert_session(
        db, session_id=uuid7(), account_id=account.id, token_hash=token_hash(token), lifetime=lifetime
    )
    return Person(account.id, session.id, account.email, token)
