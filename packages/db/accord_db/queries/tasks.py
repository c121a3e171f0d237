"""Queries of tasks. The owner is part of each: the task of another owner is not found."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NotRequired, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, func, select, update

from accord_db.engine.database import Executor
from accord_db.engine.dml import etag_matches, insert_row, insert_rows, update_row
from accord_db.engine.keyset import Contains, Listing, Page
from accord_db.schema import Task


class NewTask(TypedDict):
    title: str
    description: NotRequired[str | None]


class TaskChanges(TypedDict, total=False):
    """The columns to change."""

    title: str
    description: str | None
    completed: bool


class TaskFilters(TypedDict, total=False):
    """Missing or None: no filter. The range of time is half-open. Deleted tasks are listed with `show_deleted` alone."""

    completed: bool | None
    title_contains: str | None
    created_from: datetime | None
    created_before: datetime | None
    show_deleted: bool


_OWNED: Final = Task.owner_id == bindparam("owner_id")
_THIS: Final = (Task.id == bindparam("task_id"), _OWNED)
_ALIVE: Final = Task.deleted_at.is_(None)
_CURRENT: Final = (*_THIS, _ALIVE, etag_matches(Task))


async def insert_task(
    db: Executor, *, task_id: UUID, created_by: UUID, organization_id: UUID | None = None, **new: Unpack[NewTask]
) -> Task:
    """Without an organization the task is its maker's own."""
    return await insert_row(db, Task, id=task_id, created_by=created_by, organization_id=organization_id, **new)


async def insert_tasks(
    db: Executor, tasks: Sequence[tuple[UUID, NewTask]], *, created_by: UUID, organization_id: UUID | None = None
) -> list[Task]:
    """All or none, in one statement. Returns them in the order given."""
    rows = [{"id": id, **new} for id, new in tasks]
    return await insert_rows(db, Task, rows, created_by=created_by, organization_id=organization_id)


_GET_ANY: Final = select(Task).where(*_THIS)
_GET: Final = _GET_ANY.where(_ALIVE)


async def get_task(db: Executor, *, task_id: UUID, owner_id: UUID, show_deleted: bool = False) -> Task | None:
    return await db.fetch_one(_GET_ANY if show_deleted else _GET, task_id=task_id, owner_id=owner_id)


_GET_MANY: Final = select(Task).where(Task.id == any_(bindparam("task_ids", type_=ARRAY(Uuid))), _OWNED, _ALIVE)


async def get_tasks(db: Executor, *, task_ids: Sequence[UUID], owner_id: UUID) -> list[Task]:
    """The tasks that exist, in no order."""
    return await db.fetch_all(_GET_MANY, task_ids=list(task_ids), owner_id=owner_id)


_LISTING: Final = Listing[Task](
    select(Task).where(_OWNED),
    id=Task.id,
    orders={"created_at": Task.created_at, "updated_at": Task.updated_at, "title": Task.title},
    filters={
        "completed": Task.completed == bindparam("completed"),
        "title_contains": Contains(Task.title),
        "created_from": Task.created_at >= bindparam("created_from"),
        "created_before": Task.created_at < bindparam("created_before"),
    },
    unless={"show_deleted": _ALIVE},
)


async def list_tasks(db: Executor, *, owner_id: UUID, page: Page, **filters: Unpack[TaskFilters]) -> list[Task]:
    return await _LISTING.fetch(db, page, filters=filters, owner_id=owner_id)


async def count_tasks(db: Executor, *, owner_id: UUID, **filters: Unpack[TaskFilters]) -> int:
    return await _LISTING.count(db, filters=filters, owner_id=owner_id)


async def update_task(
    db: Executor, *, task_id: UUID, owner_id: UUID, changes: TaskChanges, etag: UUID | None = None
) -> Task | None:
    """The changed task. None if it does not exist or has another etag."""
    return await update_row(db, Task, _CURRENT, changes, task_id=task_id, owner_id=owner_id, seen_etag=etag)


_DELETE: Final = update(Task).where(*_CURRENT).values(deleted_at=func.now()).returning(Task)


async def delete_task(db: Executor, *, task_id: UUID, owner_id: UUID, etag: UUID | None = None) -> Task | None:
    """The softly deleted task. None if it does not exist or has another etag."""
    return await db.fetch_one(_DELETE, task_id=task_id, owner_id=owner_id, seen_etag=etag)


_UNDELETE: Final = update(Task).where(*_THIS, Task.deleted_at.is_not(None)).values(deleted_at=None).returning(Task)


async def undelete_task(db: Executor, *, task_id: UUID, owner_id: UUID) -> Task | None:
    """The restored task. None if it does not exist or is not deleted."""
    return await db.fetch_one(_UNDELETE, task_id=task_id, owner_id=owner_id)
