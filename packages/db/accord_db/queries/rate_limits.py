"""Queries of durable rate limits, shared by all gateways and kept across restarts. All times are the database's clock."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    LargeBinary,
    bindparam,
    case,
    column,
    exists,
    extract,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from accord_db.engine.database import Executor
from accord_db.schema import RateLimit


class Limit(NamedTuple):
    """At most `max_calls` counted under the key in a window of `seconds`, which begins with its first call."""

    key: bytes
    max_calls: int
    seconds: int


class Counted(NamedTuple):
    """One call, counted in the window that ends at `reset_at`."""

    key: bytes
    reset_at: datetime


class Exceeded(NamedTuple):
    """A limit that allows no call for the next `seconds`."""

    key: bytes
    seconds: float


_arrays = (
    func.unnest(
        bindparam("keys", type_=ARRAY(LargeBinary)),
        bindparam("max_calls", type_=ARRAY(BigInteger)),
        bindparam("seconds", type_=ARRAY(BigInteger)),
    )
    .table_valued(
        column("key", LargeBinary), column("max_calls", BigInteger), column("seconds", BigInteger), name="arrays"
    )
    .render_derived()
)
_limits = select(_arrays).cte("limits")
_ONE: ColumnElement[int] = literal_column("1", BigInteger)
_new_reset_at = func.now() + _limits.c.seconds * text("interval '1 second'")
_in_window = RateLimit.reset_at > func.now()

# If a limit is exceeded when the statement begins, nothing is written: a flood of calls costs only reads.
_exceeded = (
    select(RateLimit.key)
    .join(_limits, _limits.c.key == RateLimit.key)
    .where(_in_window, RateLimit.count >= _limits.c.max_calls)
    .cte("exceeded")
)
_new = insert(RateLimit).from_select(
    ["key", "count", "reset_at"],
    # In a fixed order, so that concurrent calls with the same keys cannot deadlock.
    select(_limits.c.key, _ONE, _new_reset_at).where(~exists().select_from(_exceeded)).order_by(_limits.c.key),
)
_counted = (
    _new.on_conflict_do_update(
        index_elements=[RateLimit.key],
        set_={
            "count": case((_in_window, RateLimit.count + _ONE), else_=_ONE),
            "reset_at": case((_in_window, RateLimit.reset_at), else_=_new.excluded.reset_at),
        },
        # Evaluated with the row locked: concurrent calls cannot exceed the limit together.
        where=or_(
            ~_in_window,
            RateLimit.count
            < select(_limits.c.max_calls).where(_limits.c.key == literal_column("excluded.key")).scalar_subquery(),
        ),
    )
    .returning(RateLimit.key, RateLimit.reset_at)
    .cte("counted")
)
_COUNT = select(
    _limits.c.key,
    _counted.c.reset_at,
    or_(
        _limits.c.key.in_(select(_exceeded.c.key)),
        _counted.c.key.is_(None) & ~exists().select_from(_exceeded),
    ).label("exceeded"),
    extract(
        "epoch",
        func.coalesce(
            select(RateLimit.reset_at).where(RateLimit.key == _limits.c.key, _in_window).scalar_subquery(),
            _new_reset_at,  # this statement began the window
        )
        - func.now(),
    ).label("seconds"),
).select_from(_limits.outerjoin(_counted, _counted.c.key == _limits.c.key))


async def count_call(db: Executor, *, limits: Sequence[Limit]) -> tuple[list[Counted], list[Exceeded]]:
    """Counts a call against all limits in one statement, or against none if one is already exceeded.

    If a concurrent call exceeds a limit, this call may still be counted against the others.
    """
    rows = await db.fetch_all(
        _COUNT,
        keys=[limit.key for limit in limits],
        max_calls=[limit.max_calls for limit in limits],
        seconds=[limit.seconds for limit in limits],
    )
    counted = [Counted(row.key, row.reset_at) for row in rows if row.reset_at is not None]
    return counted, [Exceeded(row.key, float(row.seconds)) for row in rows if row.exceeded]


_refunds = (
    func.unnest(
        bindparam("keys", type_=ARRAY(LargeBinary)),
        bindparam("resets", type_=ARRAY(DateTime(timezone=True))),
    )
    .table_valued(column("key", LargeBinary), column("reset_at", DateTime(timezone=True)), name="refunds")
    .render_derived()
)
_locked = (
    select(RateLimit.key)
    .join(_refunds, (_refunds.c.key == RateLimit.key) & (_refunds.c.reset_at == RateLimit.reset_at))
    .order_by(RateLimit.key)
    .with_for_update(of=RateLimit)
    .cte("locked")
)
_REFUND = update(RateLimit).where(RateLimit.key == _locked.c.key).values(count=RateLimit.count - _ONE)


async def refund_calls(db: Executor, *, counted: Sequence[Counted]) -> int:
    """Takes the calls off their counts. Returns how many: a window that has ended is not changed."""
    return await db.execute(_REFUND, keys=[each.key for each in counted], resets=[each.reset_at for each in counted])
