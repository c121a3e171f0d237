"""Inserts accounts, API keys and organizations for tests, with defaults for all values that a test does not set."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from accord_auth.api_keys import key_prefix, new_api_key
from accord_auth.tokens import new_session_token, token_hash
from accord_db.engine.database import Executor
from accord_db.engine.ids import uuid7
from accord_db.queries import accounts, api_keys, members, organizations, sessions
from accord_rpc.permissions import PERMISSION_NAMES, AnyPermission, names

# A well-formed hash of no known password: its salt and digest are random.
_UNUSABLE_PASSWORD_HASH = (
    "$argon2id$v=19$m=19456,t=2,p=1$5zvLT29oEoG/qvKj7FuJGg$vG0wHL1HOnYT2l2kU3HhAFlLJWh6ey0/4l0dVHcbKOs"
)


Headers = tuple[tuple[str, str], ...]


def bearer(token: str) -> Headers:
    return (("authorization", f"Bearer {token}"),)


@dataclass(frozen=True)
class Person:
    """A user with an account and a session."""

    account_id: UUID
    session_id: UUID
    email: str
    token: str

    @property
    def headers(self) -> Headers:
        return bearer(self.token)


async def signed_in_person(db: Executor, *, lifetime: timedelta = timedelta(hours=1)) -> Person:
    """The account has no usable password, because hashing one is slow: tests cannot call SignIn for it."""
    account = await accounts.insert_account(
        db,
        account_id=uuid7(),
        email=f"{uuid4().hex}@example.com",
        display_name="Some User",
        password_hash=_UNUSABLE_PASSWORD_HASH,
    )
    assert account is not None
    await accounts.update_email_verified(db, account_id=account.id, email=account.email)
    token = new_session_token()
    session = await sessions.insert_session(
        db, session_id=uuid7(), account_id=account.id, token_hash=token_hash(token), lifetime=lifetime
    )
    return Person(account.id, session.id, account.email, token)


@dataclass(frozen=True)
class Key:
    """An API key."""

    id: UUID
    key: str

    @property
    def headers(self) -> Headers:
        return (("x-api-key", self.key),)


async def api_key_of(
    db: Executor,
    person: Person,
    organization_id: UUID | None,
    scopes: Iterable[AnyPermission] = PERMISSION_NAMES,
    *,
    calls_per_minute: int | None = None,
    lifetime: timedelta | None = None,
) -> Key:
    """By default its scopes are all permissions, so it can do what the person can."""
    api_key_id, key = uuid7(), new_api_key()
    await api_keys.insert_api_key(
        db,
        api_key_id=api_key_id,
        organization_id=organization_id,
        created_by=person.account_id,
        name="Some program",
        prefix=key_prefix(key),
        key_hash=token_hash(key),
        scopes=names(scopes),
        calls_per_minute=calls_per_minute,
        expires_at=datetime.now(UTC) + lifetime if lifetime is not None else None,
    )
    return Key(api_key_id, key)


async def organization_of(db: Executor, person: Person, role: str | None = "owner", *, slug: str | None = None) -> UUID:
    """The id of a new organization whose only member is the person. It is not their active one: see `activate`."""
    organization = await organizations.insert_organization(
        db, organization_id=uuid7(), name="Some Organization", slug=slug or f"slug-{uuid4().hex}"
    )
    assert organization is not None
    await joined(db, organization.id, person, role)
    return organization.id


async def joined(db: Executor, organization_id: UUID, person: Person, role: str | None = "member") -> None:
    """Makes the person a member. Without a built-in role, only custom roles grant permissions."""
    await members.insert_member(db, organization_id=organization_id, account_id=person.account_id, role=role)


async def activate(db: Executor, person: Person, organization_id: UUID | None) -> None:
    """Makes it the active organization of the person's session, without a check of membership. A gateway that has cached the
    session reads the change after a delay."""
    await sessions.update_session_organization(
        db, session_id=person.session_id, account_id=person.account_id, organization_id=organization_id
    )
