"""What nobody needs any more, and how it goes: a batch at a time, so that no transaction is long, by one process at a time.

Nothing else deletes rows because of their age. `audit_events` are never deleted.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Delete, Table, and_, delete, exists, func, literal_column, select, text, true
from sqlalchemy.orm import InstrumentedAttribute, aliased

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

# When each of these rows was of no use any more, and how long they are kept after. An index serves every one, so that a
# run that finds nothing reads next to nothing.
_DUE: Final[Sequence[tuple[InstrumentedAttribute[Any], timedelta, ColumnElement[bool]]]] = (
    # Their owners can look at them for a month after they have expired, and for longer if they were revoked before.
    (Session.expires_at, _MONTH, true()),
    # However they ended: those that were answered expire as soon as the others.
    (Invitation.expires_at, _MONTH, true()),
    # One that has expired may be given more time, for as long as it is there.
    (ApiKey.expires_at, _QUARTER, true()),
    (ApiKey.revoked_at, _QUARTER, true()),
    # Used or not: those that were used expire as soon. A day is for whoever looks into what went wrong.
    (AccountToken.expires_at, _DAY, true()),
    (ProviderSignIn.expires_at, _DAY, true()),
    (DeviceSignIn.expires_at, _DAY, true()),
    (SecondFactor.created_at, _DAY, SecondFactor.confirmed_at.is_(None)),
    (IdempotencyKey.created_at, _DAY, true()),
    (RateLimit.reset_at, _NOW, true()),
    # Once another has been signing for a while.
    (
        SigningKey.created_at,
        _NOW,
        exists().where(
            _successor.created_at > SigningKey.created_at,
            _successor.created_at < func.now() - text(f"interval '{(KNOWN_AFTER + KEPT_FOR).days} days'"),
        ),
    ),
)


class Due(NamedTuple):
    """Rows that are to go: their table, and the statement that deletes a batch of them, the oldest first."""

    table: str
    delete: Delete
    batch: int


def everything_due(
    *, deleted_accounts_kept: timedelta, deleted_organizations_kept: timedelta, batch: int = BATCH
) -> list[Due]:
    """In the order in which it is to be deleted. To be asked once: statements are compiled at their first run."""
    return [
        *(_due(_table(since), since, kept, batch, also) for since, kept, also in _DUE),
        *_with_what_it_has(Organization, deleted_organizations_kept, batch),
        *_with_what_it_has(Account, deleted_accounts_kept, batch),
    ]


def _with_what_it_has(owner: type[Account] | type[Organization], kept: timedelta, batch: int) -> Iterator[Due]:
    """Its rows in other tables go first, children before parents, in batches too: ON DELETE CASCADE would delete all of them in
    one transaction."""
    table = metadata.tables[owner.__tablename__]
    for other in reversed(metadata.sorted_tables):
        for belongs in _paths(other, table):
            yield _due(other, owner.deleted_at, kept, batch, belongs)
    yield _due(table, owner.deleted_at, kept, batch, true())


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
        # The owner too, which somebody may be about to bring back.
        .with_for_update(of=list(dict.fromkeys((table, _table(since)))), skip_locked=True)
        .cte("due")
    )
    found = (column == due.c[column.name] for column in table.primary_key)
    return Due(table.name, delete(table).where(*found).execution_options(across_tenants=True), batch)


def _table(column: InstrumentedAttribute[Any]) -> Table:
    return metadata.tables[column.class_.__tablename__]


async def delete_due(db: Executor, due: Due) -> int:
    """How many it was. There may be more if it was a whole batch."""
    return await db.execute(due.delete)


# Released at the end of the transaction, and so by PostgreSQL itself if the process dies.
_LOCK = select(func.pg_try_advisory_xact_lock(literal_column("hashtextextended('accord clean-up', 0)")))


async def is_alone(tx: Executor) -> bool:
    """Whether this transaction is the only one that cleans up now. It stays so until it ends."""
    return await tx.fetch_one(_LOCK) is True
