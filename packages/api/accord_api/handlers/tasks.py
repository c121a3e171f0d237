"""TaskService: the tasks of the active organization; without one, those of whoever calls."""

from typing import Final, cast
from uuid import UUID

from grpc.aio import ServicerContext

from accord.errors.v1.errors_pb2 import Reason
from accord.tasks.v1.tasks_pb2 import (
    BatchCreateTasksRequest,
    BatchCreateTasksResponse,
    BatchGetTasksRequest,
    BatchGetTasksResponse,
    CreateTaskRequest,
    CreateTaskResponse,
    DeleteTaskRequest,
    DeleteTaskResponse,
    GetTaskRequest,
    GetTaskResponse,
    ListTasksRequest,
    ListTasksResponse,
    Task,
    UndeleteTaskRequest,
    UndeleteTaskResponse,
    UpdateTaskRequest,
    UpdateTaskResponse,
)
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceServicer
from accord_db.engine.database import Database, Executor
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Cursor
from accord_db.queries import tasks
from accord_db.queries.tasks import NewTask, OrderBy, TaskChanges, TaskFilters
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError
from accord_rpc.masks import changes
from accord_rpc.messages import MessageMapper, to_datetime
from accord_rpc.pagination import DEFAULT_PAGE_SIZE, Paginator, fill_page

_to_task: Final = MessageMapper(Task)


class TaskService(TaskServiceServicer):
    def __init__(self, database: Database, pages: Paginator) -> None:
        self._db = database
        self._pages = pages

    async def ListTasks(
        self,
        request: ListTasksRequest,
        context: ServicerContext[ListTasksRequest, ListTasksResponse],
    ) -> ListTasksResponse:
        owner_id, filters = caller().owner_id, _filters(request)
        order_by, descending = _order(request)
        page_size = request.page_size or DEFAULT_PAGE_SIZE
        rows = await tasks.list_tasks(
            self._db,
            owner_id=owner_id,
            limit=page_size + 1,  # one more than asked tells whether there is a next page
            order_by=order_by,
            descending=descending,
            after=self._pages.place(request, request.page_token, times=order_by != "title"),
            show_deleted=request.show_deleted,
            **filters,
        )
        response = ListTasksResponse()
        last = fill_page(response.tasks, rows, page_size, _to_task.fill)
        if last is not None:
            response.next_page_token = self._pages.token(request, Cursor(getattr(last, order_by), last.id))
        if request.include_total_size:
            response.total_size = await tasks.count_tasks(
                self._db, owner_id=owner_id, show_deleted=request.show_deleted, **filters
            )
        return response

    async def GetTask(
        self,
        request: GetTaskRequest,
        context: ServicerContext[GetTaskRequest, GetTaskResponse],
    ) -> GetTaskResponse:
        task = await tasks.get_task(self._db, task_id=UUID(request.task_id), owner_id=caller().owner_id)
        if task is None:
            raise _not_found(request.task_id)
        return GetTaskResponse(task=_to_task(task))

    async def CreateTask(
        self,
        request: CreateTaskRequest,
        context: ServicerContext[CreateTaskRequest, CreateTaskResponse],
    ) -> CreateTaskResponse:
        me = caller()
        async with self._db.transaction() as tx:
            task = await tasks.insert_task(
                tx,
                task_id=uuid7(),
                created_by=me.account_id,
                organization_id=me.organization_id,
                title=request.title,
                description=_description(request),
            )
        return CreateTaskResponse(task=_to_task(task))

    async def UpdateTask(
        self,
        request: UpdateTaskRequest,
        context: ServicerContext[UpdateTaskRequest, UpdateTaskResponse],
    ) -> UpdateTaskResponse:
        owner_id, task_id = caller().owner_id, request.task.id
        async with self._db.transaction() as tx:
            task = await tasks.update_task(
                tx,
                task_id=UUID(task_id),
                owner_id=owner_id,
                changes=cast(TaskChanges, changes(request.task, request.update_mask)),
                etag=_etag(request.task.etag),
            )
            if task is None:
                raise await _why_not(tx, task_id, owner_id)
        return UpdateTaskResponse(task=_to_task(task))

    async def DeleteTask(
        self,
        request: DeleteTaskRequest,
        context: ServicerContext[DeleteTaskRequest, DeleteTaskResponse],
    ) -> DeleteTaskResponse:
        owner_id = caller().owner_id
        async with self._db.transaction() as tx:
            task = await tasks.delete_task(
                tx,
                task_id=UUID(request.task_id),
                owner_id=owner_id,
                etag=_etag(request.etag),
            )
            if task is None:
                raise await _why_not(tx, request.task_id, owner_id)
        return DeleteTaskResponse(task=_to_task(task))

    async def UndeleteTask(
        self,
        request: UndeleteTaskRequest,
        context: ServicerContext[UndeleteTaskRequest, UndeleteTaskResponse],
    ) -> UndeleteTaskResponse:
        owner_id, task_id = caller().owner_id, UUID(request.task_id)
        async with self._db.transaction() as tx:
            task = await tasks.undelete_task(tx, task_id=task_id, owner_id=owner_id)
            task = task or await tasks.get_task(tx, task_id=task_id, owner_id=owner_id)
        if task is None:
            raise _not_found(request.task_id)
        return UndeleteTaskResponse(task=_to_task(task))

    async def BatchGetTasks(
        self,
        request: BatchGetTasksRequest,
        context: ServicerContext[BatchGetTasksRequest, BatchGetTasksResponse],
    ) -> BatchGetTasksResponse:
        ids = [UUID(task_id) for task_id in request.task_ids]
        rows = await tasks.get_tasks(self._db, task_ids=ids, owner_id=caller().owner_id)
        found = {row.id: row for row in rows}
        response = BatchGetTasksResponse()
        for task_id, asked in zip(ids, request.task_ids, strict=True):
            if task_id not in found:
                raise _not_found(asked)
            _to_task.fill(response.tasks.add(), found[task_id])
        return response

    async def BatchCreateTasks(
        self,
        request: BatchCreateTasksRequest,
        context: ServicerContext[BatchCreateTasksRequest, BatchCreateTasksResponse],
    ) -> BatchCreateTasksResponse:
        me, new = caller(), [NewTask(uuid7(), each.title, _description(each)) for each in request.requests]
        async with self._db.transaction() as tx:
            rows = await tasks.insert_tasks(tx, created_by=me.account_id, organization_id=me.organization_id, tasks=new)
        return BatchCreateTasksResponse(tasks=map(_to_task, rows))


def _not_found(task_id: str) -> RpcError:
    return RpcError(Reason.REASON_TASK_NOT_FOUND, task_id=task_id)


async def _why_not(db: Executor, task_id: str, owner_id: UUID) -> RpcError:
    """Why a change found no row: the task is not there, or it is no longer the one that the etag names."""
    if await tasks.get_task(db, task_id=UUID(task_id), owner_id=owner_id) is None:
        return _not_found(task_id)
    return RpcError(Reason.REASON_ETAG_MISMATCH, task_id=task_id)


def _etag(etag: str) -> UUID | None:
    return UUID(etag) if etag else None


def _description(request: CreateTaskRequest) -> str | None:
    return request.description if request.HasField("description") else None


def _filters(request: ListTasksRequest) -> TaskFilters:
    return TaskFilters(
        completed=request.completed if request.HasField("completed") else None,
        title_contains=request.title_contains or None,
        created_from=to_datetime(request.created_from) if request.HasField("created_from") else None,
        created_before=to_datetime(request.created_before) if request.HasField("created_before") else None,
    )


def _order(request: ListTasksRequest) -> tuple[OrderBy, bool]:
    """The column, and whether descending. The contract's rules leave no other words than these."""
    column, _, direction = (request.order_by or "created_at desc").partition(" ")
    return cast(OrderBy, column), direction == "desc"
