"""Queries of accounts.

Code that changes an account, its tokens or its sessions first locks or updates the account. So concurrent changes run one after
another, and none undoes what another has ended.
"""

from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    DateTime,
    String,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from accord_db.engine.database import Executor
from accord_db.engine.dml import etag_matches, parameters, update_row
from accord_db.engine.folding import EmailAddress
from accord_db.schema import Account


class AccountChanges(TypedDict, total=False):
    """The columns to change."""

    display_name: str
    image_url: str | None


def is_active(account: type[Account]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The account is neither deleted nor banned. Only active accounts can call."""
    return (
        account.deleted_at.is_(None),
        not_banned(account),
    )


def not_banned(account: type[Account]) -> ColumnElement[bool]:
    """By the database's clock. A row keeps the columns of a ban that has ended."""
    return or_(account.banned_at.is_(None), account.banned_until <= func.now())


_ALIVE = Account.deleted_at.is_(None)
_THIS = (Account.id == bindparam("account_id"), _ALIVE)
_UNCHANGED = etag_matches(Account)
_email = bindparam("email", type_=EmailAddress)
has_email: Final = Account.email.collate("C") == _email
"""The account has the address of the parameter `email`. With the collation of the index."""

_BY_EMAIL = (has_email, _ALIVE)

_INSERT = (
    insert(Account)
    .values(
        **parameters(Account, "id", "email", "display_name", "password_hash", "image_url", "password_change_required")
    )
    .on_conflict_do_nothing()  # of any index: a concurrent insert may violate the old one first
    .returning(Account)
)


async def insert_account(
    db: Executor,
    *,
    account_id: UUID,
    email: str,
    display_name: str,
    password_hash: str | None,
    image_url: str | None = None,
    password_change_required: bool = False,
) -> Account | None:
    """None if another account, not deleted, has the address, ignoring case; that account does not change."""
    return await db.fetch_one(
        _INSERT,
        id=account_id,
        email=email,
        display_name=display_name,
        password_hash=password_hash,
        image_url=image_url,
        password_change_required=password_change_required,
    )


_GET = select(Account).where(*_THIS)


async def get_account(db: Executor, *, account_id: UUID) -> Account | None:
    return await db.fetch_one(_GET, account_id=account_id)


_GET_LOCKED = _GET.with_for_update(key_share=True)


async def get_account_locked(db: Executor, *, account_id: UUID) -> Account | None:
    """Locks the account until the transaction ends."""
    return await db.fetch_one(_GET_LOCKED, account_id=account_id)


_GET_BY_EMAIL = select(Account).where(*_BY_EMAIL)


async def get_account_by_email(db: Executor, *, email: str) -> Account | None:
    return await db.fetch_one(_GET_BY_EMAIL, email=email)


_GET_BY_EMAIL_LOCKED = _GET_BY_EMAIL.with_for_update(key_share=True)


async def get_account_by_email_locked(db: Executor, *, email: str) -> Account | None:
    """Locks the account until the transaction ends."""
    return await db.fetch_one(_GET_BY_EMAIL_LOCKED, email=email)


_CURRENT: Final = (*_THIS, _UNCHANGED)


async def update_account(
    db: Executor, *, account_id: UUID, changes: AccountChanges, etag: UUID | None = None
) -> Account | None:
    """The changed account. None if it does not exist or has another etag."""
    return await update_row(db, Account, _CURRENT, changes, account_id=account_id, seen_etag=etag)


_new_hash = bindparam("new_hash", type_=String)
_UPDATE_PASSWORD_HASH = (
    update(Account)
    .where(*_THIS)
    .values(password_hash=_new_hash, password_change_required=bindparam("change_required", type_=Boolean))
    .returning(Account)
)


async def update_password_hash(
    db: Executor, *, account_id: UUID, password_hash: str, change_required: bool = False
) -> Account | None:
    """The changed account. None if it does not exist. `change_required`: the person must change the password again."""
    return await db.fetch_one(
        _UPDATE_PASSWORD_HASH, account_id=account_id, new_hash=password_hash, change_required=change_required
    )


_RENEW_PASSWORD_HASH = (
    update(Account).where(*_THIS).values(password_hash=_new_hash, updated_at=Account.updated_at, etag=Account.etag)
)


async def renew_password_hash(db: Executor, *, account_id: UUID, password_hash: str) -> int:
    """Stores another hash of the same password. The account keeps its etag, because nothing visible changes."""
    return await db.execute(_RENEW_PASSWORD_HASH, account_id=account_id, new_hash=password_hash)


_VERIFIED_AT = func.coalesce(Account.email_verified_at, func.now())
_UPDATE_EMAIL_VERIFIED = update(Account).where(*_THIS, Account.email == _email).values(email_verified_at=_VERIFIED_AT)


async def update_email_verified(db: Executor, *, account_id: UUID, email: str) -> int:
    """Marks the address as verified; 0 if the account has another address. The time of the first verification stays."""
    return await db.execute(_UPDATE_EMAIL_VERIFIED, account_id=account_id, email=email)


_VERIFY_EMAIL = update(Account).where(*_THIS).values(email_verified_at=_VERIFIED_AT).returning(Account)


async def verify_email(db: Executor, *, account_id: UUID) -> Account | None:
    """Marks the present address as verified. The changed account, or None if it does not exist."""
    return await db.fetch_one(_VERIFY_EMAIL, account_id=account_id)


_UPDATE_EMAIL = update(Account).where(*_THIS).values(email=_email, email_verified_at=func.now())


async def update_email(db: Executor, *, account_id: UUID, email: str) -> int:
    """Sets a verified address. Raises AlreadyExists if another account, not deleted, has it."""
    return await db.execute(_UPDATE_EMAIL, account_id=account_id, email=email)


_DELETE = update(Account).where(*_THIS).values(deleted_at=func.now()).returning(Account)


async def delete_account(db: Executor, *, account_id: UUID) -> Account | None:
    """The softly deleted account. None if it does not exist."""
    return await db.fetch_one(_DELETE, account_id=account_id)


# A current ban keeps its time; a ban that has ended gets a new one.
_BANNED_AT = case((not_banned(Account), func.now()), else_=Account.banned_at)
_BAN = (
    update(Account)
    .where(*_THIS)
    .values(
        banned_at=_BANNED_AT,
        banned_until=bindparam("until", type_=DateTime(timezone=True)),
        ban_reason=bindparam("ban_reason", type_=String),
    )
    .returning(Account)
)
_UNBAN = update(Account).where(*_THIS).values(banned_at=None, banned_until=None, ban_reason=None).returning(Account)


async def ban_account(
    db: Executor, *, account_id: UUID, reason: str | None = None, until: datetime | None = None
) -> Account | None:
    """`until` None: without end. None if the account does not exist. Does not revoke sessions: they are invalid during the
    ban, and valid again after it."""
    return await db.fetch_one(_BAN, account_id=account_id, ban_reason=reason, until=until)


async def unban_account(db: Executor, *, account_id: UUID) -> Account | None:
    """Also for an account that is not banned. None if it does not exist."""
    return await db.fetch_one(_UNBAN, account_id=account_id)


_ADMINISTRATOR = Account.role == literal_column(
    "'administrator'"
)  # a literal, so that PostgreSQL uses the partial index
_LOCK_ADMINISTRATORS = (
    select(Account.id)
    .where(or_(_ADMINISTRATOR, Account.id == bindparam("account_id")))
    .order_by(Account.id)
    .with_for_update(key_share=True)
)


async def lock_administrators(db: Executor, *, account_id: UUID) -> None:
    """Locks all administrators and this account, in the order of their ids, so that concurrent removals of administrators run
    one after another."""
    await db.fetch_all(_LOCK_ADMINISTRATORS, account_id=account_id)


_IS_ADMINISTRATOR = select(
    exists().where(Account.id == bindparam("account_id"), _ADMINISTRATOR, *is_active(Account)).label("is_administrator")
)


async def is_administrator(db: Executor, *, account_id: UUID) -> bool:
    """Whether the account is an active administrator."""
    return bool(await db.fetch_one(_IS_ADMINISTRATOR, account_id=account_id))


_HAS_ADMINISTRATOR = select(
    exists().where(_ADMINISTRATOR, *is_active(Account), Account.id != bindparam("account_id")).label("has_other")
)


async def has_other_administrator(db: Executor, *, account_id: UUID) -> bool:
    """Whether another active administrator exists."""
    return bool(await db.fetch_one(_HAS_ADMINISTRATOR, account_id=account_id))


_UPDATE_ROLE = update(Account).where(*_THIS).values(role=bindparam("new_role")).returning(Account)


async def update_role(db: Executor, *, account_id: UUID, role: str) -> Account | None:
    """`role` is `person` or `administrator`. None if the account does not exist."""
    return await db.fetch_one(_UPDATE_ROLE, account_id=account_id, new_role=role)
