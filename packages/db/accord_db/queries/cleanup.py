"""Deletion of old rows, in batches so that transactions stay short, by one process at a time.

Nothing else deletes rows because of their age. `audit_events` are never deleted.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Delete,
    ForeignKeyConstraint,
    FromClause,
    MetaData,
    Table,
    and_,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased
from sqlalchemy.sql.selectable import AliasedReturnsRows

from accord_db.engine.database import Executor
from accord_db.queries.signing_keys import KEPT_FOR, KNOWN_AFTER
from accord_db.schema import (
    Account,
    AccountToken,
    ApiKey,
    DeviceSignIn,
    IdempotencyKey,
    Invitation,
    Organization,
    ProviderSignIn,
    RateLimit,
    SecondFactor,
    Session,
    SigningKey,
    metadata,
)

BATCH: Final = 500

_successor = aliased(SigningKey, name="successor")
_QUARTER, _MONTH, _DAY, _NOW = timedelta(days=90), timedelta(days=30), timedelta(days=1), timedelta(0)

# From which time a row is unused, how long it is kept after that, and a further condition. Each has an index, so that a
# run that finds nothing reads almost nothing.
_DUE: Final[Sequence[tuple[InstrumentedAttribute[Any], timedelta, ColumnElement[bool]]]] = (
    # Owners see them for a month after they expire, also those that were revoked earlier.
    (Session.expires_at, _MONTH, true()),
    # Accepted, declined and cancelled ones too: they have the same expiry as pending ones.
    (Invitation.expires_at, _MONTH, true()),
    # While it exists, the expiry of an expired key can be extended.
    (ApiKey.expires_at, _QUARTER, true()),
    (ApiKey.revoked_at, _QUARTER, true()),
    # Used ones too: they have the same expiry. A day leaves time to investigate problems.
    (AccountToken.expires_at, _DAY, true()),
    (ProviderSignIn.expires_at, _DAY, true()),
    (DeviceSignIn.expires_at, _DAY, true()),
    (SecondFactor.created_at, _DAY, SecondFactor.confirmed_at.is_(None)),
    (IdempotencyKey.created_at, _DAY, true()),
    (RateLimit.reset_at, _NOW, true()),
    # A key whose successor has signed for `KEPT_FOR`.
    (
        SigningKey.created_at,
        _NOW,
        exists().where(
            _successor.created_at > SigningKey.created_at,
            _successor.created_at < func.now() - text(f"interval '{(KNOWN_AFTER + KEPT_FOR).days} days'"),
        ),
    ),
)


class ExpiredRows(NamedTuple):
    """A table, and the statement that deletes a batch of its old rows, oldest first."""

    table: str
    delete: Delete
    batch: int


class Retention(NamedTuple):
    """How long softly deleted rows are kept, and for which tables longer or shorter. Not for accounts and organizations."""

    usual: timedelta = _MONTH
    tables: Mapping[str, timedelta] = MappingProxyType({})


KEPT_A_MONTH: Final = Retention()
_ALWAYS: Final = true()


def expired_rows(
    *,
    deleted_accounts_kept: timedelta,
    deleted_organizations_kept: timedelta,
    deleted_rows_kept: Retention = KEPT_A_MONTH,
    batch: int = BATCH,
) -> list[ExpiredRows]:
    """In the order in which to run them. Call it once and keep the list: each statement is compiled at its first run. Raises
    ValueError if the retention names a table without soft deletion."""
    organizations, accounts = (metadata.tables[owner.__tablename__] for owner in (Organization, Account))
    return [
        *(
            _expired_rows(_table(since), _table(since), since, kept, batch, condition)
            for since, kept, condition in _DUE
        ),
        *_softly_deleted(deleted_rows_kept, batch, metadata),
        *_with_rows_below(organizations, deleted_organizations_kept, batch),
        *_with_rows_below(accounts, deleted_accounts_kept, batch),
    ]


def _softly_deleted(kept: Retention, batch: int, metadata: MetaData) -> Iterator[ExpiredRows]:
    """Children before parents, so that a row that keeps another from being deleted goes first if it is due too."""
    owners = (Account.__tablename__, Organization.__tablename__)
    tables = [
        table for table in reversed(metadata.sorted_tables) if "deleted_at" in table.c and table.name not in owners
    ]
    if unknown := sorted(kept.tables.keys() - {table.name for table in tables}):
        raise ValueError(f"no table with soft deletion: {', '.join(unknown)}")
    for table in tables:
        blocked = list(_blocked(table))
        free = ~or_(*blocked) if blocked else _ALWAYS
        yield from _with_rows_below(table, kept.tables.get(table.name, kept.usual), batch, free)


def _blocked(table: FromClause, above: frozenset[Table] = frozenset()) -> Iterator[ColumnElement[bool]]:
    """Conditions under which another row keeps a row from being deleted: by a foreign key that neither cascades nor is set to
    NULL, to the row itself or to one that would be deleted with it."""
    original = table.element if isinstance(table, AliasedReturnsRows) else table
    assert isinstance(original, Table)
    above |= {original}
    for key in _keys_to(original):
        other = key.table.alias()
        joined = and_(*(other.c[each.parent.name] == table.c[each.column.name] for each in key.elements))
        if key.ondelete == "CASCADE":
            if key.table not in above:
                yield from (exists().where(joined, blocked) for blocked in _blocked(other, above))
        elif key.ondelete != "SET NULL":
            yield exists().where(joined)


def _keys_to(table: Table) -> list[ForeignKeyConstraint]:
    """Of other tables, in a fixed order."""
    keys = (key for other in table.metadata.sorted_tables for key in other.foreign_key_constraints)
    return sorted((key for key in keys if key.referred_table is table is not key.table), key=lambda key: str(key.name))


def _with_rows_below(
    table: Table, kept: timedelta, batch: int, condition: ColumnElement[bool] = _ALWAYS
) -> Iterator[ExpiredRows]:
    """Deletes first the rows that are deleted with those of the table, children before parents, in batches too: ON DELETE CASCADE
    would delete them in one transaction."""
    since = table.c.deleted_at
    for other in reversed(table.metadata.sorted_tables):
        for belongs in _paths(other, table):
            yield _expired_rows(other, table, since, kept, batch, and_(belongs, condition))
    yield _expired_rows(table, table, since, kept, batch, condition)


def _paths(table: Table, owner: Table) -> Iterator[ColumnElement[bool]]:
    """Conditions that join rows to the row of the owner that they are deleted with: by foreign keys ON DELETE CASCADE, directly
    or through other tables, and for an account by `owner_id`, where an organization can own a row as well."""
    direct = any(key.referred_table is owner and key.ondelete == "CASCADE" for key in table.foreign_key_constraints)
    if owner.name == Account.__tablename__ and "owner_id" in table.c and not direct:
        yield table.c.owner_id == owner.c.id
    for key in table.foreign_key_constraints:
        joined = and_(*(element.parent == element.column for element in key.elements))
        if key.ondelete != "CASCADE" or key.referred_table is table:
            continue
        if key.referred_table is owner:
            yield joined
        else:
            yield from (and_(joined, path) for path in _paths(key.referred_table, owner))


def _expired_rows(
    table: Table,
    owner: Table,
    since: ColumnElement[Any] | InstrumentedAttribute[Any],
    kept: timedelta,
    batch: int,
    condition: ColumnElement[bool],
) -> ExpiredRows:
    # Literals, because PostgreSQL assumes that a parameter selects a large part of the table. ORDER BY makes it use the
    # index in any case. Locked rows are left to the next run.
    due = (
        select(*table.primary_key)
        .where(since < func.now() - text(f"interval '{int(kept.total_seconds())} seconds'"), condition)
        .order_by(since)
        .limit(literal_column(str(batch)))
        # The owner's row too: another transaction may be restoring it.
        .with_for_update(of=list(dict.fromkeys((table, owner))), skip_locked=True)
        .cte("due")
    )
    is_due = (column == due.c[column.name] for column in table.primary_key)
    return ExpiredRows(table.name, delete(table).where(*is_due).execution_options(across_tenants=True), batch)


def _table(column: InstrumentedAttribute[Any]) -> Table:
    return metadata.tables[column.class_.__tablename__]


async def delete_batch(db: Executor, expired: ExpiredRows) -> int:
    """The number of deleted rows. There may be more if it is `expired.batch`."""
    return await db.execute(expired.delete)


# PostgreSQL releases it at the end of the transaction, also if the process dies.
_LOCK = select(func.pg_try_advisory_xact_lock(literal_column("hashtextextended('accord clean-up', 0)")))


async def try_lock_cleanup(tx: Executor) -> bool:
    """True if no other transaction holds the lock of the clean-up. This one then holds it until it ends."""
    return await tx.fetch_one(_LOCK) is True
