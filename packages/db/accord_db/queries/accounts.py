"""Questions about accounts.

Whoever changes an account, its tokens or its sessions locks it first (or changes the account first, which locks it too):
so they wait for one another in one line, and what one of them has ended, another does not bring back.
"""

from functools import cache
from typing import TypedDict
from uuid import UUID

from sqlalchemy import ColumnElement, String, Uuid, bindparam, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningUpdate

from accord_db.database import Executor
from accord_db.schema import Account


class AccountChanges(TypedDict, total=False):
    """What is not there is left as it is."""

    display_name: str


def admitted(account: type[Account]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The account is there, and not banned: the only ones in whose name anybody calls."""
    return (
        account.deleted_at.is_(None),
        or_(account.banned_at.is_(None), account.banned_until <= func.now()),
    )


_LIVING = Account.deleted_at.is_(None)
_THIS = (Account.id == bindparam("account_id"), _LIVING)
_UNCHANGED = or_(bindparam("seen_etag", type_=Uuid).is_(None), Account.etag == bindparam("seen_etag"))
_email = func.lower(bindparam("email", type_=String))
_BY_EMAIL = (func.lower(Account.email) == _email, _LIVING)

_INSERT = (
    insert(Account)
    .values(
        id=bindparam("id"),
        email=_email,
        display_name=bindparam("display_name"),
        password_hash=bindparam("password_hash"),
    )
    .on_conflict_do_nothing(index_elements=[func.lower(Account.email)], index_where=_LIVING)
    .returning(Account)
)


async def insert_account(
    db: Executor, *, account_id: UUID, email: str, display_name: str, password_hash: str | None
) -> Account | None:
    """None if a living account has the address already, in upper or lower case: it is left as it is."""
    return await db.first(_INSERT, id=account_id, email=email, display_name=display_name, password_hash=password_hash)


_GET = select(Account).where(*_THIS)


async def get_account(db: Executor, *, account_id: UUID) -> Account | None:
    return await db.first(_GET, account_id=account_id)


_GET_LOCKED = _GET.with_for_update(key_share=True)


async def get_account_locked(db: Executor, *, account_id: UUID) -> Account | None:
    """Nobody else changes it, or locks it, until the transaction ends."""
    return await db.first(_GET_LOCKED, account_id=account_id)


_GET_BY_EMAIL = select(Account).where(*_BY_EMAIL)


async def get_account_by_email(db: Executor, *, email: str) -> Account | None:
    return await db.first(_GET_BY_EMAIL, email=email)


_GET_BY_EMAIL_LOCKED = _GET_BY_EMAIL.with_for_update(key_share=True)


async def get_account_by_email_locked(db: Executor, *, email: str) -> Account | None:
    """Nobody else changes it, or locks it, until the transaction ends."""
    return await db.first(_GET_BY_EMAIL_LOCKED, email=email)


@cache
def _update(changed: frozenset[str]) -> ReturningUpdate[Account]:
    values = {name: bindparam(name, type_=Account.__table__.c[name].type) for name in sorted(changed)}
    return update(Account).where(*_THIS, _UNCHANGED).values(values).returning(Account)


async def update_account(
    db: Executor, *, account_id: UUID, changes: AccountChanges, etag: UUID | None = None
) -> Account | None:
    """The account as it is now. None if there is none, or if it is no longer the one that `etag` names."""
    return await db.first(_update(frozenset(changes)), account_id=account_id, seen_etag=etag, **changes)


_UPDATE_PASSWORD_HASH = update(Account).where(*_THIS).values(password_hash=bindparam("new_hash"))


async def update_password_hash(db: Executor, *, account_id: UUID, password_hash: str) -> int:
    return await db.run(_UPDATE_PASSWORD_HASH, account_id=account_id, new_hash=password_hash)


_VERIFIED_AT = func.coalesce(Account.email_verified_at, func.now())
_UPDATE_EMAIL_VERIFIED = update(Account).where(*_THIS, Account.email == _email).values(email_verified_at=_VERIFIED_AT)


async def update_email_verified(db: Executor, *, account_id: UUID, email: str) -> int:
    """Proves that the address is the account's; 0 if the account has another one. It counts from the first proof."""
    return await db.run(_UPDATE_EMAIL_VERIFIED, account_id=account_id, email=email)


_UPDATE_EMAIL = update(Account).where(*_THIS).values(email=_email, email_verified_at=func.now())


async def update_email(db: Executor, *, account_id: UUID, email: str) -> int:
    """Gives the account an address that is proved. Raises AlreadyExists if another living account has it."""
    return await db.run(_UPDATE_EMAIL, account_id=account_id, email=email)


_DELETE = update(Account).where(*_THIS).values(deleted_at=func.now()).returning(Account)


async def delete_account(db: Executor, *, account_id: UUID) -> Account | None:
    """The account, deleted softly. None if there is none."""
    return await db.first(_DELETE, account_id=account_id)


_BANNED_AT = func.coalesce(Account.banned_at, func.now())
_BAN = update(Account).where(*_BY_EMAIL).values(banned_at=_BANNED_AT).returning(Account.id)
_UNBAN = update(Account).where(*_BY_EMAIL).values(banned_at=None).returning(Account.id)


async def ban_account(db: Executor, *, email: str) -> UUID | None:
    """Its id; banned twice, it stays banned since the first time. None if there is none. Its sessions are not revoked by
    this: they are refused, and would be good again without the ban."""
    return await db.first(_BAN, email=email)


async def unban_account(db: Executor, *, email: str) -> UUID | None:
    """Its id, also if it was not banned. None if there is none."""
    return await db.first(_UNBAN, email=email)
