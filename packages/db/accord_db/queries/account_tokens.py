"""Queries of account tokens, which are valid once and for one purpose. The database's clock decides whether one is valid."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    LargeBinary,
    String,
    Uuid,
    any_,
    bindparam,
    delete,
    func,
    insert,
    select,
    type_coerce,
    update,
)

from accord_db.engine.database import Executor
from accord_db.engine.expressions import interval
from accord_db.engine.folding import EmailAddress
from accord_db.schema import Account, AccountToken, TokenPurpose

_PURPOSE = AccountToken.__table__.c.purpose.type
_HAS_PURPOSE = type_coerce(AccountToken.purpose, String) == any_(bindparam("purposes", type_=ARRAY(String)))
_VALID = (AccountToken.used_at.is_(None), AccountToken.expires_at > func.now())

_account_id = bindparam("account_id", type_=Uuid)
_purpose = bindparam("purpose", type_=_PURPOSE)
_INSERT = (
    insert(AccountToken)
    .from_select(
        ["id", "account_id", "purpose", "token_hash", "email", "provider", "expires_at"],
        select(
            bindparam("id", type_=Uuid),
            Account.id,
            _purpose,
            bindparam("token_hash", type_=LargeBinary),
            bindparam("email", type_=EmailAddress),
            bindparam("provider", type_=String),
            func.now() + interval("lifetime"),
        ).where(Account.id == _account_id, Account.deleted_at.is_(None)),
    )
    .add_cte(
        delete(AccountToken)
        .where(AccountToken.account_id == _account_id, AccountToken.purpose == _purpose)
        .cte("replaced")
    )
)


async def insert_token(
    db: Executor,
    *,
    token_id: UUID,
    account_id: UUID,
    purpose: TokenPurpose,
    token_hash: bytes,
    email: str,
    lifetime: timedelta,
    provider: str | None = None,
) -> bool:
    """Replaces the tokens of the account for this purpose. False if the account does not exist.

    Lock the account first: of two concurrent inserts, neither would see the other's token, and both would stay.
    """
    inserted = await db.execute(
        _INSERT,
        id=token_id,
        account_id=account_id,
        purpose=purpose,
        token_hash=token_hash,
        email=email,
        provider=provider,
        lifetime=lifetime,
    )
    return inserted == 1


_GET = (
    select(AccountToken)
    .join(Account, Account.id == AccountToken.account_id)
    .where(AccountToken.token_hash == bindparam("token_hash"), _HAS_PURPOSE, *_VALID, Account.deleted_at.is_(None))
)


async def get_token(db: Executor, *, token_hash: bytes, purposes: Collection[TokenPurpose]) -> AccountToken | None:
    """None if none exists for one of these purposes, it is used or expired, or its account is deleted."""
    return await db.fetch_one(_GET, token_hash=token_hash, purposes=list(purposes))


_USE = update(AccountToken).where(AccountToken.id == bindparam("token_id"), *_VALID).values(used_at=func.now())


async def use_token(db: Executor, *, token_id: UUID) -> bool:
    """Marks a valid token as used. Of concurrent callers one gets True."""
    return await db.execute(_USE, token_id=token_id) == 1


_DELETE = delete(AccountToken).where(AccountToken.account_id == bindparam("account_id"), _HAS_PURPOSE)


async def delete_tokens(db: Executor, *, account_id: UUID, purposes: Collection[TokenPurpose]) -> int:
    return await db.execute(_DELETE, account_id=account_id, purposes=list(purposes))
