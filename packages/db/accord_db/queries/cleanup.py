"""What nobody needs any more, and how it goes: a batch at a time, so that no transaction is long, by one process at a time.

Nothing else deletes rows because of their age. `audit_events` are never deleted.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, ColumnElement, Delete, Table, delete, func, literal_column, select, text, true
from sqlalchemy.orm import InstrumentedAttribute

from accord_db.database import Executor
from accord_db.schema import (
    Account,
    AccountToken,
    DeviceSignIn,
    IdempotencyKey,
    ProviderSignIn,
    RateLimit,
    SecondFactor,
    Session,
    metadata,
)

BATCH: Final = 500

_MONTH, _DAY, _NOW = timedelta(days=30), timedelta(days=1), timedelta(0)

# When each of these rows was of no use any more, and how long they are kept after. An index serves every one, so that a
# run that finds nothing reads next to nothing.
_DUE: Final[Sequence[tuple[InstrumentedAttribute[datetime], timedelta, ColumnElement[bool]]]] = (
    # Their owners can look at them for a month after they have expired, and for longer if they were revoked before.
    (Session.expires_at, _MONTH, true()),
    # Used or not: those that were used expire as soon. A day is for whoever looks into what went wrong.
    (AccountToken.expires_at, _DAY, true()),
    (ProviderSignIn.expires_at, _DAY, true()),
    (DeviceSignIn.expires_at, _DAY, true()),
    (SecondFactor.created_at, _DAY, SecondFactor.confirmed_at.is_(None)),
    (IdempotencyKey.created_at, _DAY, true()),
    (RateLimit.reset_at, _NOW, true()),
)


class Due(NamedTuple):
    """Rows that are to go: their table, and the statement that deletes a batch of them, the oldest first."""

    table: str
    delete: Delete
    batch: int


def everything_due(*, deleted_accounts_kept: timedelta, batch: int = BATCH) -> list[Due]:
    """In the order in which it is to be deleted. To be asked once: statements are compiled at their first run."""
    accounts, kept = metadata.tables[Account.__tablename__], deleted_accounts_kept
    return [
        *(_due(_table(since), since, kept, batch, also) for since, kept, also in _DUE),
        # What an account has goes before it, in batches too: ON DELETE CASCADE would take it all in one transaction.
        *(_due(its.table, Account.deleted_at, kept, batch, its == Account.id) for its in _columns_that_name(accounts)),
        _due(accounts, Account.deleted_at, kept, batch, true()),
    ]


def _columns_that_name(table: Table) -> Iterator[Column[Any]]:
    """The columns of other tables whose rows ON DELETE CASCADE takes along."""
    for other in metadata.sorted_tables:
        yield from (key.parent for key in other.foreign_keys if key.column.table is table and key.ondelete == "CASCADE")


def _due(
    table: Table,
    since: InstrumentedAttribute[Any],
    kept: timedelta,
    batch: int,
    also: ColumnElement[bool],
) -> Due:
    # Numbers are part of the text: of parameters PostgreSQL has to expect that they select a good part of the table. With
    # the order it takes the index even if that is so. A row that somebody has locked is left to the next run.
    due = (
        select(*table.primary_key)
        .where(since < func.now() - text(f"interval '{int(kept.total_seconds())} seconds'"), also)
        .order_by(since)
        .limit(literal_column(str(batch)))
        .with_for_update(of=table, skip_locked=True)
        .cte("due")
    )
    found = (column == due.c[column.name] for column in table.primary_key)
    return Due(table.name, delete(table).where(*found), batch)


def _table(column: InstrumentedAttribute[Any]) -> Table:
    return metadata.tables[column.class_.__tablename__]


async def delete_due(db: Executor, due: Due) -> int:
    """How many it was. There may be more if it was a whole batch."""
    return await db.run(due.delete)


# Released at the end of the transaction, and so by PostgreSQL itself if the process dies.
_LOCK = select(func.pg_try_advisory_xact_lock(literal_column("hashtextextended('accord clean-up', 0)")))


async def is_alone(tx: Executor) -> bool:
    """Whether this transaction is the only one that cleans up now. It stays so until it ends."""
    return await tx.first(_LOCK) is True
