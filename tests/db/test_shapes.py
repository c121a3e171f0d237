"""Kinds of queries that a feature may need and tasks do not have, on tables that only this file has.

Insert with returning, batch insert, optional filters, escaped LIKE, keyset pages, count, half-open ranges of time, conditional
update and soft delete are in test_tasks.py; insert with ON CONFLICT DO NOTHING is in test_accounts.py.
"""

from collections.abc import Sequence
from typing import ClassVar
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import (
    ARRAY,
    ForeignKey,
    Index,
    MetaData,
    Uuid,
    and_,
    any_,
    bindparam,
    column,
    create_engine,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from accord_db.engine.database import Database
from accord_db.engine.errors import ForeignKeyMissing
from accord_db.engine.ids import uuid7
from accord_db.engine.model import NAMING_CONVENTION, Model, Shared
from accord_db.queries import tasks
from accord_db.queries.tasks import NewTask
from accord_db.schema import Account, Task
from tests.db.conftest import NewAccount

pytestmark = pytest.mark.every_feature


class Example(DeclarativeBase):
    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = Model.type_annotation_map


class Label(Shared, Example):
    __tablename__ = "labels"

    created_by: Mapped[UUID] = mapped_column(ForeignKey(Account.id, ondelete="CASCADE"))
    name: Mapped[str]
    colour: Mapped[str]


ALIVE = Label.deleted_at.is_(None)
Index("uq_labels_created_by_name_living", Label.created_by, func.lower(Label.name), unique=True, postgresql_where=ALIVE)


class TaskLabel(Example):
    """The labels of tasks. The primary key finds the labels of a task, the index the tasks of a label."""

    __tablename__ = "task_labels"

    task_id: Mapped[UUID] = mapped_column(ForeignKey(Task.id, ondelete="CASCADE"), primary_key=True)
    label_id: Mapped[UUID] = mapped_column(ForeignKey(Label.id, ondelete="CASCADE"), primary_key=True, index=True)


@pytest.fixture(autouse=True)
def _tables(dsn: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    Example.metadata.create_all(engine)
    engine.dispose()


# --- upsert -----------------------------------------------------------------------------------------------------------
_new = insert(Label).values(
    id=bindparam("id"), created_by=bindparam("created_by"), name=bindparam("name"), colour=bindparam("colour")
)
# ON CONFLICT names the partial index by its columns and condition. `onupdate` does not apply: set updated_at here.
_PUT = _new.on_conflict_do_update(
    index_elements=[Label.created_by, func.lower(Label.name)],
    index_where=ALIVE,
    set_={"colour": _new.excluded.colour, "updated_at": func.now()},
).returning(Label)


async def put_label(database: Database, created_by: UUID, name: str, colour: str = "red") -> Label:
    label = await database.fetch_one(_PUT, id=uuid7(), created_by=created_by, name=name, colour=colour)
    assert label is not None
    return label


async def test_upsert_inserts_a_row_and_then_updates_it(database: Database, account: Account) -> None:
    made = await put_label(database, account.id, "Home", "red")
    changed = await put_label(database, account.id, "HOME", "blue")
    assert (changed.id, changed.name, changed.colour) == (made.id, "Home", "blue")
    assert changed.created_at == made.created_at
    assert changed.updated_at > made.updated_at


async def test_upsert_does_not_change_deleted_rows_and_rows_of_other_owners(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    other = await put_label(database, (await new_account()).id, "Home")
    old = await put_label(database, account.id, "Home", "red")
    await database.execute(_DELETE_LABEL, label_id=old.id, created_by=account.id)
    new = await put_label(database, account.id, "Home", "blue")
    assert len({old.id, new.id, other.id}) == 3


# --- many-to-many -----------------------------------------------------------------------------------------------------
_ids = (
    func.unnest(bindparam("label_ids", type_=ARRAY(Uuid))).table_valued(column("id", Uuid), name="new").render_derived()
)
_ATTACH = (
    insert(TaskLabel)
    .from_select(["task_id", "label_id"], select(bindparam("task_id", type_=Uuid), _ids.c.id))
    .on_conflict_do_nothing()
)
_DETACH = delete(TaskLabel).where(
    TaskLabel.task_id == bindparam("task_id"), TaskLabel.label_id == any_(bindparam("label_ids", type_=ARRAY(Uuid)))
)
_TASKS_WITH_LABEL = (
    select(Task)
    .join(TaskLabel, TaskLabel.task_id == Task.id)
    .where(TaskLabel.label_id == bindparam("label_id"), Task.created_by == bindparam("created_by"))
    .order_by(Task.id)
)
_TASKS_WITH_ALL_LABELS = (
    select(Task)
    .join(TaskLabel, TaskLabel.task_id == Task.id)
    .where(TaskLabel.label_id == any_(bindparam("label_ids", type_=ARRAY(Uuid))))
    .group_by(Task.id)
    .having(func.count() == func.cardinality(bindparam("label_ids", type_=ARRAY(Uuid))))
)
# One query for a page of tasks, not one per task.
_LABELS_OF_TASKS = (
    select(TaskLabel.task_id, Label)
    .join(Label, Label.id == TaskLabel.label_id)
    .where(TaskLabel.task_id == any_(bindparam("task_ids", type_=ARRAY(Uuid))), ALIVE)
    .order_by(TaskLabel.task_id, Label.name)
)


async def make_tasks(database: Database, account: Account, *titles: str) -> list[Task]:
    new = [(uuid7(), NewTask(title=title)) for title in titles]
    return await tasks.insert_tasks(database, new, created_by=account.id)


async def attach(database: Database, task: Task, *labels: Label) -> int:
    return await database.execute(_ATTACH, task_id=task.id, label_ids=[label.id for label in labels])


async def labels_of(database: Database, rows: Sequence[Task]) -> list[tuple[UUID, str]]:
    found = await database.fetch_all(_LABELS_OF_TASKS, task_ids=[row.id for row in rows])
    return [(row.task_id, row.Label.name) for row in found]


async def test_many_to_many_rows_are_attached_once_and_found_from_both_sides(
    database: Database, account: Account
) -> None:
    mow, rake, rest = await make_tasks(database, account, "Mow", "Rake", "Rest")
    garden = await put_label(database, account.id, "Garden")
    urgent = await put_label(database, account.id, "Urgent")
    assert await attach(database, mow, garden, urgent) == 2
    assert await attach(database, mow, garden) == 0
    assert await attach(database, rake, garden) == 1

    with_garden = await database.fetch_all(_TASKS_WITH_LABEL, label_id=garden.id, created_by=account.id)
    assert with_garden == [mow, rake]
    assert await database.fetch_all(_TASKS_WITH_ALL_LABELS, label_ids=[garden.id, urgent.id]) == [mow]
    found = await labels_of(database, [mow, rake, rest])
    assert found == [(mow.id, "Garden"), (mow.id, "Urgent"), (rake.id, "Garden")]


async def test_many_to_many_rows_are_detached(database: Database, account: Account) -> None:
    [mow] = await make_tasks(database, account, "Mow")
    garden, urgent = [await put_label(database, account.id, name) for name in ("Garden", "Urgent")]
    await attach(database, mow, garden, urgent)
    assert await database.execute(_DETACH, task_id=mow.id, label_ids=[urgent.id]) == 1
    assert await labels_of(database, [mow]) == [(mow.id, "Garden")]


async def test_many_to_many_with_an_unknown_row_is_a_missing_foreign_key(database: Database, account: Account) -> None:
    [mow] = await make_tasks(database, account, "Mow")
    with pytest.raises(ForeignKeyMissing):
        await database.execute(_ATTACH, task_id=mow.id, label_ids=[uuid7()])


# --- left join ----------------------------------------------------------------------------------------------------------
# Conditions on the outer table belong into the join. In WHERE they would exclude labels without tasks.
_LABELS_WITH_COUNT = (
    select(Label, func.count(Task.id).label("open_tasks"))
    .outerjoin(TaskLabel, TaskLabel.label_id == Label.id)
    .outerjoin(Task, and_(Task.id == TaskLabel.task_id, Task.deleted_at.is_(None), Task.completed.is_(False)))
    .where(Label.created_by == bindparam("created_by"), ALIVE)
    .group_by(Label.id)
    .order_by(Label.name)
)
_TASKS_WITH_LABEL_OR_NONE = (
    select(Task, Label)
    .outerjoin(TaskLabel, TaskLabel.task_id == Task.id)
    .outerjoin(Label, Label.id == TaskLabel.label_id)
    .where(Task.created_by == bindparam("created_by"))
    .order_by(Task.title)
)


async def test_left_join_counts_missing_rows_as_zero(database: Database, account: Account) -> None:
    mow, rake, gone = await make_tasks(database, account, "Mow", "Rake", "Gone")
    garden, _ = [await put_label(database, account.id, name) for name in ("Garden", "Unused")]
    for task in (mow, rake, gone):
        await attach(database, task, garden)
    await tasks.delete_task(database, task_id=gone.id, owner_id=account.id)
    rows = await database.fetch_all(_LABELS_WITH_COUNT, created_by=account.id)
    assert [(row.Label.name, row.open_tasks) for row in rows] == [("Garden", 2), ("Unused", 0)]


async def test_left_join_without_a_match_is_none(database: Database, account: Account) -> None:
    mow, _ = await make_tasks(database, account, "Mow", "Rest")
    await attach(database, mow, await put_label(database, account.id, "Garden"))
    rows = await database.fetch_all(_TASKS_WITH_LABEL_OR_NONE, created_by=account.id)
    assert [(row.Task.title, row.Label and row.Label.name) for row in rows] == [("Mow", "Garden"), ("Rest", None)]


# --- conditional update, soft delete, cascade ---------------------------------------------------------------------------
_RENAME = (
    update(Label)
    .where(Label.id == bindparam("label_id"), Label.name == bindparam("seen_name"), ALIVE)
    .values(name=bindparam("new_name"))
    .returning(Label)
)
_DELETE_LABEL = (
    update(Label)
    .where(Label.id == bindparam("label_id"), Label.created_by == bindparam("created_by"), ALIVE)
    .values(deleted_at=func.now())
)
_DELETE_ACCOUNT = delete(Account).where(Account.id == bindparam("account_id"))
_COUNT_ATTACHED = select(func.count()).select_from(TaskLabel)


async def test_conditional_update_returns_the_row_or_none(database: Database, account: Account) -> None:
    label = await put_label(database, account.id, "Home")
    renamed = await database.fetch_one(_RENAME, label_id=label.id, seen_name="Home", new_name="House")
    assert renamed is not None
    assert renamed.name == "House"
    assert await database.fetch_one(_RENAME, label_id=label.id, seen_name="Home", new_name="Flat") is None


async def test_soft_delete_hides_the_row_and_keeps_rows_that_refer_to_it(database: Database, account: Account) -> None:
    [mow] = await make_tasks(database, account, "Mow")
    garden = await put_label(database, account.id, "Garden")
    await attach(database, mow, garden)
    assert await database.execute(_DELETE_LABEL, label_id=garden.id, created_by=account.id) == 1
    assert await database.execute(_DELETE_LABEL, label_id=garden.id, created_by=account.id) == 0
    assert await labels_of(database, [mow]) == []
    assert await database.fetch_one(_COUNT_ATTACHED) == 1


async def test_delete_cascades_to_rows_that_refer_to_it(
    database: Database, account: Account, new_account: NewAccount
) -> None:
    other = await new_account()
    for owner in (account, other):
        [task] = await make_tasks(database, owner, "Mow")
        await attach(database, task, await put_label(database, owner.id, "Garden"))
    await database.execute(_DELETE_ACCOUNT, account_id=account.id)
    assert await database.fetch_one(_COUNT_ATTACHED) == 1
    assert await database.fetch_all(select(Label.created_by)) == [other.id]
