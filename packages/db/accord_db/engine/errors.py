"""Errors of the database, mapped from SQLSTATE and never from the text of a message.

They contain no value that a caller sent: PostgreSQL's DETAIL quotes keys, and messages of class 22 quote input, so both are
dropped.
"""

import psycopg
from psycopg import errors as driver


class DatabaseError(Exception):
    """An error of PostgreSQL or of the connection. The subclasses name those that the code distinguishes."""

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(f"{message} ({sqlstate})" if sqlstate else message)
        self.sqlstate = sqlstate
        self.constraint: str | None = None
        self.table: str | None = None
        self.column: str | None = None


class AlreadyExists(DatabaseError):
    """A unique violation of `constraint`."""


class ForeignKeyMissing(DatabaseError):
    """A foreign key violation: a row refers to a missing row, or a deleted row is still referred to."""


class InvalidValue(DatabaseError):
    """A value that violates NOT NULL, a CHECK or the type of the column."""


class InvalidConnectionString(DatabaseError):
    """libpq cannot read the connection string, or would read a part of the password as another parameter."""


class Conflict(DatabaseError):
    """A serialization failure or deadlock: the transaction can succeed if it is repeated."""


class StatementCancelled(DatabaseError):
    """The statement reached its timeout, or was cancelled."""


class Unavailable(DatabaseError):
    """The database is not available at the moment.

    `outcome_unknown`: the connection was lost during COMMIT, so the transaction may be committed or not.
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
    """Converts an error of the driver. No other function does."""
    translated = _kind(error)(_message(error), sqlstate=error.sqlstate)
    translated.constraint = error.diag.constraint_name
    translated.table = error.diag.table_name
    translated.column = error.diag.column_name
    return translated


READ_ONLY = "25006"
"""The server is a standby, or default_transaction_read_only is on. Nothing was written."""

DISK_FULL = "53100"

# Unavailable: the server, the connection or its resources failed, and a repetition can succeed, since clients repeat calls that
# end UNAVAILABLE. States that last until an operator acts are not: a corrupted table or index (XX001, XX002), a bug (XX000), a
# missing file of PostgreSQL (58P01), an object that is not ready (55000).
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
    "25P04": Unavailable,  # transaction_timeout ended the session
    "3D000": Unavailable,  # a pooler cannot open the database; without a pooler the error has no SQLSTATE
    "55P03": Unavailable,  # lock_timeout, which the role may have set: nothing was done
    "57P01": Unavailable,  # the server is shutting down
    "57P02": Unavailable,  # another session of the server crashed
    "57P03": Unavailable,  # the server is starting up, shutting down or recovering
    "57P04": Unavailable,  # the database was dropped
    "57P05": Unavailable,  # idle_session_timeout ended the session
    "58000": Unavailable,  # an error of the operating system
    "58030": Unavailable,  # an I/O error, after which a standby can take over
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
    """The message of PostgreSQL, or of libpq about the connection. Other errors of the driver quote their input: a value, or a
    connection string with its password."""
    if isinstance(error, driver.DataError):
        return type(error).__name__
    if error.diag.message_primary:
        return error.diag.message_primary
    return str(error) if isinstance(error, driver.OperationalError) else type(error).__name__
