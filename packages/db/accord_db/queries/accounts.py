"""Questions about accounts.

Whoever changes an account, its tokens or its sessions locks it first (or changes the account first, which locks it too):
so they wait for one another in one line, and what one of them has ended, another does not bring back.
"""

from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from sqlalchemy import (
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
    """What is not there is left as it is."""

    display_name: str


def admitted(account: type[Account]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The account is there, and not banned: the only ones in whose name anybody calls."""
    return (
        account.deleted_at.is_(None),
        not_banned(account),
    )


def not_banned(account: type[Account]) -> ColumnElement[bool]:
    """By the database's clock. What the ban of an account was is still in its row when it is over."""
    return or_(account.banned_at.is_(None), account.banned_until <= func.now())


_LIVING = Account.deleted_at.is_(None)
_THIS = (Account.id == bindparam("account_id"), _LIVING)
_UNCHANGED = etag_matches(Account)
_email = bindparam("email", type_=EmailAddress)
has_email: Final = Account.email.collate("C") == _email
"""Whether the account has the address of the parameter `email`. With the collation of the index."""

_BY_EMAIL = (has_email, _LIVING)

_INSERT = (
    insert(Account)
    .values(**parameters(Account, "id", "email", "display_name", "password_hash"))
    .on_conflict_do_nothing()  # on any index: a concurrent insert may meet the old one first
    .returning(Account)
)


async def insert_account(
    db: Executor, *, account_id: UUID, email: str, display_name: str, password_hash: str | None
) -> Account | None:
    """None if an account that is not deleted has the address, in upper or lower case; that account stays unchanged."""
    return await db.fetch_one(
        _INSERT, id=account_id, email=email, display_name=display_name, password_hash=password_hash
    )


_GET = select(Account).where(*_THIS)


async def get_account(db: Executor, *, account_id: UUID) -> Account | None:
    return await db.fetch_one(_GET, account_id=account_id)


_GET_LOCKED = _GET.with_for_update(key_share=True)


async def get_account_locked(db: Executor, *, account_id: UUID) -> Account | None:
    """Nobody else changes it, or locks it, until the transaction ends."""
    return await db.fetch_one(_GET_LOCKED, account_id=account_id)


_GET_BY_EMAIL = select(Account).where(*_BY_EMAIL)


async def get_account_by_email(db: Executor, *, email: str) -> Account | None:
    return await db.fetch_one(_GET_BY_EMAIL, email=email)


_GET_BY_EMAIL_LOCKED = _GET_BY_EMAIL.with_for_update(key_share=True)


async def get_account_by_email_locked(db: Executor, *, email: str) -> Account | None:
    """Nobody else changes it, or locks it, until the transaction ends."""
    return await db.fetch_one(_GET_BY_EMAIL_LOCKED, email=email)


_CURRENT: Final = (*_THIS, _UNCHANGED)


async def update_account(
    db: Executor, *, account_id: UUID, changes: AccountChanges, etag: UUID | None = None
) -> Account | None:
    """The account as it is now. None if there is none, or if it is no longer the one that `etag` names."""
    return await update_row(db, Account, _CURRENT, changes, account_id=account_id, seen_etag=etag)


_UPDATE_PASSWORD_HASH = update(Account).where(*_THIS).values(password_hash=bindparam("new_hash"))


async def update_password_hash(db: Executor, *, account_id: UUID, password_hash: str) -> int:
    return await db.execute(_UPDATE_PASSWORD_HASH, account_id=account_id, new_hash=password_hash)


_RENEW_PASSWORD_HASH = _UPDATE_PASSWORD_HASH.values(updated_at=Account.updated_at, etag=Account.etag)


async def renew_password_hash(db: Executor, *, account_id: UUID, password_hash: str) -> int:
    """Stores another hash of the same password. The account keeps its etag: nothing that its owner sees has changed."""
    return await db.execute(_RENEW_PASSWORD_HASH, account_id=account_id, new_hash=password_hash)


_VERIFIED_AT = func.coalesce(Account.email_verified_at, func.now())
_UPDATE_EMAIL_VERIFIED = update(Account).where(*_THIS, Account.email == _email).values(email_verified_at=_VERIFIED_AT)


async def update_email_verified(db: Executor, *, account_id: UUID, email: str) -> int:
    """Proves that the address is the account's; 0 if the account has another one. It counts from the first proof."""
    return await db.execute(_UPDATE_EMAIL_VERIFIED, account_id=account_id, email=email)


_UPDATE_EMAIL = update(Account).where(*_THIS).values(email=_email, email_verified_at=func.now())


async def update_email(db: Executor, *, account_id: UUID, email: str) -> int:
    """Gives the account an address that is proved. Raises AlreadyExists if another living account has it."""
    return await db.execute(_UPDATE_EMAIL, account_id=account_id, email=email)


_DELETE = update(Account).where(*_THIS).values(deleted_at=func.now()).returning(Account)


async def delete_account(db: Executor, *, account_id: UUID) -> Account | None:
    """The account, deleted softly. None if there is none."""
    return await db.fetch_one(_DELETE, account_id=account_id)


# Of one who is banned already the time stands; a ban that was over begins anew.
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
    """For good, unless it is said until when. None if there is none. Its sessions are not revoked by this: they are
    refused, and would be good again without the ban."""
    return await db.fetch_one(_BAN, account_id=account_id, ban_reason=reason, until=until)


async def unban_account(db: Executor, *, account_id: UUID) -> Account | None:
    """Also if it is not banned. None if there is none."""
    return await db.fetch_one(_UNBAN, account_id=account_id)


_ADMINISTRATOR = Account.role == literal_column("'administrator'")  # by which PostgreSQL knows the index to use
_LOCK_ADMINISTRATORS = (
    select(Account.id)
    .where(or_(_ADMINISTRATOR, Account.id == bindparam("account_id")))
    .order_by(Account.id)
    .with_for_update(key_share=True)
)


async def lock_administrators(db: Executor, *, account_id: UUID) -> None:
    """All of them and this account, in one order: whoever takes an administrator away waits for whoever else does."""
    await db.fetch_all(_LOCK_ADMINISTRATORS, account_id=account_id)


_IS_ADMINISTRATOR = select(
    exists().where(Account.id == bindparam("account_id"), _ADMINISTRATOR, *admitted(Account)).label("is_one")
)


async def is_administrator(db: Executor, *, account_id: UUID) -> bool:
    """And let in."""
    return bool(await db.fetch_one(_IS_ADMINISTRATOR, account_id=account_id))


_HAS_ADMINISTRATOR = select(
    exists().where(_ADMINISTRATOR, *admitted(Account), Account.id != bindparam("account_id")).label("there_is")
)


async def has_administrator_beside(db: Executor, *, account_id: UUID) -> bool:
    """One who is let in."""
    return bool(await db.fetch_one(_HAS_ADMINISTRATOR, account_id=account_id))


_UPDATE_ROLE = update(Account).where(*_THIS).values(role=bindparam("new_role")).returning(Account)


async def update_role(db: Executor, *, account_id: UUID, role: str) -> Account | None:
    """`person` or `administrator`. None if there is no such account."""
    return await db.fetch_one(_UPDATE_ROLE, account_id=account_id, new_role=role)
