"""Queries of identities at providers, and of pending sign-ins with them.

Code that links an identity or signs in with it locks the identity first, then the account. Unlinking locks only the account.
"""

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    LargeBinary,
    String,
    Text,
    Uuid,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import array

from accord_db.engine.database import Executor, Transaction
from accord_db.engine.dml import parameters
from accord_db.engine.expressions import interval
from accord_db.schema import LinkedProvider, ProviderSignIn
from accord_db.schema.providers import RefreshFailure


class EncryptedTokens(NamedTuple):
    """`refresh_token` and `scopes` None keep the stored ones: not every response of a provider has them. The lifetimes are None
    if the provider does not specify them."""

    access_token: bytes
    refresh_token: bytes | None
    lifetime: timedelta | None
    refresh_lifetime: timedelta | None = None
    scopes: list[str] | None = None


_INSERT_SIGN_IN = insert(ProviderSignIn).values(
    id=bindparam("id"),
    token_hash=bindparam("token_hash"),
    provider=bindparam("provider"),
    redirect_uri=bindparam("redirect_uri"),
    account_id=bindparam("account_id"),
    expires_at=func.now() + interval("lifetime"),
)


async def insert_provider_sign_in(
    db: Executor,
    *,
    sign_in_id: UUID,
    token_hash: bytes,
    provider: str,
    redirect_uri: str,
    lifetime: timedelta,
    account_id: UUID | None = None,
) -> None:
    await db.execute(
        _INSERT_SIGN_IN,
        id=sign_in_id,
        token_hash=token_hash,
        provider=provider,
        redirect_uri=redirect_uri,
        lifetime=lifetime,
        account_id=account_id,
    )


_PENDING = (
    ProviderSignIn.token_hash == bindparam("token_hash"),
    ProviderSignIn.account_id.is_not_distinct_from(bindparam("account_id", type_=Uuid)),
    ProviderSignIn.used_at.is_(None),
    ProviderSignIn.expires_at > func.now(),
)
_GET_SIGN_IN = select(ProviderSignIn).where(*_PENDING)


async def get_provider_sign_in(db: Executor, *, token_hash: bytes, account_id: UUID | None) -> ProviderSignIn | None:
    """`account_id` is the account that began the sign-in, None if no account did. None if the sign-in does not exist, is used
    or expired, or was begun by another account."""
    return await db.fetch_one(_GET_SIGN_IN, token_hash=token_hash, account_id=account_id)


_USE_SIGN_IN = update(ProviderSignIn).where(*_PENDING).values(used_at=func.now())


async def use_provider_sign_in(db: Executor, *, token_hash: bytes, account_id: UUID | None) -> bool:
    """Marks a pending sign-in as used. Of concurrent callers one gets True."""
    return await db.execute(_USE_SIGN_IN, token_hash=token_hash, account_id=account_id) == 1


# Issuers and subjects cannot contain 0x1f.
_LOCK = select(
    func.pg_advisory_xact_lock(
        func.hashtextextended(
            bindparam("issuer", type_=Text).concat("\x1f").concat(bindparam("subject", type_=Text)), 0
        )
    )
)


async def lock_identity(tx: Transaction, *, issuer: str, subject: str) -> None:
    """Until the transaction ends, the identity is not linked to an account. It can be unlinked."""
    await tx.execute(_LOCK, issuer=issuer, subject=subject)


_GET_BY_IDENTITY = select(LinkedProvider).where(
    LinkedProvider.issuer == bindparam("issuer"), LinkedProvider.subject == bindparam("subject")
)


async def get_linked_provider(db: Executor, *, issuer: str, subject: str) -> LinkedProvider | None:
    return await db.fetch_one(_GET_BY_IDENTITY, issuer=issuer, subject=subject)


_scopes = bindparam("scopes", type_=ARRAY(String))
_SCOPES = func.coalesce(_scopes, sql_cast(array([]), ARRAY(String)))
_INSERT = (
    insert(LinkedProvider)
    .values(
        **parameters(
            LinkedProvider,
            "id",
            "account_id",
            "provider",
            "issuer",
            "subject",
            "email",
            "access_token",
            "refresh_token",
        ),
        access_token_expires_at=func.now() + interval("lifetime"),
        refresh_token_expires_at=func.now() + interval("refresh_lifetime"),
        scopes=_SCOPES,
    )
    .returning(LinkedProvider)
)


async def insert_linked_provider(
    tx: Transaction,
    *,
    linked_provider_id: UUID,
    account_id: UUID,
    provider: str,
    issuer: str,
    subject: str,
    email: str | None,
    tokens: EncryptedTokens,
) -> LinkedProvider:
    linked = await tx.fetch_one(
        _INSERT,
        id=linked_provider_id,
        account_id=account_id,
        provider=provider,
        issuer=issuer,
        subject=subject,
        email=email,
        **tokens._asdict(),
    )
    assert linked is not None
    return linked


_THIS = LinkedProvider.id == bindparam("linked_provider_id")
_new_refresh_token = bindparam("refresh_token", type_=LargeBinary)
_NEW_TOKENS = {
    "access_token": bindparam("access_token", type_=LargeBinary),
    "refresh_token": func.coalesce(_new_refresh_token, LinkedProvider.refresh_token),
    "access_token_expires_at": func.now() + interval("lifetime"),
    # The expiry of the stored refresh token does not apply to a new one.
    "refresh_token_expires_at": func.coalesce(
        func.now() + interval("refresh_lifetime"),
        case((_new_refresh_token.is_(None), LinkedProvider.refresh_token_expires_at)),
    ),
    "scopes": func.coalesce(_scopes, LinkedProvider.scopes),
    "refresh_failure": None,
    "refreshing_until": None,
}
_UPDATE = (
    update(LinkedProvider)
    .where(_THIS)
    .values(
        provider=bindparam("provider", type_=String),
        email=bindparam("email", type_=String),
        last_used_at=func.now(),
        **_NEW_TOKENS,
    )
    .returning(LinkedProvider)
)


async def update_linked_provider(
    tx: Transaction, *, linked_provider_id: UUID, provider: str, email: str | None, tokens: EncryptedTokens
) -> LinkedProvider | None:
    """Records a sign-in with the identity. None if it has been unlinked."""
    return await tx.fetch_one(
        _UPDATE, linked_provider_id=linked_provider_id, provider=provider, email=email, **tokens._asdict()
    )


_OF_ACCOUNT = LinkedProvider.account_id == bindparam("account_id")
_LIST = select(LinkedProvider).where(_OF_ACCOUNT).order_by(LinkedProvider.id)


async def list_linked_providers(db: Executor, *, account_id: UUID) -> list[LinkedProvider]:
    """Oldest first."""
    return await db.fetch_all(_LIST, account_id=account_id)


_DELETE = delete(LinkedProvider).where(_THIS, _OF_ACCOUNT)


async def delete_linked_provider(db: Executor, *, linked_provider_id: UUID, account_id: UUID) -> int:
    return await db.execute(_DELETE, linked_provider_id=linked_provider_id, account_id=account_id)


_DELETE_ALL = delete(LinkedProvider).where(_OF_ACCOUNT)


async def delete_linked_providers_of_account(db: Executor, *, account_id: UUID) -> int:
    return await db.execute(_DELETE_ALL, account_id=account_id)


class StoredTokens(NamedTuple):
    """The stored tokens, encrypted. `refreshing` if a process has claimed their refresh. `failure` is why the last refresh
    failed."""

    id: UUID
    issuer: str
    subject: str
    access_token: bytes
    refresh_token: bytes | None
    is_valid: bool
    refreshing: bool
    refresh_expired: bool
    failure: RefreshFailure | None


# An access token without an expiry counts as valid.
_IS_VALID = func.coalesce(LinkedProvider.access_token_expires_at > func.now() + interval("margin"), True)
_GET_TOKENS = (
    select(
        LinkedProvider.id,
        LinkedProvider.issuer,
        LinkedProvider.subject,
        LinkedProvider.access_token,
        LinkedProvider.refresh_token,
        _IS_VALID.label("is_valid"),
        func.coalesce(LinkedProvider.refreshing_until > func.now(), False).label("refreshing"),
        func.coalesce(LinkedProvider.refresh_token_expires_at <= func.now(), False).label("refresh_expired"),
        LinkedProvider.refresh_failure,
    )
    .where(_OF_ACCOUNT, LinkedProvider.provider == bindparam("provider"), LinkedProvider.access_token.is_not(None))
    .order_by(LinkedProvider.last_used_at.desc(), LinkedProvider.id)
    .limit(1)
)


async def get_stored_tokens(db: Executor, *, account_id: UUID, provider: str, margin: timedelta) -> StoredTokens | None:
    """The tokens of the identity that signed in last. `is_valid` if the access token is valid for at least `margin`."""
    row = await db.fetch_one(_GET_TOKENS, account_id=account_id, provider=provider, margin=margin)
    return StoredTokens._make(row) if row is not None else None


_CLAIM = (
    update(LinkedProvider)
    .where(
        _THIS,
        LinkedProvider.access_token == bindparam("seen", type_=LargeBinary),
        or_(LinkedProvider.refreshing_until.is_(None), LinkedProvider.refreshing_until <= func.now()),
    )
    .values(refreshing_until=func.now() + interval("lease"))
    .returning(LinkedProvider.refreshing_until)
)


async def claim_refresh(
    db: Executor, *, linked_provider_id: UUID, access_token: bytes, lease: timedelta
) -> datetime | None:
    """Claims the refresh of the tokens until the returned time. None if another process has claimed it, or has replaced
    `access_token`."""
    return await db.fetch_one(_CLAIM, linked_provider_id=linked_provider_id, seen=access_token, lease=lease)


_CLAIMED = LinkedProvider.refreshing_until == bindparam("claimed")
_STORE = update(LinkedProvider).where(_THIS, _CLAIMED).values(_NEW_TOKENS)


async def update_tokens(db: Executor, *, linked_provider_id: UUID, claimed: datetime, tokens: EncryptedTokens) -> int:
    """0 if another process holds the claim by now."""
    return await db.execute(_STORE, linked_provider_id=linked_provider_id, claimed=claimed, **tokens._asdict())


_RELEASE = (
    update(LinkedProvider)
    .where(_THIS, _CLAIMED)
    .values(refreshing_until=None, refresh_failure=bindparam("failure", type_=String))
)


async def release_refresh(
    db: Executor, *, linked_provider_id: UUID, claimed: datetime, failure: RefreshFailure | None = None
) -> None:
    """Ends the claim without new tokens. `failure` None: another attempt may succeed."""
    await db.execute(_RELEASE, linked_provider_id=linked_provider_id, claimed=claimed, failure=failure)


_END_REFRESH = _RELEASE.values(refresh_token=None, refresh_token_expires_at=None)


async def delete_refresh_token(
    db: Executor, *, linked_provider_id: UUID, claimed: datetime, failure: RefreshFailure
) -> None:
    """Ends the claim, for a refresh token that the provider no longer accepts."""
    await db.execute(_END_REFRESH, linked_provider_id=linked_provider_id, claimed=claimed, failure=failure)
