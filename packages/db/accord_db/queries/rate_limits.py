"""Questions about limits that hold for all gateways and across restarts. All times are the database's clock."""

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
    """So many calls, counted under the key, in a window of so many seconds, which begins with the first of them."""

    key: bytes
    most: int
    seconds: int


class Counted(NamedTuple):
    """One call in one window."""

    key: bytes
    reset_at: datetime


class UsedUp(NamedTuple):
    """A limit that allows no call for so many seconds."""

    key: bytes
    seconds: float


_limits = (
    func.unnest(
        bindparam("keys", type_=ARRAY(LargeBinary)),
        bindparam("most", type_=ARRAY(BigInteger)),
        bindparam("seconds", type_=ARRAY(BigInteger)),
    )
    .table_valued(column("key", LargeBinary), column("most", BigInteger), column("seconds", BigInteger), name="limits")
    .render_derived()
)
_asked = select(_limits).cte("asked")
_ONE: ColumnElement[int] = literal_column("1", BigInteger)
_ends = func.now() + _asked.c.seconds * text("interval '1 second'")
_goes_on = RateLimit.reset_at > func.now()

# What is used up when the statement begins refuses the call without a write, so that a flood of calls costs reads alone.
_used_up = (
    select(RateLimit.key)
    .join(_asked, _asked.c.key == RateLimit.key)
    .where(_goes_on, RateLimit.count >= _asked.c.most)
    .cte("used_up")
)
_new = insert(RateLimit).from_select(
    ["key", "count", "reset_at"],
    # Always in the same order: two calls that count under the same keys wait for each other, and do not deadlock.
    select(_asked.c.key, _ONE, _ends).where(~exists().select_from(_used_up)).order_by(_asked.c.key),
)
_counted = (
    _new.on_conflict_do_update(
        index_elements=[RateLimit.key],
        set_={
            "count": case((_goes_on, RateLimit.count + _ONE), else_=_ONE),
            "reset_at": case((_goes_on, RateLimit.reset_at), else_=_new.excluded.reset_at),
        },
        # The row is locked by now: of calls at the same time no more pass than there is room for.
        where=or_(
            ~_goes_on,
            RateLimit.count
            < select(_asked.c.most).where(_asked.c.key == literal_column("excluded.key")).scalar_subquery(),
        ),
    )
    .returning(RateLimit.key, RateLimit.reset_at)
    .cte("counted")
)
_COUNT = select(
    _asked.c.key,
    _counted.c.reset_at,
    or_(
        _asked.c.key.in_(select(_used_up.c.key)),
        _counted.c.key.is_(None) & ~exists().select_from(_used_up),
    ).label("used_up"),
    extract(
        "epoch",
        func.coalesce(
            select(RateLimit.reset_at).where(RateLimit.key == _asked.c.key, _goes_on).scalar_subquery(),
            _ends,  # the window began at the same moment as this statement
        )
        - func.now(),
    ).label("seconds"),
).select_from(_asked.outerjoin(_counted, _counted.c.key == _asked.c.key))


async def count_call(db: Executor, *, limits: Sequence[Limit]) -> tuple[list[Counted], list[UsedUp]]:
    """Counts a call against all of the limits, unless one of them is used up, in one statement.

    If one is used up by a call at the same moment, the call may have been counted against others.
    """
    rows = await db.fetch_all(
        _COUNT,
        keys=[limit.key for limit in limits],
        most=[limit.most for limit in limits],
        seconds=[limit.seconds for limit in limits],
    )
    counted = [Counted(row.key, row.reset_at) for row in rows if row.reset_at is not None]
    return counted, [UsedUp(row.key, float(row.seconds)) for row in rows if row.used_up]


_taken_back = (
    func.unnest(
        bindparam("keys", type_=ARRAY(LargeBinary)),
        bindparam("resets", type_=ARRAY(DateTime(timezone=True))),
    )
    .table_valued(column("key", LargeBinary), column("reset_at", DateTime(timezone=True)), name="taken_back")
    .render_derived()
)
_locked = (
    select(RateLimit.key)
    .join(_taken_back, (_taken_back.c.key == RateLimit.key) & (_taken_back.c.reset_at == RateLimit.reset_at))
    .order_by(RateLimit.key)
    .with_for_update(of=RateLimit)
    .cte("locked")
)
_TAKE_BACK = update(RateLimit).where(RateLimit.key == _locked.c.key).values(count=RateLimit.count - _ONE)


async def take_back(db: Executor, *, counted: Sequence[Counted]) -> int:
    """How many counts were taken back: a window that is over has nothing to give."""
    return await db.execute(_TAKE_BACK, keys=[each.key for each in counted], resets=[each.reset_at for each in counted])
