"""What can go wrong with the database, named by SQLSTATE and never by the text of a message.

No value that a caller sent is in these errors: PostgreSQL puts the offending key into DETAIL, and the text of class 22
quotes its input, so neither is kept.
"""

import psycopg
from psycopg import errors as driver


class DatabaseError(Exception):
    """Something PostgreSQL or the way to it refused, for which there is no better name below."""

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(f"{message} ({sqlstate})" if sqlstate else message)
        self.sqlstate = sqlstate
        self.constraint: str | None = None
        self.table: str | None = None
        self.column: str | None = None


class AlreadyExists(DatabaseError):
    """A unique constraint (`constraint`) has the key already."""


class ForeignKeyMissing(DatabaseError):
    """A row refers to one that does not exist, or is referred to by one that does."""


class InvalidValue(DatabaseError):
    """A value that the column, its type or a check cannot hold."""


class Conflict(DatabaseError):
    """Lost against another transaction: the same work, begun again, may succeed."""


class StatementCancelled(DatabaseError):
    """Ran out of time, or was cancelled."""


class Unavailable(DatabaseError):
    """The database cannot be asked right now.

    With `outcome_unknown` the connection was lost while a COMMIT was under way: the work may or may not be done.
    """

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str | None = None,
        retry_after: float = 1.0,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message, sqlstate=sqlstate)
        self.retry_after = retry_after
        self.outcome_unknown = outcome_unknown


def translate(error: psycopg.Error) -> DatabaseError:
    """The one place where an error of the driver becomes ours."""
    translated = _kind(error)(_message(error), sqlstate=error.sqlstate)
    translated.constraint = error.diag.constraint_name
    translated.table = error.diag.table_name
    translated.column = error.diag.column_name
    return translated


_BY_SQLSTATE: dict[str, type[DatabaseError]] = {
    "23505": AlreadyExists,
    "23503": ForeignKeyMissing,
    "23502": InvalidValue,
    "23514": InvalidValue,
    "40001": Conflict,
    "40P01": Conflict,
    "57014": StatementCancelled,
    "25P03": Unavailable,  # the session was ended for idling in a transaction
    "25P04": Unavailable,  # … or because its transaction took too long
    "57P01": Unavailable,
    "57P02": Unavailable,
    "57P03": Unavailable,
    "57P04": Unavailable,
    "57P05": Unavailable,
}

_BY_CLASS: dict[str, type[DatabaseError]] = {"08": Unavailable, "22": InvalidValue, "53": Unavailable}


def _kind(error: psycopg.Error) -> type[DatabaseError]:
    if error.sqlstate is None:
        return _kind_without_sqlstate(error)
    return _BY_SQLSTATE.get(error.sqlstate) or _BY_CLASS.get(error.sqlstate[:2], DatabaseError)


def _kind_without_sqlstate(error: psycopg.Error) -> type[DatabaseError]:
    """The driver's own objections: the server was never asked, or never answered."""
    if isinstance(error, driver.DataError):
        return InvalidValue
    return Unavailable if isinstance(error, driver.OperationalError) else DatabaseError


def _message(error: psycopg.Error) -> str:
    if isinstance(error, driver.DataError):
        return type(error).__name__
    return error.diag.message_primary or str(error)
