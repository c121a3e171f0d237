"""Lists by keyset: a page begins after a cursor, so that its cost does not grow with the pages before it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Select, Uuid, bindparam, func, literal_column, tuple_
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.visitors import iterate

from accord_db.engine.executor import Executor

R = TypeVar("R")

# PostgreSQL plans an unknown LIMIT as a tenth of the table and replans each call: 50 µs for a page of 20 instead of 31. So
# the usual sizes, plus the row that shows whether there is a next page, are literals. Others stay a parameter, or callers
# could have a thousand statements prepared.
_LITERAL_LIMITS: Final = frozenset({11, 21, 51, 101})


class Cursor(NamedTuple):
    """A position in a list: a row's value in the column of the order, and its id."""

    value: datetime | str | int | UUID
    id: UUID


@dataclass(frozen=True, slots=True)
class Page:
    """Which rows of a list to fetch: at most `limit`, after the cursor."""

    limit: int
    after: Cursor | None = None
    order_by: str = "created_at"
    descending: bool = True


class Listing(Generic[R]):
    """The statements of one list. Every combination of filters and order is compiled once.

    `orders` are the columns a page can be ordered by; rows of equal value are ordered by `id`. `filters` are conditions by
    name; a condition may have a bind parameter of the same name."""

    def __init__(
        self,
        statement: Select[*tuple[Any, ...]],
        *,
        id: Any,
        orders: Mapping[str, Any],
        filters: Mapping[str, ColumnElement[bool]] | None = None,
    ) -> None:
        self._statement = statement
        self._id = id
        self._orders = orders
        self._filters = dict(filters or {})
        self._bound = {name for name, condition in self._filters.items() if name in _parameters(condition)}
        if nullable := [name for name, column in orders.items() if getattr(column, "nullable", False)]:
            raise ValueError(f"keyset order by a column that can be NULL: {', '.join(nullable)}")
        self._page = cache(self._build_page)
        self._count = cache(self._build_count)

    async def fetch(
        self, db: Executor, page: Page, *, filters: Mapping[str, object] | None = None, **parameters: object
    ) -> list[R]:
        """Rows in a total order. A filter applies unless its value is None; one without a parameter, if it is true."""
        chosen = self._chosen(filters)
        limit = page.limit if page.limit in _LITERAL_LIMITS else None
        statement = self._page(frozenset(chosen), page.order_by, page.descending, page.after is not None, limit)
        parameters |= {name: chosen[name] for name in self._bound & chosen.keys()}
        if page.after is not None:
            parameters |= {"after_value": page.after.value, "after_id": page.after.id}
        if limit is None:
            parameters["limit"] = page.limit
        return cast(list[R], await db.fetch_all(statement, **parameters))

    async def count(self, db: Executor, *, filters: Mapping[str, object] | None = None, **parameters: object) -> int:
        chosen = self._chosen(filters)
        parameters |= {name: chosen[name] for name in self._bound & chosen.keys()}
        return await db.fetch_one(self._count(frozenset(chosen)), **parameters) or 0

    def _chosen(self, filters: Mapping[str, object] | None) -> dict[str, object]:
        given = (filters or {}).items()
        return {name: value for name, value in given if (value is not None if name in self._bound else value)}

    def _build_page(
        self, filters: frozenset[str], order_by: str, descending: bool, later: bool, limit: int | None
    ) -> Select[*tuple[Any, ...]]:
        order, statement = self._orders[order_by], self._filtered(filters)
        if later:
            here = tuple_(order, self._id)
            after = tuple_(bindparam("after_value", type_=order.type), bindparam("after_id", type_=Uuid))
            statement = statement.where(here < after if descending else here > after)
        statement = statement.order_by(*(each.desc() if descending else each for each in (order, self._id)))
        return statement.limit(bindparam("limit", type_=Integer) if limit is None else literal_column(str(limit)))

    def _build_count(self, filters: frozenset[str]) -> Select[int]:
        return self._filtered(filters).with_only_columns(func.count(), maintain_column_froms=True)

    def _filtered(self, filters: frozenset[str]) -> Select[*tuple[Any, ...]]:
        return self._statement.where(*(self._filters[name] for name in sorted(filters)))


def _parameters(condition: ColumnElement[bool]) -> set[str]:
    return {element.key for element in iterate(condition) if isinstance(element, BindParameter)}
