import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from accord.tasks.v1.tasks_pb2 import (
    BatchCreateTasksRequest,
    BatchGetTasksRequest,
    CreateTaskRequest,
    DeleteTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    Task,
    UndeleteTaskRequest,
    UpdateTaskRequest,
)
from accord_auth.tokens import new_session_token, token_hash
from accord_db.engine.ids import uuid7
from accord_db.queries import sessions
from tests.api.conftest import Client, refusal
from tests.factories import Person, activate, joined, organization_of


async def create(client: Client, who: Person, title: str = "a task", **fields: str) -> Task:
    return (await client.tasks.CreateTask(CreateTaskRequest(title=title, **fields), metadata=who.headers)).task


async def get(client: Client, who: Person, task_id: str) -> Task:
    return (await client.tasks.GetTask(GetTaskRequest(task_id=task_id), metadata=who.headers)).task


async def list_(client: Client, who: Person, request: ListTasksRequest | None = None) -> ListTasksResponse:
    return await client.tasks.ListTasks(request or ListTasksRequest(), metadata=who.headers)


async def delete(client: Client, who: Person, task: Task) -> Task:
    return (await client.tasks.DeleteTask(DeleteTaskRequest(task_id=task.id), metadata=who.headers)).task


def titles(response: ListTasksResponse) -> list[str]:
    return [task.title for task in response.tasks]


# --- create and get ---------------------------------------------------------------------------------------------------
async def test_create_task_returns_every_field(client: Client, me: Person) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    task = await create(client, me, "write tests", description="with words")
    assert UUID(task.id).version == 7
    assert (task.title, task.description, task.completed) == ("write tests", "with words", False)
    assert task.created_by == str(me.account_id)
    assert before < task.created_at.ToDatetime(UTC) == task.updated_at.ToDatetime(UTC)
    assert not task.HasField("deleted_at")
    assert task.etag
    assert await get(client, me, task.id) == task


async def test_missing_description_is_unset_and_an_empty_one_is_empty(client: Client, me: Person) -> None:
    assert not (await create(client, me)).HasField("description")
    empty = await create(client, me, description="")
    assert empty.HasField("description")
    assert empty.description == ""


async def test_text_is_returned_exactly_as_sent(client: Client, me: Person) -> None:
    title, description = " ünï©ödé 𝕋𝕒𝕤𝕜 %_\\ '\"; -- ", "tab\tand\nlines\r\n🧵"
    task = await create(client, me, title, description=description)
    assert (task.title, task.description) == (title, description)


@pytest.mark.parametrize("task_id", ["", "1", "10000000-0000-4000-8000-00000000712", "x" * 36, "%00"])
async def test_malformed_task_id_is_an_invalid_argument(client: Client, me: Person, task_id: str) -> None:
    refused = await refusal(client.tasks.GetTask(GetTaskRequest(task_id=task_id), metadata=me.headers))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    assert list(refused.violations) == ["task_id"]


async def test_task_of_another_owner_is_not_found_like_an_absent_one(client: Client, me: Person) -> None:
    theirs = await create(client, await client.new_user())
    for task_id in (theirs.id, str(uuid4())):
        for call in (
            client.tasks.GetTask(GetTaskRequest(task_id=task_id), metadata=me.headers),
            client.tasks.DeleteTask(DeleteTaskRequest(task_id=task_id), metadata=me.headers),
            client.tasks.DeleteTask(DeleteTaskRequest(task_id=task_id, etag=str(uuid4())), metadata=me.headers),
            client.tasks.UndeleteTask(UndeleteTaskRequest(task_id=task_id), metadata=me.headers),
            client.tasks.UpdateTask(UpdateTaskRequest(task=Task(id=task_id, title="mine")), metadata=me.headers),
            client.tasks.UpdateTask(
                UpdateTaskRequest(task=Task(id=task_id, title="mine", etag=str(uuid4()))), metadata=me.headers
            ),
            client.tasks.BatchGetTasks(BatchGetTasksRequest(task_ids=[task_id]), metadata=me.headers),
        ):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
            assert refused.metadata == {"task_id": task_id}
            assert refused.message == "The task does not exist. Check the task_id."


async def test_task_of_another_owner_is_neither_listed_nor_changed(client: Client, me: Person) -> None:
    other = await client.new_user()
    theirs = await create(client, other)
    await refusal(client.tasks.UpdateTask(UpdateTaskRequest(task=Task(id=theirs.id, title="x")), metadata=me.headers))
    await refusal(client.tasks.DeleteTask(DeleteTaskRequest(task_id=theirs.id), metadata=me.headers))
    assert titles(await list_(client, me, ListTasksRequest(show_deleted=True))) == []
    assert await get(client, other, theirs.id) == theirs


# --- tasks of organizations -------------------------------------------------------------------------------------------
async def owner_and_member(client: Client, role: str | None = "member") -> tuple[Person, Person]:
    """The owner and a member of an organization, which is active in the sessions of both."""
    owner, member = await client.new_user(), await client.new_user()
    organization_id = await organization_of(client.database, owner)
    await joined(client.database, organization_id, member, role)
    for person in (owner, member):
        await activate(client.database, person, organization_id)
    return owner, member


async def test_member_sees_and_changes_the_tasks_of_the_organization(client: Client) -> None:
    owner, member = await owner_and_member(client)
    task = await create(client, owner, "ours")
    assert task.organization_id
    assert await get(client, member, task.id) == task
    changed = await update(client, member, Task(id=task.id, title="still ours"))
    assert (changed.created_by, changed.organization_id) == (str(owner.account_id), task.organization_id)
    batch = BatchCreateTasksRequest(requests=[CreateTaskRequest(title="more")])
    await client.tasks.BatchCreateTasks(batch, metadata=member.headers)
    assert titles(await list_(client, owner)) == ["more", "still ours"]
    assert (await delete(client, member, task)).HasField("deleted_at")


async def test_member_without_the_permission_is_denied(client: Client) -> None:
    owner, member = await owner_and_member(client, role=None)
    task = await create(client, owner)
    for call in (
        client.tasks.GetTask(GetTaskRequest(task_id=task.id), metadata=member.headers),
        client.tasks.ListTasks(ListTasksRequest(), metadata=member.headers),
        client.tasks.CreateTask(CreateTaskRequest(title="mine"), metadata=member.headers),
        client.tasks.DeleteTask(DeleteTaskRequest(task_id=task.id), metadata=member.headers),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_session_without_an_active_organization_sees_only_the_user_s_tasks(client: Client, me: Person) -> None:
    mine = await create(client, me, "mine")
    assert not mine.HasField("organization_id")
    organization_id = await organization_of(client.database, me)
    within = await in_organization(client, me, organization_id)
    assert titles(await list_(client, within)) == []
    ours = await create(client, within, "ours")
    for who, theirs in ((me, ours), (within, mine)):
        refused = await refusal(client.tasks.GetTask(GetTaskRequest(task_id=theirs.id), metadata=who.headers))
        assert refused.reason == "TASK_NOT_FOUND"
    assert titles(await list_(client, me)) == ["mine"]


async def in_organization(client: Client, person: Person, organization_id: UUID) -> Person:
    """The same user with another session, in which the organization is active."""
    token = new_session_token()
    session = await sessions.insert_session(
        client.database,
        session_id=uuid7(),
        account_id=person.account_id,
        token_hash=token_hash(token),
        lifetime=timedelta(hours=1),
    )
    other = replace(person, session_id=session.id, token=token)
    await activate(client.database, other, organization_id)
    return other


async def test_former_member_is_denied_and_does_not_see_their_own_tasks(client: Client, me: Person) -> None:
    await create(client, me, "mine")
    organization_id = await organization_of(client.database, await client.new_user())
    former = await in_organization(client, me, organization_id)
    for call in (
        client.tasks.ListTasks(ListTasksRequest(), metadata=former.headers),
        client.tasks.CreateTask(CreateTaskRequest(title="a task"), metadata=former.headers),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert titles(await list_(client, me)) == ["mine"]


async def test_page_token_of_another_organization_is_refused(client: Client, me: Person) -> None:
    within = await in_organization(client, me, await organization_of(client.database, me))
    for number in range(2):
        await create(client, within, str(number))
    page = await list_(client, within, ListTasksRequest(page_size=1))
    request = ListTasksRequest(page_size=1, page_token=page.next_page_token)
    assert (await refusal(client.tasks.ListTasks(request, metadata=me.headers))).reason == "PAGE_TOKEN_INVALID"


# --- request ids ------------------------------------------------------------------------------------------------------
async def test_repeated_request_id_creates_one_task_and_returns_it_again(client: Client, me: Person) -> None:
    request_id = str(uuid4())
    first = await create(client, me, request_id=request_id)
    assert await create(client, me, request_id=request_id) == first
    assert len((await list_(client, me)).tasks) == 1


async def test_fifty_concurrent_calls_with_one_request_id_create_one_task(client: Client, me: Person) -> None:
    request_id = str(uuid4())
    created = await asyncio.gather(*(create(client, me, request_id=request_id) for _ in range(50)))
    assert len({task.id for task in created}) == 1
    assert len((await list_(client, me)).tasks) == 1


async def test_request_id_with_another_message_is_refused(client: Client, me: Person) -> None:
    request_id = str(uuid4())
    await create(client, me, "one", request_id=request_id)
    repeated = CreateTaskRequest(title="two", request_id=request_id)
    refused = await refusal(client.tasks.CreateTask(repeated, metadata=me.headers))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    batch = BatchCreateTasksRequest(requests=[CreateTaskRequest(title="one")], request_id=request_id)
    refused = await refusal(client.tasks.BatchCreateTasks(batch, metadata=me.headers))
    assert refused.reason == "REQUEST_ID_REUSED"
    assert titles(await list_(client, me)) == ["one"]


async def test_request_ids_of_two_callers_are_independent(client: Client, me: Person) -> None:
    request_id, other = str(uuid4()), await client.new_user()
    assert (await create(client, me, request_id=request_id)).id != (
        await create(client, other, request_id=request_id)
    ).id


async def test_request_id_after_24_hours_is_a_new_request(client: Client, me: Person, dsn: str) -> None:
    from psycopg import sql

    from tests.conftest import execute

    request_id = str(uuid4())
    first = await create(client, me, request_id=request_id)
    execute(dsn, sql.SQL("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'"))
    assert (await create(client, me, "another", request_id=request_id)).id != first.id


# --- update -----------------------------------------------------------------------------------------------------------
async def update(client: Client, who: Person, task: Task, *paths: str) -> Task:
    request = UpdateTaskRequest(task=task, update_mask=FieldMask(paths=paths))
    return (await client.tasks.UpdateTask(request, metadata=who.headers)).task


async def test_update_changes_only_the_fields_in_the_mask(client: Client, me: Person) -> None:
    task = await create(client, me, "before", description="stays")
    changed = await update(client, me, Task(id=task.id, title="after", completed=True), "title")
    assert (changed.title, changed.description, changed.completed) == ("after", "stays", False)
    assert changed.etag != task.etag
    assert changed.updated_at.ToDatetime() > task.updated_at.ToDatetime()
    assert changed.created_at == task.created_at


async def test_update_without_a_mask_changes_the_fields_that_are_set(client: Client, me: Person) -> None:
    task = await create(client, me, "before", description="stays")
    changed = await update(client, me, Task(id=task.id, completed=True))
    assert (changed.title, changed.description, changed.completed) == ("before", "stays", True)


async def test_update_clears_the_description_and_uncompletes_with_a_mask(client: Client, me: Person) -> None:
    task = await create(client, me, description="goes")
    await update(client, me, Task(id=task.id, completed=True))
    changed = await update(client, me, Task(id=task.id), "description", "completed")
    assert not changed.HasField("description")
    assert not changed.completed


@pytest.mark.parametrize(
    "path",
    [
        "id",
        "created_by",
        "organization_id",
        "created_at",
        "updated_at",
        "deleted_at",
        "etag",
        "nonsense",
        "title.x",
        "*",
        "",
        "Title",
    ],
)
async def test_mask_with_a_path_that_cannot_be_changed_is_refused(client: Client, me: Person, path: str) -> None:
    task = await create(client, me)
    request = UpdateTaskRequest(task=Task(id=task.id, title="x"), update_mask=FieldMask(paths=["title", path]))
    refused = await refusal(client.tasks.UpdateTask(request, metadata=me.headers))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    assert list(refused.violations) == ["update_mask"]
    assert await get(client, me, task.id) == task


async def test_output_only_fields_in_a_request_are_ignored(client: Client, me: Person) -> None:
    task = await create(client, me)
    forged = Task(id=task.id, title="new", created_by=str(uuid4()), created_at=Timestamp(seconds=1))
    forged.organization_id = str(uuid4())
    changed = await update(client, me, forged)
    assert not changed.HasField("organization_id")
    assert (changed.title, changed.created_by, changed.created_at) == ("new", task.created_by, task.created_at)


async def test_title_cannot_be_cleared(client: Client, me: Person) -> None:
    task = await create(client, me)
    request = UpdateTaskRequest(task=Task(id=task.id), update_mask=FieldMask(paths=["title"]))
    assert (await refusal(client.tasks.UpdateTask(request, metadata=me.headers))).reason == "INVALID_MESSAGE"


async def test_update_without_a_change_is_refused(client: Client, me: Person) -> None:
    task = await create(client, me)
    refused = await refusal(client.tasks.UpdateTask(UpdateTaskRequest(task=Task(id=task.id)), metadata=me.headers))
    assert list(refused.violations) == ["update_mask"]


async def test_stale_etag_is_refused_and_the_current_one_accepted(client: Client, me: Person) -> None:
    task = await create(client, me)
    changed = await update(client, me, Task(id=task.id, title="second", etag=task.etag))
    stale = UpdateTaskRequest(task=Task(id=task.id, title="third", etag=task.etag))
    refused = await refusal(client.tasks.UpdateTask(stale, metadata=me.headers))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    refused = await refusal(
        client.tasks.DeleteTask(DeleteTaskRequest(task_id=task.id, etag=task.etag), metadata=me.headers)
    )
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert (await get(client, me, task.id)).title == "second"
    request = DeleteTaskRequest(task_id=task.id, etag=changed.etag)
    assert (await client.tasks.DeleteTask(request, metadata=me.headers)).task.HasField("deleted_at")


async def test_one_of_fifty_concurrent_updates_with_one_etag_succeeds(client: Client, me: Person) -> None:
    task = await create(client, me)

    async def attempt(number: int) -> bool:
        try:
            await update(client, me, Task(id=task.id, title=f"number {number}", etag=task.etag))
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.ABORTED
            return False
        return True

    assert sum(await asyncio.gather(*map(attempt, range(50)))) == 1


# --- delete and undelete ----------------------------------------------------------------------------------------------
async def test_deleted_task_is_not_found_until_it_is_undeleted(client: Client, me: Person) -> None:
    task = await create(client, me)
    deleted = await delete(client, me, task)
    assert deleted.HasField("deleted_at")
    assert deleted.etag != task.etag
    assert (await refusal(client.tasks.GetTask(GetTaskRequest(task_id=task.id), metadata=me.headers))).reason == (
        "TASK_NOT_FOUND"
    )
    request = DeleteTaskRequest(task_id=task.id)
    assert (await refusal(client.tasks.DeleteTask(request, metadata=me.headers))).reason == "TASK_NOT_FOUND"
    assert titles(await list_(client, me)) == []
    assert titles(await list_(client, me, ListTasksRequest(show_deleted=True))) == [task.title]
    restored = await client.tasks.UndeleteTask(UndeleteTaskRequest(task_id=task.id), metadata=me.headers)
    assert not restored.task.HasField("deleted_at")
    assert await get(client, me, task.id) == restored.task


async def test_undelete_of_a_task_that_is_not_deleted_returns_it_unchanged(client: Client, me: Person) -> None:
    task = await create(client, me)
    response = await client.tasks.UndeleteTask(UndeleteTaskRequest(task_id=task.id), metadata=me.headers)
    assert response.task == task


# --- batches ----------------------------------------------------------------------------------------------------------
async def test_batch_create_and_get_keep_their_order(client: Client, me: Person) -> None:
    requests = [CreateTaskRequest(title=f"task {number}") for number in range(30)]
    created = await client.tasks.BatchCreateTasks(BatchCreateTasksRequest(requests=requests), metadata=me.headers)
    assert [task.title for task in created.tasks] == [request.title for request in requests]
    ids = [task.id for task in reversed(created.tasks)]
    found = await client.tasks.BatchGetTasks(BatchGetTasksRequest(task_ids=ids), metadata=me.headers)
    assert [task.id for task in found.tasks] == ids


async def test_batch_get_reports_the_first_missing_task(client: Client, me: Person) -> None:
    task, missing = await create(client, me), str(uuid4())
    request = BatchGetTasksRequest(task_ids=[task.id, missing, str(uuid4())])
    assert (await refusal(client.tasks.BatchGetTasks(request, metadata=me.headers))).metadata == {"task_id": missing}


async def test_batch_create_with_one_invalid_task_creates_none_and_reports_the_violation(
    client: Client, me: Person
) -> None:
    requests = [CreateTaskRequest(title="valid"), CreateTaskRequest(title="")]
    call = client.tasks.BatchCreateTasks(BatchCreateTasksRequest(requests=requests), metadata=me.headers)
    assert list((await refusal(call)).violations) == ["requests[1].title"]
    assert titles(await list_(client, me)) == []


async def test_repeated_request_id_creates_a_batch_once(client: Client, me: Person) -> None:
    batch = BatchCreateTasksRequest(requests=[CreateTaskRequest(title="a")] * 3, request_id=str(uuid4()))
    first = await client.tasks.BatchCreateTasks(batch, metadata=me.headers)
    assert await client.tasks.BatchCreateTasks(batch, metadata=me.headers) == first
    assert len((await list_(client, me)).tasks) == 3


# --- lists ------------------------------------------------------------------------------------------------------------
async def test_list_is_newest_first_by_default(client: Client, me: Person) -> None:
    for title in ("b", "c", "a"):
        await create(client, me, title)
    assert titles(await list_(client, me)) == ["a", "c", "b"]
    assert titles(await list_(client, me, ListTasksRequest(order_by="created_at"))) == ["b", "c", "a"]
    assert titles(await list_(client, me, ListTasksRequest(order_by="title"))) == ["a", "b", "c"]
    assert titles(await list_(client, me, ListTasksRequest(order_by="title desc"))) == ["c", "b", "a"]


async def test_list_filters_by_completed_title_and_half_open_time(client: Client, me: Person) -> None:
    first, second = await create(client, me, "100% sure"), await create(client, me, "100 percent")
    await update(client, me, Task(id=first.id, completed=True))
    assert titles(await list_(client, me, ListTasksRequest(completed=True))) == ["100% sure"]
    assert titles(await list_(client, me, ListTasksRequest(completed=False))) == ["100 percent"]
    assert titles(await list_(client, me, ListTasksRequest(title_contains="0% S"))) == ["100% sure"]
    assert titles(await list_(client, me, ListTasksRequest(title_contains="_"))) == []
    until = ListTasksRequest(created_from=first.created_at, created_before=second.created_at)
    assert titles(await list_(client, me, until)) == ["100% sure"]


async def test_total_size_is_returned_only_on_request(client: Client, me: Person) -> None:
    for _ in range(3):
        await create(client, me)
    assert not (await list_(client, me, ListTasksRequest(page_size=1))).HasField("total_size")
    assert (await list_(client, me, ListTasksRequest(page_size=1, include_total_size=True))).total_size == 3


@pytest.mark.parametrize(
    "order_by", ["", "created_at", "created_at desc", "updated_at", "updated_at desc", "title", "title desc"]
)
async def test_pages_hold_every_task_once_in_order(client: Client, me: Person, order_by: str) -> None:
    requests = [CreateTaskRequest(title=f"same {number % 3}") for number in range(11)]
    await client.tasks.BatchCreateTasks(BatchCreateTasksRequest(requests=requests), metadata=me.headers)
    whole = [task.id for task in (await list_(client, me, ListTasksRequest(order_by=order_by))).tasks]
    paged, token = [], ""
    while True:
        page = await list_(client, me, ListTasksRequest(order_by=order_by, page_size=3, page_token=token))
        paged += [task.id for task in page.tasks]
        token = page.next_page_token
        if not token:
            break
    assert paged == whole
    assert len(set(whole)) == 11


async def test_pages_and_batches_of_the_longest_tasks_fit_in_the_message_limit_of_clients(
    client: Client, me: Person
) -> None:
    """Clients refuse messages of more than 4 MiB by default."""
    longest = CreateTaskRequest(title="𝕏" * 256, description="𝕏" * 1000)
    ids = []
    for _ in range(2):
        batch = BatchCreateTasksRequest(requests=[longest] * 500)
        created = await client.tasks.BatchCreateTasks(batch, metadata=me.headers)
        ids += [task.id for task in created.tasks]
        await client.tasks.BatchGetTasks(BatchGetTasksRequest(task_ids=ids[-500:]), metadata=me.headers)
    first = await list_(client, me, ListTasksRequest(page_size=1000))
    assert first.next_page_token
    rest = await list_(client, me, ListTasksRequest(page_size=1000, page_token=first.next_page_token))
    assert not rest.next_page_token
    assert sorted(task.id for page in (first, rest) for task in page.tasks) == sorted(ids)


async def test_page_token_is_refused_if_altered_or_used_for_another_list(client: Client, me: Person) -> None:
    other = await client.new_user()
    for who in (me, me, other, other):
        await create(client, who)
    token = (await list_(client, me, ListTasksRequest(page_size=1))).next_page_token
    assert token
    attempts = [
        (me, ListTasksRequest(page_token=token[:-1] + ("A" if token[-1] != "A" else "B"))),
        (me, ListTasksRequest(page_token="A" + token[1:] if token[0] != "A" else "B" + token[1:])),
        (me, ListTasksRequest(page_token=token[:10])),
        (me, ListTasksRequest(page_token="nonsense")),
        (me, ListTasksRequest(page_token="ünïcödé")),
        (me, ListTasksRequest(page_token=token, completed=False)),
        (me, ListTasksRequest(page_token=token, title_contains="a")),
        (me, ListTasksRequest(page_token=token, order_by="title")),
        (me, ListTasksRequest(page_token=token, show_deleted=True)),
        (other, ListTasksRequest(page_token=token)),
    ]
    for who, request in attempts:
        refused = await refusal(client.tasks.ListTasks(request, metadata=who.headers))
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID"), request
    assert len((await list_(client, me, ListTasksRequest(page_token=token, page_size=10))).tasks) == 1


# --- limits -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1, 256])
async def test_title_at_its_length_limits_is_accepted(client: Client, me: Person, size: int) -> None:
    assert (await create(client, me, "ü" * size)).title == "ü" * size


async def test_description_of_1000_characters_is_accepted(client: Client, me: Person) -> None:
    assert (await create(client, me, description="𝕏" * 1000)).description == "𝕏" * 1000


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (CreateTaskRequest(), ["title"]),
        (CreateTaskRequest(title="x" * 257), ["title"]),
        (CreateTaskRequest(title="nul\0"), ["title"]),
        (CreateTaskRequest(title="line\nbreak"), ["title"]),
        (CreateTaskRequest(title="\x7f"), ["title"]),
        (CreateTaskRequest(title="x", description="y" * 1001), ["description"]),
        (CreateTaskRequest(title="x", description="\0"), ["description"]),
        (CreateTaskRequest(title="x", description="\x1b[31m"), ["description"]),
        (CreateTaskRequest(title="x", request_id="1"), ["request_id"]),
        (CreateTaskRequest(title="", description="\0", request_id="1"), ["description", "request_id", "title"]),
    ],
)
async def test_create_outside_the_limits_reports_every_violation(
    client: Client, me: Person, request_: CreateTaskRequest, fields: list[str]
) -> None:
    refused = await refusal(client.tasks.CreateTask(request_, metadata=me.headers))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    assert sorted(refused.violations) == fields


YEAR_300000 = Timestamp(seconds=9_404_999_212_800)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ListTasksRequest(page_size=-1), "page_size"),
        (ListTasksRequest(page_size=1001), "page_size"),
        (ListTasksRequest(page_size=2**31 - 1), "page_size"),
        (ListTasksRequest(page_token="x" * 2049), "page_token"),
        (ListTasksRequest(order_by="created_by"), "order_by"),
        (ListTasksRequest(order_by="title; drop table tasks"), "order_by"),
        (ListTasksRequest(title_contains="\0"), "title_contains"),
        (ListTasksRequest(created_from=YEAR_300000), "created_from"),
        (ListTasksRequest(created_before=YEAR_300000), "created_before"),
        (ListTasksRequest(created_before=Timestamp(seconds=-(2**63))), "created_before"),
    ],
)
async def test_list_outside_the_limits_reports_the_field(
    client: Client, me: Person, request_: ListTasksRequest, field: str
) -> None:
    refused = await refusal(client.tasks.ListTasks(request_, metadata=me.headers))
    assert (refused.code, list(refused.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_times_at_the_ends_of_the_calendar_are_accepted(client: Client, me: Person) -> None:
    await create(client, me)
    ends = ListTasksRequest(
        created_from=Timestamp(seconds=-62_135_596_800), created_before=Timestamp(seconds=253_402_300_799)
    )
    assert len((await list_(client, me, ends)).tasks) == 1
    odd = ListTasksRequest(created_from=Timestamp(nanos=-5), created_before=Timestamp(seconds=5, nanos=-7))
    assert titles(await list_(client, me, odd)) == []


async def test_batches_at_their_size_limits_are_accepted_and_larger_ones_refused(client: Client, me: Person) -> None:
    largest = BatchCreateTasksRequest(requests=[CreateTaskRequest(title="x")] * 500)
    created = await client.tasks.BatchCreateTasks(largest, metadata=me.headers)
    ids = [task.id for task in created.tasks]
    assert len((await client.tasks.BatchGetTasks(BatchGetTasksRequest(task_ids=ids), metadata=me.headers)).tasks) == 500
    more = BatchCreateTasksRequest(requests=[CreateTaskRequest(title="x")] * 501)
    assert list((await refusal(client.tasks.BatchCreateTasks(more, metadata=me.headers))).violations) == ["requests"]
    for bad in ([], [*ids, str(uuid4())], [ids[0], ids[0]]):
        call = client.tasks.BatchGetTasks(BatchGetTasksRequest(task_ids=bad), metadata=me.headers)
        assert list((await refusal(call)).violations) == ["task_ids"]
    nested = BatchCreateTasksRequest(requests=[CreateTaskRequest(title="x", request_id=str(uuid4()))])
    assert list((await refusal(client.tasks.BatchCreateTasks(nested, metadata=me.headers))).violations) == ["requests"]
    invalid = BatchCreateTasksRequest(requests=[CreateTaskRequest(title="\0")] * 500)
    refused = await refusal(client.tasks.BatchCreateTasks(invalid, metadata=me.headers))
    assert "more" in refused.violations[""]
