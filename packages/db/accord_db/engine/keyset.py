"""Lists with keyset pagination: a page begins after a cursor, so that its cost does not grow with the page number."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Date, DateTime, Integer, Select, Uuid, bindparam, func, literal_column, tuple_
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.visitors import iterate

from accord_db.engine.executor import Executor
from accord_db.engine.expressions import like_containing
from accord_db.engine.views import Statement, without

R = TypeVar("R")

# PostgreSQL assumes that a LIMIT parameter is a tenth of the table, and plans at every execution: 50 µs instead of 31 for a
# page of 20. So the usual page sizes, plus the row that shows whether there is a next page, are literals. Other sizes are a
# parameter, so that callers cannot fill the connection with prepared statements.
_LITERAL_LIMITS: Final = frozenset({11, 21, 51, 101})


class Cursor(NamedTuple):
    """A position in a list: a row's value in the column of the order, and its id."""

    value: datetime | date | str | int | UUID | None
    id: UUID


@dataclass(frozen=True, slots=True)
class Page:
    """The page of a list to fetch: at most `limit` rows after the cursor."""

    limit: int
    after: Cursor | None = None
    order_by: str = "created_at"
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Contains:
    """A filter: the column contains the parameter's text, in upper or lower case."""

    column: Any


class Listing(Generic[R]):
    """The statements of one list. Every combination of filters and order is compiled once.

    `orders` are the columns a page can be ordered by; rows of equal value are ordered by `id`. A time or date that is NULL comes
    after all others; columns of other types must not be NULL. `filters` are conditions by name. A condition with a bind
    parameter of the same name applies unless the filter's value is None; one without, if the value is true. The conditions in `unless` apply if the value is missing or false. Rows have the columns in `only_full` if
    `fetch` is called with `full`."""

    def __init__(
        self,
        statement: Statement,
        *,
        id: Any,
        orders: Mapping[str, Any],
        filters: Mapping[str, ColumnElement[bool] | Contains] | None = None,
        unless: Mapping[str, ColumnElement[bool]] | None = None,
        only_full: Collection[InstrumentedAttribute[Any]] = (),
    ) -> None:
        self._statement = statement
        self._basic = without(statement, only_full) if only_full else statement
        self._id = id
        self._orders = orders
        filters = filters or {}
        self._conditions = {name: _condition(name, condition) for name, condition in filters.items()}
        self._bound = {name for name, condition in self._conditions.items() if name in _parameters(condition)}
        self._patterns = {name for name, condition in filters.items() if isinstance(condition, Contains)}
        self._unless = dict(unless or {})
        if nullable := [name for name, column in orders.items() if _is_nullable(column) and not _has_end(column)]:
            raise ValueError(f"keyset order by a column that can be NULL: {', '.join(nullable)}")
        if unread := sorted(orders.keys() & {column.key for column in only_full}):
            raise ValueError(f"keyset order by a column that only the view FULL has: {', '.join(unread)}")
        self._page = cache(self._build_page)
        self._count = cache(self._build_count)

    async def fetch(
        self,
        db: Executor,
        page: Page,
        *,
        filters: Mapping[str, object] | None = None,
        full: bool = False,
        **parameters: object,
    ) -> list[R]:
        """Rows in a total order. `parameters` are those of the statement."""
        names, values = self._chosen(filters or {})
        limit = page.limit if page.limit in _LITERAL_LIMITS else None
        statement = self._page(names, page.order_by, page.descending, page.after is not None, limit, full)
        if page.after is not None:
            values |= {"after_value": page.after.value, "after_id": page.after.id}
        if limit is None:
            values["limit"] = page.limit
        return cast(list[R], await db.fetch_all(statement, **parameters, **values))

    async def count(self, db: Executor, *, filters: Mapping[str, object] | None = None, **parameters: object) -> int:
        names, values = self._chosen(filters or {})
        return await db.fetch_one(self._count(names), **parameters, **values) or 0

    def _chosen(self, filters: Mapping[str, object]) -> tuple[frozenset[str], dict[str, object]]:
        """The conditions that apply, and the values of their parameters."""
        if unknown := filters.keys() - self._conditions.keys() - self._unless.keys():
            raise TypeError(f"the list has no filter {', '.join(sorted(unknown))}")
        values = {name: filters[name] for name in self._bound & filters.keys() if filters[name] is not None}
        flags = {name for name in self._conditions.keys() - self._bound if filters.get(name)}
        shown = {name for name in self._unless if not filters.get(name)}
        for name in self._patterns & values.keys():
            values[name] = like_containing(str(values[name]))
        return frozenset({*values, *flags, *shown}), values

    def _build_page(
        self,
        filters: frozenset[str],
        order_by: str,
        descending: bool,
        later: bool,
        limit: int | None,
        full: bool = False,
    ) -> Statement:
        column = self._orders[order_by]
        order, statement = _value_of(column, column), self._filtered(filters, self._statement if full else self._basic)
        if later:
            here = tuple_(order, self._id)
            after = tuple_(
                _value_of(bindparam("after_value", type_=order.type), column), bindparam("after_id", type_=Uuid)
            )
            statement = statement.where(here < after if descending else here > after)
        statement = statement.order_by(*(each.desc() if descending else each for each in (order, self._id)))
        return statement.limit(bindparam("limit", type_=Integer) if limit is None else literal_column(str(limit)))

    def _build_count(self, filters: frozenset[str]) -> Select[int]:
        counted = self._filtered(filters, self._statement)
        return counted.with_only_columns(func.count(), maintain_column_froms=True)

    def _filtered(self, filters: frozenset[str], statement: Statement) -> Statement:
        conditions = self._conditions | self._unless
        return statement.where(*(conditions[name] for name in sorted(filters)))


def _condition(name: str, condition: ColumnElement[bool] | Contains) -> ColumnElement[bool]:
    return condition.column.ilike(bindparam(name)) if isinstance(condition, Contains) else condition


def _parameters(condition: ColumnElement[bool]) -> set[str]:
    return {element.key for element in iterate(condition) if isinstance(element, BindParameter)}


def _is_nullable(column: Any) -> bool:
    return bool(getattr(column, "nullable", False))


def _has_end(column: Any) -> bool:
    return isinstance(column.type, Date | DateTime)


def _value_of(value: Any, column: Any) -> Any:
    """The value, or for NULL in a column that can be NULL the end of time."""
    return func.coalesce(value, literal_column("'infinity'").cast(column.type)) if _is_nullable(column) else value
