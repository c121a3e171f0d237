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


class InvalidConnectionString(DatabaseError):
    """libpq cannot read the connection string, or would read another one than its author meant."""


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


READ_ONLY = "25006"
"""The server is a standby, or default_transaction_read_only is on. Nothing was written."""

# What another attempt can cure is Unavailable: the server, the way to it or its resources. Of the other states nothing is
# Unavailable that stays until a person acts, since UNAVAILABLE makes clients repeat the call: a corrupted table or index
# (XX001, XX002), a bug (XX000), a file of PostgreSQL that is missing (58P01), an object that is not ready (55000).
_BY_SQLSTATE: dict[str, type[DatabaseError]] = {
    "23505": AlreadyExists,
    "23503": ForeignKeyMissing,
    "23502": InvalidValue,
    "23514": InvalidValue,
    "40001": Conflict,
    "40P01": Conflict,
    "57014": StatementCancelled,
    READ_ONLY: Unavailable,
    "25P03": Unavailable,  # idle_in_transaction_session_timeout ended the session
    "25P04": Unavailable,  # transaction_timeout did
    "3D000": Unavailable,  # a pooler cannot enter the database; connecting without one fails without an SQLSTATE
    "55P03": Unavailable,  # lock_timeout, which the role may have set: nothing was done
    "57P01": Unavailable,  # the server is shutting down
    "57P02": Unavailable,  # another session of the server crashed
    "57P03": Unavailable,  # the server is starting up, shutting down or recovering
    "57P04": Unavailable,  # the database was dropped
    "57P05": Unavailable,  # idle_session_timeout ended the session
    "58000": Unavailable,  # the operating system failed the server …
    "58030": Unavailable,  # … or its disk did, which ends in a failover
}

_BY_CLASS: dict[str, type[DatabaseError]] = {
    "08": Unavailable,  # the connection failed
    "22": InvalidValue,
    "28": Unavailable,  # a pooler cannot log in
    "53": Unavailable,  # out of disk space, memory or connections
}


def _kind(error: psycopg.Error) -> type[DatabaseError]:
    if error.sqlstate is None:
        return _kind_without_sqlstate(error)
    return _BY_SQLSTATE.get(error.sqlstate) or _BY_CLASS.get(error.sqlstate[:2], DatabaseError)


def _kind_without_sqlstate(error: psycopg.Error) -> type[DatabaseError]:
    """Errors of the driver: no statement was sent, or no response came."""
    if isinstance(error, driver.DataError):
        return InvalidValue
    return Unavailable if isinstance(error, driver.OperationalError) else DatabaseError


def _message(error: psycopg.Error) -> str:
    """PostgreSQL's message, or libpq's about the connection. Other errors of the driver quote what they were given: a value, or
    a connection string with its password."""
    if isinstance(error, driver.DataError):
        return type(error).__name__
    if error.diag.message_primary:
        return error.diag.message_primary
    return str(error) if isinstance(error, driver.OperationalError) else type(error).__name__
