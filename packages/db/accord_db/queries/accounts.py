"""Questions about accounts."""

from uuid import UUID

from sqlalchemy import String, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert

from accord_db.database import Executor
from accord_db.schema import Account

_LIVING = Account.deleted_at.is_(None)
_email = func.lower(bindparam("email", type_=String))

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
    db: Executor, *, account_id: UUID, email: str, display_name: str, password_hash: str
) -> Account | None:
    """None if a living account has the address already, in upper or lower case: it is left as it is."""
    return await db.first(_INSERT, id=account_id, email=email, display_name=display_name, password_hash=password_hash)


_GET = select(Account).where(Account.id == bindparam("account_id"), _LIVING)


async def get_account(db: Executor, *, account_id: UUID) -> Account | None:
    return await db.first(_GET, account_id=account_id)


_GET_BY_EMAIL = select(Account).where(func.lower(Account.email) == _email, _LIVING)


async def get_account_by_email(db: Executor, *, email: str) -> Account | None:
    return await db.first(_GET_BY_EMAIL, email=email)


_UPDATE_PASSWORD_HASH = (
    update(Account).where(Account.id == bindparam("account_id"), _LIVING).values(password_hash=bindparam("new_hash"))
)


async def update_password_hash(db: Executor, *, account_id: UUID, password_hash: str) -> int:
    return await db.run(_UPDATE_PASSWORD_HASH, account_id=account_id, new_hash=password_hash)
