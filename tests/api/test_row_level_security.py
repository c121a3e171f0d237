"""Row-level security: a query without an owner predicate returns no rows of another tenant."""

import asyncio

import pytest
from sqlalchemy import Uuid, bindparam, select

from accord.tasks.v1.tasks_pb2 import DeleteTaskRequest, GetTaskRequest, ListTasksRequest, Task, UpdateTaskRequest
from accord_db import schema
from accord_db.engine.dml import etag_matches
from accord_db.engine.keyset import Listing
from accord_db.queries import tasks
from tests.api.conftest import Client, refusal
from tests.api.probe import ProbeClient
from tests.api.test_tasks import create, get, list_, update
from tests.factories import Person, activate, organization_of


@pytest.fixture
def _no_owner_predicate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the queries of tasks by queries that accept the owner and ignore it."""
    any_owner = bindparam("owner_id", type_=Uuid).is_not(None)
    this = (schema.Task.id == bindparam("task_id"), any_owner)
    monkeypatch.setattr(tasks, "_OWNED", any_owner)
    monkeypatch.setattr(tasks, "_THIS", this)
    monkeypatch.setattr(tasks, "_GET", select(schema.Task).where(*this))
    monkeypatch.setattr(tasks, "_CURRENT", (*this, tasks._ALIVE, etag_matches(schema.Task)))
    original = tasks._LISTING
    listing = Listing[schema.Task](
        select(schema.Task).where(any_owner),
        id=original._id,
        orders=original._orders,
        filters=original._conditions,
        unless=original._unless,
    )
    monkeypatch.setattr(tasks, "_LISTING", listing)


@pytest.mark.usefixtures("_no_owner_predicate")
async def test_query_without_an_owner_predicate_returns_no_rows_of_another_owner(client: Client, me: Person) -> None:
    mine, theirs = await create(client, me, "mine"), await create(client, await client.new_user(), "theirs")
    assert await get(client, me, mine.id) == mine
    for call in (
        client.tasks.GetTask(GetTaskRequest(task_id=theirs.id), metadata=me.headers),
        client.tasks.UpdateTask(UpdateTaskRequest(task=Task(id=theirs.id, title="mine")), metadata=me.headers),
    ):
        assert (await refusal(call)).reason == "TASK_NOT_FOUND"
    listed = await list_(client, me, ListTasksRequest(include_total_size=True))
    assert (list(listed.tasks), listed.total_size) == ([mine], 1)
    assert (await update(client, me, Task(id=mine.id, title="still mine"))).title == "still mine"


@pytest.mark.usefixtures("_no_owner_predicate")
async def test_query_without_an_owner_predicate_returns_no_rows_of_another_organization(
    client: Client, me: Person
) -> None:
    other = await client.new_user()
    for person in (me, other):
        await activate(client.database, person, await organization_of(client.database, person))
    ours, theirs = await create(client, me, "ours"), await create(client, other, "theirs")
    assert list((await list_(client, me)).tasks) == [ours]
    refused = await refusal(client.tasks.GetTask(GetTaskRequest(task_id=theirs.id), metadata=me.headers))
    assert refused.reason == "TASK_NOT_FOUND"
    refused = await refusal(client.tasks.DeleteTask(DeleteTaskRequest(task_id=theirs.id), metadata=me.headers))
    assert refused.reason == "TASK_NOT_FOUND"


async def test_tenant_is_the_active_organization_when_its_permission_was_checked(probe: ProbeClient) -> None:
    person = probe.person
    assert await probe.call("Owned", "tenant") == [str(person.account_id)]
    organization_id = await organization_of(probe.database, person)
    await activate(probe.database, person, organization_id)
    async with asyncio.timeout(10):
        while await probe.call("Owned", "tenant") != [str(organization_id)]:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("method", ["Unary", "ClientStream", "BothStream"])
async def test_tenant_of_a_call_without_a_permission_is_the_account(probe: ProbeClient, method: str) -> None:
    await activate(probe.database, probe.person, await organization_of(probe.database, probe.person))
    assert await probe.call(method, "tenant") == [str(probe.person.account_id)]


async def test_public_call_has_no_tenant_and_queries_no_table_with_row_level_security(probe: ProbeClient) -> None:
    assert (await refusal(probe.call("Public", "tenant", headers=()))).reason == "INTERNAL"
    assert (await refusal(probe.call("Public", "tenant"))).reason == "INTERNAL"
