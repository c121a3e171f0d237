"""ApiKeyService outside of organizations: keys that act as their creator on the creator's own data."""

import asyncio
from typing import Any
from uuid import UUID

import grpc
import pytest

from accord.accounts.v1 import accounts_pb2
from accord.api_keys.v1 import api_keys_pb2
from accord.api_keys.v1.api_keys_pb2 import ApiKey
from accord.members.v1 import members_pb2
from accord.organizations.v1 import organizations_pb2
from accord.policy.v1.policy_pb2 import (
    CREDENTIAL_API_KEY,
    PERMISSION_MEMBERS_READ,
    PERMISSION_ORGANIZATION_DELETE,
    PERMISSION_TASKS_READ,
    PERMISSION_TASKS_WRITE,
)
from accord.roles.v1 import roles_pb2
from accord.tasks.v1 import tasks_pb2
from accord_db.engine.database import Database
from accord_rpc.contract import contract_services
from accord_rpc.permissions import PERMISSION_NAMES
from accord_rpc.policy import read_methods
from tests.api.conftest import Calls, Client, outcome, refusal
from tests.api.world import World
from tests.conftest import change
from tests.factories import Key, Person, activate, api_key_of, bearer, organization_of

TASKS = (PERMISSION_TASKS_READ, PERMISSION_TASKS_WRITE)


@pytest.fixture
def keys(client: Client, me: Person) -> Calls:
    """Called by `me`, who has no active organization."""
    return client.calls(api_keys_pb2, me)


async def create(keys: Calls, scopes: Any = TASKS, **fields: Any) -> tuple[ApiKey, Key]:
    created = await keys.CreateApiKey(name="my program", scopes=scopes, **fields)
    return created.api_key, Key(UUID(created.api_key.id), created.key)


def calls(client: Client, contract: Any, key: Key) -> Calls:
    return Calls(client.channel, contract, key.headers)


async def titles(client: Client, key: Key) -> list[str]:
    return [task.title for task in (await calls(client, tasks_pb2, key).ListTasks()).tasks]


async def listed(keys: Calls, **request: Any) -> list[str]:
    return [key.id for key in (await keys.ListApiKeys(**request)).api_keys]


async def test_key_acts_as_its_creator_on_personal_tasks(client: Client, me: Person, keys: Calls) -> None:
    api_key, key = await create(keys)
    assert not api_key.HasField("organization_id")
    assert api_key.created_by == str(me.account_id)
    task = (await calls(client, tasks_pb2, key).CreateTask(title="by a program")).task
    assert (task.created_by, task.HasField("organization_id")) == (str(me.account_id), False)
    assert (await client.calls(tasks_pb2, me).GetTask(task_id=task.id)).task == task
    assert [task.title for task in (await calls(client, tasks_pb2, key).ListTasks()).tasks] == ["by a program"]


async def test_key_stays_personal_whichever_organization_its_creator_has_active(
    client: Client, me: Person, keys: Calls
) -> None:
    _, key = await create(keys)
    await client.calls(tasks_pb2, me).CreateTask(title="mine")
    await activate(client.database, me, await organization_of(client.database, me))
    async with asyncio.timeout(10):
        while [task.title for task in (await client.calls(tasks_pb2, me).ListTasks()).tasks]:
            await asyncio.sleep(0.01)
    await client.calls(tasks_pb2, me).CreateTask(title="of the organization")
    assert await titles(client, key) == ["mine"]


async def test_key_sees_no_rows_of_other_people(client: Client, keys: Calls) -> None:
    other = await client.new_user()
    theirs = (await client.calls(tasks_pb2, other).CreateTask(title="theirs")).task
    _, key = await create(keys)
    assert await titles(client, key) == []
    assert (await refusal(calls(client, tasks_pb2, key).GetTask(task_id=theirs.id))).reason == "TASK_NOT_FOUND"


async def test_key_needs_the_scope_of_a_personal_method(client: Client, keys: Calls) -> None:
    _, reader = await create(keys, [PERMISSION_TASKS_READ])
    _, nothing = await create(keys, [])
    assert await titles(client, reader) == []
    assert (await refusal(calls(client, tasks_pb2, reader).CreateTask(title="no"))).reason == "PERMISSION_DENIED"
    assert (await refusal(calls(client, tasks_pb2, nothing).ListTasks())).reason == "PERMISSION_DENIED"


async def test_key_with_every_scope_reaches_no_method_of_organizations(client: Client, me: Person, keys: Calls) -> None:
    """Not even of an organization that its creator owns and has active."""
    organization_id = await organization_of(client.database, me)
    _, key = await create(keys, [number for number in PERMISSION_NAMES if number < 1000])
    await activate(client.database, me, organization_id)
    for call in (
        calls(client, members_pb2, key).ListMembers(),
        calls(client, roles_pb2, key).ListRoles(),
        calls(client, organizations_pb2, key).DeleteOrganization(),
        calls(client, accounts_pb2, key).GetAccount(),
        calls(client, accounts_pb2, key).DeleteAccount(),
        calls(client, api_keys_pb2, key).CreateApiKey(name="another"),
        calls(client, api_keys_pb2, key).ListApiKeys(),
    ):
        assert (await refusal(call)).reason == "PERMISSION_DENIED"


async def test_key_calls_methods_without_a_permission_as_its_creator(client: Client, me: Person, keys: Calls) -> None:
    organization_id = await organization_of(client.database, me)
    _, key = await create(keys, [PERMISSION_TASKS_READ])
    found = (await calls(client, organizations_pb2, key).ListOrganizations()).organizations
    assert [organization.id for organization in found] == [str(organization_id)]
    mine = await calls(client, roles_pb2, key).GetMyPermissions()
    assert (mine.organization_id, list(mine.permissions)) == ("", [PERMISSION_TASKS_READ])


def test_methods_that_accept_personal_keys() -> None:
    """A change of this list is a change of what a leaked key can do."""
    accepting = {
        method.name
        for method in read_methods(contract_services())[0]
        if CREDENTIAL_API_KEY in method.policy.credentials and (method.policy.personal or not method.policy.permission)
    }
    tasks = {method.name for method in read_methods(contract_services())[0] if method.service.endswith("TaskService")}
    assert accepting == {"GetOrganization", "ListOrganizations", "GetMyPermissions", *tasks}


async def test_keys_of_a_person_and_of_an_organization_are_separate(client: Client, world: World, me: Person) -> None:
    keys = client.calls(api_keys_pb2, me)
    personal, _ = await create(keys)
    organization = world.organization()
    world.join(me, organization, "owner")
    own = world.key(organization, me, TASKS)
    other = await client.new_user()
    theirs = world.key(None, other, TASKS)
    assert await listed(keys) == [personal.id]
    for id_ in (own.id, theirs.id):
        assert (await refusal(keys.GetApiKey(api_key_id=str(id_)))).reason == "API_KEY_NOT_FOUND"
        assert (await refusal(keys.RevokeApiKey(api_key_id=str(id_)))).reason == "API_KEY_NOT_FOUND"
    owner = client.calls(api_keys_pb2, await world.member(organization, "owner"))
    assert await listed(owner) == [str(own.id)]
    assert (await refusal(owner.GetApiKey(api_key_id=personal.id))).reason == "API_KEY_NOT_FOUND"


async def test_update_rotate_and_revoke_apply_from_the_next_call(client: Client, keys: Calls) -> None:
    api_key, key = await create(keys)
    assert await titles(client, key) == []
    body = {"id": api_key.id, "scopes": [PERMISSION_TASKS_WRITE]}
    updated = (await keys.UpdateApiKey(api_key=body, update_mask={"paths": ["scopes"]})).api_key
    assert (await refusal(calls(client, tasks_pb2, key).ListTasks())).reason == "PERMISSION_DENIED"
    rotated = await keys.RotateApiKey(api_key_id=api_key.id, etag=updated.etag)
    new = Key(key.id, rotated.key)
    assert (await refusal(calls(client, tasks_pb2, key).CreateTask(title="old"))).reason == "CREDENTIAL_INVALID"
    assert await outcome(calls(client, tasks_pb2, new).CreateTask(title="new")) == "OK"
    await keys.RevokeApiKey(api_key_id=api_key.id)
    assert (await refusal(calls(client, tasks_pb2, new).CreateTask(title="no"))).reason == "CREDENTIAL_INVALID"


async def test_revocation_applies_in_every_gateway(client: Client, elsewhere: grpc.aio.Channel, keys: Calls) -> None:
    api_key, key = await create(keys)
    there = Calls(elsewhere, tasks_pb2, key.headers)
    assert await outcome(there.ListTasks()) == "OK"
    await keys.RevokeApiKey(api_key_id=api_key.id)
    async with asyncio.timeout(3):
        while await outcome(there.ListTasks()) != "CREDENTIAL_INVALID":
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "ended",
    [
        "UPDATE accounts SET banned_at = now()",
        "UPDATE accounts SET deleted_at = now()",
        "UPDATE api_keys SET expires_at = now()",
        "UPDATE api_keys SET revoked_at = now()",
    ],
)
async def test_key_of_a_banned_or_deleted_account_and_an_ended_key_are_refused(
    client: Client, keys: Calls, dsn: str, ended: str
) -> None:
    _, key = await create(keys)
    change(dsn, ended)
    assert (await refusal(calls(client, tasks_pb2, key).ListTasks())).reason == "CREDENTIAL_INVALID"


async def test_key_of_an_organization_does_not_become_personal(client: Client, me: Person, dsn: str) -> None:
    """When its creator leaves, or the organization is deleted, the key is refused instead."""
    organization_id = await organization_of(client.database, me)
    key = await api_key_of(client.database, me, organization_id)
    assert await titles(client, key) == []
    change(dsn, "DELETE FROM members WHERE account_id = %s", me.account_id)
    change(dsn, "UPDATE api_keys SET last_used_at = NULL")
    another = await api_key_of(client.database, me, organization_id)
    assert (await refusal(calls(client, tasks_pb2, another).ListTasks())).reason == "CREDENTIAL_INVALID"


async def test_scopes_of_organizations_can_be_named_and_grant_nothing(keys: Calls) -> None:
    api_key, _ = await create(keys, [PERMISSION_MEMBERS_READ, PERMISSION_ORGANIZATION_DELETE])
    assert len(api_key.scopes) == 2


async def test_impersonator_cannot_create_a_key(client: Client, keys: Calls, me: Person, dsn: str) -> None:
    root = await client.new_user()
    change(dsn, "UPDATE accounts SET role = 'administrator' WHERE id = %s", root.account_id)
    change(dsn, "UPDATE sessions SET impersonator_id = %s WHERE id = %s", root.account_id, me.session_id)
    assert (await refusal(keys.CreateApiKey(name="lasting"))).reason == "PERMISSION_DENIED"


async def test_of_concurrent_creations_at_the_limit_one_succeeds(
    keys: Calls, me: Person, database: Database, dsn: str
) -> None:
    key = await api_key_of(database, me, None)
    change(
        dsn,
        "INSERT INTO api_keys (id, created_by, name, prefix, key_hash, scopes)"
        " SELECT gen_random_uuid(), created_by, name, prefix, sha256(n::text::bytea), scopes"
        " FROM api_keys, generate_series(1, 998) AS n WHERE api_keys.id = %s",
        key.id,
    )
    outcomes = await asyncio.gather(*(outcome(keys.CreateApiKey(name="one more")) for _ in range(5)))
    assert sorted(outcomes) == ["OK", *["TOO_MANY_API_KEYS"] * 4]


async def test_creation_needs_a_recent_sign_in(keys: Calls, me: Person, dsn: str) -> None:
    change(dsn, "UPDATE sessions SET authenticated_at = now() - interval '11 minutes' WHERE id = %s", me.session_id)
    assert (await refusal(keys.CreateApiKey(name="stale"))).reason == "SIGN_IN_NOT_FRESH"


async def test_key_may_be_sent_in_either_header(client: Client, keys: Calls) -> None:
    _, key = await create(keys)
    both = [Calls(client.channel, tasks_pb2, headers) for headers in (key.headers, bearer(key.key))]
    assert [await outcome(each.ListTasks()) for each in both] == ["OK", "OK"]
