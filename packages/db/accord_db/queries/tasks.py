"""Questions about tasks. Whose they are is part of each: to anybody else a task is not there."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Literal, NamedTuple, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Select,
    String,
    Uuid,
    any_,
    bindparam,
    column,
    func,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from accord_db.engine.database import Executor
from accord_db.engine.expressions import like_containing
from accord_db.engine.keyset import Cursor
from accord_db.schema import Task

OrderBy = Literal["created_at", "updated_at", "title"]
_ORDERS = {"created_at": Task.created_at, "updated_at": Task.updated_at, "title": Task.title}


class NewTask(NamedTuple):
    id: UUID
    title: str
    description: str | None


class TaskChanges(TypedDict, total=False):
    """What is not there is left as it is."""

    title: str
    description: str | None
    completed: bool


class TaskFilters(TypedDict, total=False):
    """What is not there, or None, does not filter. The range of time is half-open."""

    completed: bool | None
    title_contains: str | None
    created_from: datetime | None
    created_before: datetime | None


_OWNED = Task.owner_id == bindparam("owner_id")
_THIS = (Task.id == bindparam("task_id"), _OWNED)
_LIVING = Task.deleted_at.is_(None)
_UNCHANGED = or_(bindparam("seen_etag", type_=Uuid).is_(None), Task.etag == bindparam("seen_etag"))

_INSERT = (
    insert(Task)
    .values(
        id=bindparam("id"),
        title=bindparam("title"),
        description=bindparam("description"),
        created_by=bindparam("created_by"),
        organization_id=bindparam("organization_id"),
    )
    .returning(Task)
)


async def insert_task(
    db: Executor,
    *,
    task_id: UUID,
    created_by: UUID,
    organization_id: UUID | None = None,
    title: str,
    description: str | None = None,
) -> Task:
    """Without an organization it is its maker's own."""
    task = await db.first(
        _INSERT,
        id=task_id,
        created_by=created_by,
        organization_id=organization_id,
        title=title,
        description=description,
    )
    assert task is not None
    return task


# One array a column: the statement is the same, and prepared once, however many tasks there are.
_new = (
    func.unnest(
        bindparam("ids", type_=ARRAY(Uuid)),
        bindparam("titles", type_=ARRAY(String)),
        bindparam("descriptions", type_=ARRAY(String)),
    )
    .table_valued(column("id", Uuid), column("title", String), column("description", String), name="new")
    .render_derived()
)
_INSERT_ALL = (
    insert(Task)
    .from_select(
        ["id", "title", "description", "created_by", "organization_id"],
        select(
            _new.c.id,
            _new.c.title,
            _new.c.description,
            bindparam("created_by", type_=Uuid),
            bindparam("organization_id", type_=Uuid),
        ),
    )
    .returning(Task)
)


async def insert_tasks(
    db: Executor, *, created_by: UUID, organization_id: UUID | None = None, tasks: Sequence[NewTask]
) -> list[Task]:
    """All or none, in one statement; answered in the order given."""
    rows = await db.all(
        _INSERT_ALL,
        created_by=created_by,
        organization_id=organization_id,
        ids=[task.id for task in tasks],
        titles=[task.title for task in tasks],
        descriptions=[task.description for task in tasks],
    )
    by_id = {row.id: row for row in rows}
    return [by_id[task.id] for task in tasks]


_GET_ANY = select(Task).where(*_THIS)
_GET = _GET_ANY.where(_LIVING)


async def get_task(db: Executor, *, task_id: UUID, owner_id: UUID, show_deleted: bool = False) -> Task | None:
    return await db.first(_GET_ANY if show_deleted else _GET, task_id=task_id, owner_id=owner_id)


_GET_ALL = select(Task).where(Task.id == any_(bindparam("task_ids", type_=ARRAY(Uuid))), _OWNED, _LIVING)


async def get_tasks(db: Executor, *, task_ids: Sequence[UUID], owner_id: UUID) -> list[Task]:
    """Those there are, in no order."""
    return await db.all(_GET_ALL, task_ids=list(task_ids), owner_id=owner_id)


_CONDITIONS: dict[str, ColumnElement[bool]] = {
    "completed": Task.completed == bindparam("completed"),
    "title_contains": Task.title.ilike(bindparam("title_contains")),
    "created_from": Task.created_at >= bindparam("created_from"),
    "created_before": Task.created_at < bindparam("created_before"),
}


def _values(filters: TaskFilters) -> dict[str, object]:
    values = {name: value for name, value in filters.items() if value is not None}
    if text := filters.get("title_contains"):
        values["title_contains"] = like_containing(text)
    return values


def _where(filters: Iterable[str], show_deleted: bool) -> list[ColumnElement[bool]]:
    living = [] if show_deleted else [_LIVING]
    return [_OWNED, *living, *(_CONDITIONS[name] for name in sorted(filters))]


# A page of unknown size is planned as a tenth of all rows, a better plan is then found in each call anew, and a page of
# 20 costs PostgreSQL 50 µs of CPU instead of 31. So the usual sizes, and the row that tells of a next page, are written
# into the statement; others stay a parameter, or anyone could have a thousand statements prepared.
_USUAL_LIMITS = frozenset({11, 21, 51, 101})


@cache
def _list(
    filters: frozenset[str],
    show_deleted: bool,
    order_by: OrderBy,
    descending: bool,
    later_page: bool,
    limit: int | None,
) -> Select[Task]:
    order = _ORDERS[order_by]
    here = tuple_(order, Task.id)
    place = tuple_(bindparam("after_value", type_=order.type), bindparam("after_id", type_=Uuid))
    statement = select(Task).where(*_where(filters, show_deleted))
    if later_page:
        statement = statement.where(here < place if descending else here > place)
    statement = statement.order_by(*(by.desc() if descending else by for by in (order, Task.id)))
    return statement.limit(bindparam("limit", type_=Integer) if limit is None else literal_column(str(limit), Integer))


async def list_tasks(
    db: Executor,
    *,
    owner_id: UUID,
    limit: int,
    order_by: OrderBy = "created_at",
    descending: bool = True,
    after: Cursor | None = None,
    show_deleted: bool = False,
    **filters: Unpack[TaskFilters],
) -> list[Task]:
    """A page, in a total order: tasks of equal value are ordered by id."""
    usual = limit if limit in _USUAL_LIMITS else None
    parameters = _values(filters)
    statement = _list(frozenset(parameters), show_deleted, order_by, descending, after is not None, usual)
    if after is not None:
        parameters |= {"after_value": after.value, "after_id": after.id}
    if usual is None:
        parameters["limit"] = limit
    return await db.all(statement, owner_id=owner_id, **parameters)


@cache
def _count(filters: frozenset[str], show_deleted: bool) -> Select[int]:
    return select(func.count()).select_from(Task).where(*_where(filters, show_deleted))


async def count_tasks(
    db: Executor, *, owner_id: UUID, show_deleted: bool = False, **filters: Unpack[TaskFilters]
) -> int:
    values = _values(filters)
    return await db.first(_count(frozenset(values), show_deleted), owner_id=owner_id, **values) or 0


@cache
def _update(changed: frozenset[str]) -> ReturningUpdate[Task]:
    statement = update(Task).where(*_THIS, _LIVING, _UNCHANGED)
    return statement.values(
        {name: bindparam(name, type_=Task.__table__.c[name].type) for name in sorted(changed)}
    ).returning(Task)


async def update_task(
    db: Executor, *, task_id: UUID, owner_id: UUID, changes: TaskChanges, etag: UUID | None = None
) -> Task | None:
    """The task as it is now. None if there is none, or if it is no longer the one that `etag` names."""
    statement = _update(frozenset(changes))
    return await db.first(statement, task_id=task_id, owner_id=owner_id, seen_etag=etag, **changes)


_DELETE = update(Task).where(*_THIS, _LIVING, _UNCHANGED).values(deleted_at=func.now()).returning(Task)


async def delete_task(db: Executor, *, task_id: UUID, owner_id: UUID, etag: UUID | None = None) -> Task | None:
    """The task, deleted softly. None if there is none, or if it is no longer the one that `etag` names."""
    return await db.first(_DELETE, task_id=task_id, owner_id=owner_id, seen_etag=etag)


_UNDELETE = update(Task).where(*_THIS, Task.deleted_at.is_not(None)).values(deleted_at=None).returning(Task)


async def undelete_task(db: Executor, *, task_id: UUID, owner_id: UUID) -> Task | None:
    """The task, living again. None if there is none, or if it is not deleted."""
    return await db.first(_UNDELETE, task_id=task_id, owner_id=owner_id)
