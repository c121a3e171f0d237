"""TaskService: the tasks of the active organization, or the caller's own without one."""

from typing import ClassVar, Final
from uuid import UUID

from accord.errors.v1.errors_pb2 import Reason
from accord.tasks.v1 import tasks_pb2 as pb
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceServicer
from accord_api.dependencies import Dependencies
from accord_db.engine.database import Executor
from accord_db.engine.ids import uuid7
from accord_db.queries import tasks
from accord_db.queries.tasks import NewTask, TaskChanges, TaskFilters
from accord_db.schema import Task
from accord_rpc.call import Context
from accord_rpc.caller import caller
from accord_rpc.errors import RpcError, found, missing_or_stale
from accord_rpc.masks import MaskedChanges
from accord_rpc.messages import ColumnMapper, MessageMapper, etag_of

_to_task: Final = MessageMapper(pb.Task)
_new: Final = ColumnMapper(pb.CreateTaskRequest, NewTask)
_changes: Final = MaskedChanges(pb.UpdateTaskRequest, TaskChanges)
_filters: Final = ColumnMapper(pb.ListTasksRequest, TaskFilters)
_NOT_FOUND: Final = Reason.REASON_TASK_NOT_FOUND


class TaskService(TaskServiceServicer):
    resources: ClassVar = {pb.Task: Task}

    def __init__(self, dependencies: Dependencies) -> None:
        self._db = dependencies.database
        self._paginator = dependencies.paginator

    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.ListTasksResponse:
        owner_id, page, filters = caller().owner_id, self._paginator.page(request), _filters(request)
        rows = await tasks.list_tasks(self._db, owner_id=owner_id, page=page, **filters)
        response = pb.ListTasksResponse()
        response.next_page_token = page.fill(response.tasks, rows, _to_task.fill)
        if request.include_total_size:
            response.total_size = await tasks.count_tasks(self._db, owner_id=owner_id, **filters)
        return response

    async def GetTask(self, request: pb.GetTaskRequest, context: Context) -> pb.GetTaskResponse:
        task = await tasks.get_task(self._db, task_id=UUID(request.task_id), owner_id=caller().owner_id)
        return pb.GetTaskResponse(task=_to_task(found(task, _NOT_FOUND, task_id=request.task_id)))

    async def CreateTask(self, request: pb.CreateTaskRequest, context: Context) -> pb.CreateTaskResponse:
        me = caller()
        async with self._db.transaction() as tx:
            task = await tasks.insert_task(
                tx, task_id=uuid7(), created_by=me.account_id, organization_id=me.organization_id, **_new(request)
            )
        return pb.CreateTaskResponse(task=_to_task(task))

    async def UpdateTask(self, request: pb.UpdateTaskRequest, context: Context) -> pb.UpdateTaskResponse:
        owner_id, task_id = caller().owner_id, UUID(request.task.id)
        changes = _changes(request)
        async with self._db.transaction() as tx:
            task = await tasks.update_task(
                tx, task_id=task_id, owner_id=owner_id, changes=changes, etag=etag_of(request.task)
            )
            if task is None:
                raise await _missing_or_stale(tx, task_id, owner_id)
        return pb.UpdateTaskResponse(task=_to_task(task))

    async def DeleteTask(self, request: pb.DeleteTaskRequest, context: Context) -> pb.DeleteTaskResponse:
        owner_id, task_id = caller().owner_id, UUID(request.task_id)
        async with self._db.transaction() as tx:
            task = await tasks.delete_task(tx, task_id=task_id, owner_id=owner_id, etag=etag_of(request))
            if task is None:
                raise await _missing_or_stale(tx, task_id, owner_id)
        return pb.DeleteTaskResponse(task=_to_task(task))

    async def UndeleteTask(self, request: pb.UndeleteTaskRequest, context: Context) -> pb.UndeleteTaskResponse:
        owner_id, task_id = caller().owner_id, UUID(request.task_id)
        async with self._db.transaction() as tx:
            task = await tasks.undelete_task(tx, task_id=task_id, owner_id=owner_id)
            task = task or await tasks.get_task(tx, task_id=task_id, owner_id=owner_id)
        return pb.UndeleteTaskResponse(task=_to_task(found(task, _NOT_FOUND, task_id=request.task_id)))

    async def BatchGetTasks(self, request: pb.BatchGetTasksRequest, context: Context) -> pb.BatchGetTasksResponse:
        ids = [UUID(task_id) for task_id in request.task_ids]
        rows = await tasks.get_tasks(self._db, task_ids=ids, owner_id=caller().owner_id)
        by_id = {row.id: row for row in rows}
        response = pb.BatchGetTasksResponse()
        for task_id in ids:
            _to_task.fill(response.tasks.add(), found(by_id.get(task_id), _NOT_FOUND, task_id=str(task_id)))
        return response

    async def BatchCreateTasks(
        self, request: pb.BatchCreateTasksRequest, context: Context
    ) -> pb.BatchCreateTasksResponse:
        me, requests = caller(), enumerate(request.requests)
        new = [(uuid7(), _new(each, path=f"requests[{index}].")) for index, each in requests]
        async with self._db.transaction() as tx:
            rows = await tasks.insert_tasks(tx, new, created_by=me.account_id, organization_id=me.organization_id)
        return pb.BatchCreateTasksResponse(tasks=map(_to_task, rows))


async def _missing_or_stale(db: Executor, task_id: UUID, owner_id: UUID) -> RpcError:
    current = await tasks.get_task(db, task_id=task_id, owner_id=owner_id)
    return missing_or_stale(current, _NOT_FOUND, task_id=str(task_id))
