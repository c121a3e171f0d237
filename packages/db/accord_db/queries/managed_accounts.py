"""Queries of all accounts, for administrators of the installation."""

from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Select, String, Uuid, bindparam, func, literal_column, select, tuple_

from accord_db.engine.database import Executor
from accord_db.engine.folding import EmailAddress
from accord_db.engine.keyset import Page
from accord_db.queries.accounts import not_banned
from accord_db.schema import Account

Searched = Literal["email", "display_name"]
# Ordered by code points, which an index needs to find a prefix. Addresses are stored folded. The case of display names follows
# the database's locale: they identify no account.
_SEARCHED: dict[Searched, ColumnElement[str]] = {
    "email": Account.email.collate("C"),
    "display_name": func.lower(Account.display_name).collate("C"),
}
_LAST_CHARACTER = "\U0010ffff"


class Search(NamedTuple):
    """For accounts whose address or name begins with the prefix."""

    by: Searched
    prefix: str


class AccountFilters(NamedTuple):
    """None: no filter."""

    role: str | None = None
    banned: bool | None = None
    show_deleted: bool = False


_NO_FILTERS = AccountFilters()

_GET = select(Account).where(Account.id == bindparam("account_id"))


async def get_any_account(db: Executor, *, account_id: UUID) -> Account | None:
    """Also a deleted one."""
    return await db.fetch_one(_GET, account_id=account_id)


@cache
def _list(by: Searched | None, filters: AccountFilters, later_page: bool) -> Select[Account]:
    statement = select(Account).where(*_where(filters)).limit(bindparam("limit", type_=Integer))
    if by is None:
        older = [Account.id < bindparam("after_id")] if later_page else []
        return statement.where(*older).order_by(Account.id.desc())
    order = _SEARCHED[by]
    after = tuple_(_folded(by, "after_value"), bindparam("after_id", type_=Uuid))
    later = [tuple_(order, Account.id) > after] if later_page else []
    has_prefix = (order >= _folded(by, "first"), order < _folded(by, "last"))
    return statement.where(*has_prefix, *later).order_by(order, Account.id)


# Literals, like the condition of the partial index of administrators, so that PostgreSQL uses it.
_HAS_ROLE = {role: Account.role == literal_column(f"'{role}'") for role in ("person", "administrator")}
# Includes the condition of the partial index of banned accounts.
_BANNED = Account.banned_at.is_not(None) & (Account.banned_until.is_(None) | (Account.banned_until > func.now()))


def _folded(by: Searched, parameter: str) -> ColumnElement[str]:
    if by == "email":
        return bindparam(parameter, type_=EmailAddress)
    return func.lower(bindparam(parameter, type_=String)).collate("C")


def _where(filters: AccountFilters) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [] if filters.show_deleted else [Account.deleted_at.is_(None)]
    if filters.role is not None:
        conditions.append(_HAS_ROLE[filters.role])
    if filters.banned is not None:
        conditions.append(_BANNED if filters.banned else not_banned(Account))
    return conditions


async def list_accounts(
    db: Executor,
    *,
    page: Page,
    search: Search | None = None,
    filters: AccountFilters = _NO_FILTERS,
) -> Sequence[Account]:
    """Newest first; with a search, in the order of the searched column."""
    parameters: dict[str, object] = {"limit": page.limit}
    if search is not None:
        parameters |= {"first": search.prefix, "last": search.prefix + _LAST_CHARACTER}
    if page.after is not None:
        parameters["after_id"] = page.after.id
    if search is not None and page.after is not None:
        parameters["after_value"] = page.after.value
    return await db.fetch_all(_list(search.by if search else None, filters, page.after is not None), **parameters)
