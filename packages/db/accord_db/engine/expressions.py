"""SQL expressions that several queries share."""

import re
from datetime import timedelta

from sqlalchemy import ColumnElement, Interval, bindparam, cast

_SPECIAL = re.compile(r"[\\%_]")


def like_containing(text: str) -> str:
    r"""A LIKE pattern that matches `text` literally anywhere: `%`, `_` and `\` are escaped."""
    escaped = _SPECIAL.sub(r"\\\g<0>", text)
    return f"%{escaped}%"


def interval(name: str) -> ColumnElement[timedelta]:
    """A bind parameter of type interval. Without the cast PostgreSQL infers timestamp for `time + $1`."""
    return cast(bindparam(name), Interval)
