"""Parameters that are spans of time."""

from datetime import timedelta

from sqlalchemy import ColumnElement, Interval, bindparam, cast


def interval(name: str) -> ColumnElement[timedelta]:
    """Cast, since PostgreSQL takes what is added to a time for another time unless it is told."""
    return cast(bindparam(name), Interval)
