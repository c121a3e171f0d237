"""Rows for tests: each is told only what the test is about."""

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
    organization_id: UUID,
    scopes: Iterable[AnyPermission] = PERMISSION_NAMES,
    *,
    calls_per_minute: int | None = None,
    lifetime: timedelta | None = None,
) -> Key:
    """Its scopes are all permissions there are, unless they are given: it may do what the person may."""
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
    """The id of a new organization, to which nobody else belongs. It is not active: see `activate`."""
    organization = await organizations.insert_organization(
        db, organization_id=uuid7(), name="Somebody's", slug=slug or f"slug-{uuid4().hex}"
    )
    assert organization is not None
    await joined(db, organization.id, person, role)
    return organization.id


async def joined(db: Executor, organization_id: UUID, person: Person, role: str | None = "member") -> None:
    """With no built-in role if that is None: then a role of the organization's own says what they may do."""
    await members.insert_member(db, organization_id=organization_id, account_id=person.account_id, role=role)


async def activate(db: Executor, person: Person, organization_id: UUID | None) -> None:
    """Makes it the one that the person's calls are about, whether or not they belong to it. A gateway that has seen their
    token already learns of it in a moment, and not at once."""
    await sessions.update_session_organization(
        db, session_id=person.session_id, account_id=person.account_id, organization_id=organization_id
    )
