import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from prometheus_client import REGISTRY

from accord.api_keys.v1.api_keys_pb2 import (
    ApiKey,
    CreateApiKeyRequest,
    CreateApiKeyResponse,
    GetApiKeyRequest,
    ListApiKeysRequest,
    RevokeApiKeyRequest,
    RotateApiKeyRequest,
    RotateApiKeyResponse,
    UpdateApiKeyRequest,
)
from accord.api_keys.v1.api_keys_pb2_grpc import ApiKeyServiceStub
from accord.policy.v1.policy_pb2 import (
    ACCESS_PUBLIC,
    CREDENTIAL_API_KEY,
    PERMISSION_API_KEYS_READ,
    PERMISSION_API_KEYS_WRITE,
    PERMISSION_MEMBERS_READ,
    PERMISSION_ORGANIZATION_DELETE,
    PERMISSION_TASKS_READ,
    PERMISSION_TASKS_WRITE,
    Permission,
)
from accord.tasks.v1.tasks_pb2 import CreateTaskRequest, GetTaskRequest, ListTasksRequest
from accord_auth.api_keys import new_api_key
from accord_auth.tokens import new_session_token, token_hash, well_formed
from accord_db.engine.ids import uuid7
from accord_db.queries import members, organizations, roles, sessions
from accord_rpc.contract import contract_services
from accord_rpc.messages import to_datetime, to_timestamp
from accord_rpc.permissions import names
from accord_rpc.policy import Method, read_methods
from tests.api.conftest import Client, outcome, refusal
from tests.conftest import change
from tests.factories import Headers, Key, Person, activate, api_key_of, bearer, joined, organization_of

if TYPE_CHECKING:
    from accord.api_keys.v1.api_keys_pb2_grpc import ApiKeyServiceAsyncStub

TASKS = (PERMISSION_TASKS_READ, PERMISSION_TASKS_WRITE)
Scopes = tuple[Permission.ValueType, ...]


@pytest.fixture
def keys(client: Client) -> "ApiKeyServiceAsyncStub":
    return ApiKeyServiceStub(client.channel)


@pytest.fixture
async def ours(client: Client, me: Person) -> UUID:
    """An organization owned by `me`, active in the session."""
    return await owned(client, me)


@pytest.fixture
async def key(client: Client, me: Person, ours: UUID) -> Key:
    """A key of `me` with all scopes that `me` holds."""
    return await api_key_of(client.database, me, ours)


async def owned(client: Client, person: Person) -> UUID:
    organization_id = await organization_of(client.database, person)
    await activate(client.database, person, organization_id)
    return organization_id


async def member(client: Client, organization_id: UUID, role: str | None, *permissions: Permission.ValueType) -> Person:
    """Another member with the organization active. `permissions` are granted by a custom role."""
    person = await client.new_user()
    await joined(client.database, organization_id, person, role)
    await activate(client.database, person, organization_id)
    if permissions:
        await assign_role(client, organization_id, person, *permissions)
    return person


async def assign_role(
    client: Client, organization_id: UUID, person: Person, *permissions: Permission.ValueType
) -> None:
    role = await roles.insert_role(
        client.database,
        role_id=uuid7(),
        organization_id=organization_id,
        name=uuid4().hex,
        permissions=names(permissions),
    )
    await members.replace_member_roles(
        client.database, organization_id=organization_id, account_id=person.account_id, role_ids=[role.id]
    )


async def create(
    keys: "ApiKeyServiceAsyncStub", caller: Person, *scopes: Permission.ValueType, name: str = "CI", **more: object
) -> CreateApiKeyResponse:
    request = CreateApiKeyRequest(name=name, scopes=scopes, **more)  # type: ignore[arg-type]  # the other fields
    return await keys.CreateApiKey(request, metadata=caller.headers)


async def get(keys: "ApiKeyServiceAsyncStub", caller: Person, api_key_id: str | UUID) -> ApiKey:
    return (await keys.GetApiKey(GetApiKeyRequest(api_key_id=str(api_key_id)), metadata=caller.headers)).api_key


async def update(keys: "ApiKeyServiceAsyncStub", caller: Person, api_key: ApiKey, *paths: str) -> ApiKey:
    request = UpdateApiKeyRequest(api_key=api_key, update_mask=FieldMask(paths=paths))
    return (await keys.UpdateApiKey(request, metadata=caller.headers)).api_key


async def rotate(
    keys: "ApiKeyServiceAsyncStub", caller: Person, api_key: ApiKey, overlap: int = 0
) -> RotateApiKeyResponse:
    request = RotateApiKeyRequest(api_key_id=api_key.id, etag=api_key.etag, overlap=Duration(seconds=overlap))
    return await keys.RotateApiKey(request, metadata=caller.headers)


async def revoke(keys: "ApiKeyServiceAsyncStub", caller: Person, api_key_id: str | UUID) -> ApiKey:
    return (await keys.RevokeApiKey(RevokeApiKeyRequest(api_key_id=str(api_key_id)), metadata=caller.headers)).api_key


async def names_of(keys: "ApiKeyServiceAsyncStub", caller: Person, *, show_ended: bool = False) -> list[str]:
    response = await keys.ListApiKeys(ListApiKeysRequest(show_ended=show_ended), metadata=caller.headers)
    return [api_key.name for api_key in response.api_keys]


async def calls(client: Client, headers: Headers) -> str:
    """The outcome of a read: OK or the reason."""
    return await outcome(client.tasks.ListTasks(ListTasksRequest(), metadata=headers))


def x_api_key(key: str) -> Headers:
    return (("x-api-key", key),)


async def test_created_key_is_returned_once_and_authenticates(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID
) -> None:
    created = await create(keys, me, *TASKS, name="Nightly import", calls_per_minute=600)
    api_key = created.api_key
    assert well_formed(created.key, "ack_")
    assert (api_key.prefix, len(api_key.prefix)) == (created.key[:12], 12)
    assert (api_key.name, list(api_key.scopes), api_key.calls_per_minute) == ("Nightly import", list(TASKS), 600)
    assert (api_key.organization_id, api_key.created_by) == (str(ours), str(me.account_id))
    assert not any(api_key.HasField(field) for field in ("expires_at", "last_used_at", "revoked_at"))
    assert await get(keys, me, api_key.id) == api_key
    assert await calls(client, x_api_key(created.key)) == "OK"
    assert (await get(keys, me, api_key.id)).HasField("last_used_at")


async def test_key_may_be_sent_in_either_header(client: Client, key: Key) -> None:
    assert await calls(client, x_api_key(key.key)) == "OK"
    assert await calls(client, bearer(key.key)) == "OK"
    assert await calls(client, (("authorization", f"bearer {key.key}"),)) == "OK"


async def test_session_token_and_api_key_are_not_interchangeable(client: Client, me: Person, key: Key) -> None:
    for headers in (me.headers, key.headers):
        assert await calls(client, headers) == "OK"  # caches both credentials
    assert await calls(client, x_api_key(me.token)) == "CREDENTIAL_INVALID"
    assert await calls(client, x_api_key(f"Bearer {key.key}")) == "CREDENTIAL_INVALID"
    assert await calls(client, bearer(key.key.replace("ack_", "acs_"))) == "CREDENTIAL_INVALID"


@pytest.mark.parametrize("second", [lambda me, key: me.headers, lambda me, key: x_api_key(key.key)])
async def test_two_credentials_on_one_call_are_refused(
    client: Client, me: Person, key: Key, second: Callable[[Person, Key], Headers]
) -> None:
    """Even if both are valid or identical."""
    assert await calls(client, x_api_key(key.key) + second(me, key)) == "CREDENTIAL_AMBIGUOUS"
    assert await calls(client, bearer(key.key) + second(me, key)) == "CREDENTIAL_AMBIGUOUS"


async def test_key_has_access_to_its_organization_only(client: Client, me: Person, key: Key) -> None:
    made = await client.tasks.CreateTask(CreateTaskRequest(title="By a key"), metadata=key.headers)
    assert made.task.created_by == str(me.account_id)
    here = await client.tasks.ListTasks(ListTasksRequest(), metadata=me.headers)
    assert [task.title for task in here.tasks] == ["By a key"]
    await activate(client.database, me, None)
    mine = await client.tasks.CreateTask(
        CreateTaskRequest(title="Mine alone"), metadata=(await other_session(client, me))
    )
    get = client.tasks.GetTask(GetTaskRequest(task_id=mine.task.id), metadata=key.headers)
    assert (await refusal(get)).reason == "TASK_NOT_FOUND"


async def other_session(client: Client, person: Person) -> Headers:
    """A session without an active organization."""
    token = new_session_token()
    await sessions.insert_session(
        client.database,
        session_id=uuid7(),
        account_id=person.account_id,
        token_hash=token_hash(token),
        lifetime=timedelta(hours=1),
    )
    return bearer(token)


async def test_key_without_the_scope_is_refused(client: Client, me: Person, ours: UUID) -> None:
    reader = await api_key_of(client.database, me, ours, [PERMISSION_TASKS_READ])
    assert await calls(client, reader.headers) == "OK"
    create_task = client.tasks.CreateTask(CreateTaskRequest(title="No"), metadata=reader.headers)
    refused = await refusal(create_task)
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    nothing = await api_key_of(client.database, me, ours, [])
    assert await calls(client, nothing.headers) == "PERMISSION_DENIED"


def methods_without_keys() -> Iterator[Method]:
    """Methods that require a credential and do not accept API keys."""
    for method in read_methods(contract_services())[0]:
        policy = method.policy
        if policy.access != ACCESS_PUBLIC and CREDENTIAL_API_KEY not in policy.credentials:
            yield method


async def test_key_never_reaches_a_method_that_does_not_accept_keys(client: Client, key: Key) -> None:
    """The refusal precedes validation: the empty message is invalid for most methods."""
    refused = {}
    for method in methods_without_keys():
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = client.channel.unary_unary(method.path)
        good, bad = call(b"", metadata=key.headers), call(b"", metadata=x_api_key(new_api_key()))
        refused[method.path] = ((await refusal(good)).reason, (await refusal(bad)).reason)
    assert len(refused) > 20
    assert set(refused.values()) == {("PERMISSION_DENIED", "CREDENTIAL_INVALID")}, refused


def test_services_that_manage_credentials_do_not_accept_keys() -> None:
    refusing = {method.path for method in methods_without_keys()}
    for service in ("api_keys.v1.ApiKeyService", "sessions.v1.SessionService", "admin.v1.AdminService"):
        assert {path for path in refusing if service in path}
        assert not [
            method.path
            for method in read_methods(contract_services())[0]
            if service in method.path and method.path not in refusing
        ]


def statements() -> float:
    """The number of statements executed by this process."""
    samples = (sample for metric in REGISTRY.collect() if metric.name == "db_queries" for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name == "db_queries_total")


async def test_malformed_key_is_refused_without_a_query(client: Client, key: Key) -> None:
    async def statements_of(headers: Headers) -> float:
        before = statements()
        assert await calls(client, headers) == "CREDENTIAL_INVALID"
        return statements() - before

    last = "A" if key.key[-1] != "A" else "B"
    for malformed in (key.key[:-1], key.key[:-1] + last, "ack_" + "A" * 48, "ack_", key.key.upper()):
        assert await statements_of(x_api_key(malformed)) == 0
        assert await statements_of(bearer(malformed)) == 0
    assert await statements_of(x_api_key(new_api_key())) == 1


@pytest.mark.parametrize("column", ["expires_at", "revoked_at"])
async def test_expired_or_revoked_key_is_refused(client: Client, key: Key, dsn: str, column: str) -> None:
    change(dsn, f"UPDATE api_keys SET {column} = now()")
    assert await calls(client, key.headers) == "CREDENTIAL_INVALID"


async def test_key_of_a_demoted_creator_loses_permissions_on_the_next_call(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID
) -> None:
    other = await member(client, ours, "member")
    key = await api_key_of(client.database, other, ours)
    assert await calls(client, key.headers) == "OK"
    async with client.database.transaction() as tx:
        await members.update_member_role(tx, organization_id=ours, account_id=other.account_id, role=None)
        await organizations.notify_organization_changed(tx, organization_id=ours)
    await eventually(client, key, "PERMISSION_DENIED")


async def eventually(client: Client, key: Key, reason: str) -> None:
    """Polls until the notification arrives, because the change was written without the gateway."""
    async with asyncio.timeout(5):
        while await calls(client, key.headers) != reason:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("scopes", [(PERMISSION_ORGANIZATION_DELETE,), (*TASKS, PERMISSION_ORGANIZATION_DELETE)])
async def test_member_cannot_create_a_key_with_scopes_they_do_not_hold(
    client: Client, keys: "ApiKeyServiceAsyncStub", ours: UUID, scopes: Scopes
) -> None:
    admin = await member(client, ours, "admin")
    assert await outcome(create(keys, admin, *scopes)) == "PERMISSION_DENIED"
    assert await names_of(keys, admin) == []
    assert await outcome(create(keys, admin, *TASKS)) == "OK"


async def test_member_cannot_update_a_key_whose_old_or_new_scopes_they_do_not_hold(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID
) -> None:
    admin = await member(client, ours, "admin")
    broad = (await create(keys, me, PERMISSION_ORGANIZATION_DELETE)).api_key
    narrow = (await create(keys, me, PERMISSION_TASKS_READ)).api_key
    for api_key, scopes in ((broad, TASKS), (narrow, (PERMISSION_ORGANIZATION_DELETE,))):
        changed = ApiKey(id=api_key.id, scopes=scopes)
        assert await outcome(update(keys, admin, changed, "scopes")) == "PERMISSION_DENIED"
        assert await get(keys, me, api_key.id) == api_key
    assert await outcome(update(keys, admin, ApiKey(id=broad.id, name="Mine now"), "name")) == "PERMISSION_DENIED"
    changed = await update(keys, admin, ApiKey(id=narrow.id, scopes=TASKS), "scopes")
    assert list(changed.scopes) == list(TASKS)


async def test_member_with_a_stale_cached_permission_cannot_create_a_key(
    client: Client, keys: "ApiKeyServiceAsyncStub", ours: UUID, dsn: str
) -> None:
    """The gateway still caches the permission."""
    admin = await client.new_user()
    await joined(client.database, ours, admin, "admin")
    # Written without a notification, because a recent notification prevents caching.
    change(dsn, "UPDATE sessions SET active_organization_id = %s WHERE id = %s", ours, admin.session_id)
    assert await names_of(keys, admin) == []
    change(dsn, "UPDATE members SET role = 'member' WHERE account_id = %s", admin.account_id)
    assert await names_of(keys, admin) == []
    assert await outcome(create(keys, admin, PERMISSION_TASKS_READ)) == "PERMISSION_DENIED"


async def test_reading_and_writing_keys_are_separate_permissions(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID, key: Key
) -> None:
    plain = await member(client, ours, "member")
    reader = await member(client, ours, None, PERMISSION_API_KEYS_READ)
    writer = await member(client, ours, None, PERMISSION_API_KEYS_WRITE, PERMISSION_TASKS_READ)
    assert await outcome(get(keys, plain, key.id)) == "PERMISSION_DENIED"
    assert await outcome(get(keys, reader, key.id)) == "OK"
    assert await outcome(create(keys, reader, PERMISSION_TASKS_READ)) == "PERMISSION_DENIED"
    assert await outcome(revoke(keys, reader, key.id)) == "PERMISSION_DENIED"
    assert await outcome(create(keys, writer, PERMISSION_TASKS_READ)) == "OK"
    assert await outcome(names_of(keys, writer)) == "PERMISSION_DENIED"


async def test_key_of_another_organization_is_not_found(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID
) -> None:
    stranger = await client.new_user()
    await owned(client, stranger)
    theirs = (await create(keys, stranger, *TASKS)).api_key
    absent = ApiKey(id=str(uuid4()), etag=theirs.etag)
    for api_key in (theirs, absent):
        changed = ApiKey(id=api_key.id, name="Mine now")
        attempts: tuple[Awaitable[object], ...] = (
            get(keys, me, api_key.id),
            update(keys, me, changed, "name"),
            rotate(keys, me, api_key),
            revoke(keys, me, api_key.id),
        )
        for attempt in attempts:
            refused = await refusal(attempt)
            assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")
            assert refused.metadata == {"api_key_id": api_key.id}
    assert await get(keys, stranger, theirs.id) == theirs
    assert await names_of(keys, me, show_ended=True) == []


async def test_update_changes_the_fields_of_the_mask(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID
) -> None:
    made = (await create(keys, me, *TASKS, calls_per_minute=10)).api_key
    expires_at = to_timestamp(datetime.now(UTC) + timedelta(days=1))
    desired = ApiKey(id=made.id, name="Renamed", scopes=[PERMISSION_MEMBERS_READ], expires_at=expires_at)
    changed = await update(keys, me, desired, "name", "scopes", "expires_at", "calls_per_minute")
    assert (changed.name, list(changed.scopes)) == ("Renamed", [PERMISSION_MEMBERS_READ])
    assert changed.expires_at == expires_at
    assert not changed.HasField("calls_per_minute")
    assert changed.etag != made.etag
    cleared = await update(keys, me, ApiKey(id=made.id), "expires_at", "scopes")
    assert not cleared.HasField("expires_at")
    assert list(cleared.scopes) == []
    assert cleared == await get(keys, me, made.id)


async def test_changed_scopes_take_effect_on_the_next_call(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, key: Key
) -> None:
    assert await calls(client, key.headers) == "OK"
    await update(keys, me, ApiKey(id=str(key.id), scopes=[PERMISSION_MEMBERS_READ]), "scopes")
    assert await calls(client, key.headers) == "PERMISSION_DENIED"


@pytest.mark.parametrize("path", ["organization_id", "created_by", "prefix", "revoked_at", "last_used_at", "key_hash"])
async def test_update_of_a_read_only_field_is_refused(
    keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID, path: str
) -> None:
    made = (await create(keys, me, *TASKS)).api_key
    assert (await refusal(update(keys, me, made, path))).reason == "INVALID_MESSAGE"


async def test_update_with_a_stale_etag_changes_nothing(keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID) -> None:
    made = (await create(keys, me, *TASKS)).api_key
    seen = ApiKey(id=made.id, etag=made.etag, name="Seen")
    await update(keys, me, seen, "name")
    refused = await refusal(update(keys, me, seen, "name"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


async def test_use_of_a_key_does_not_change_its_etag(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID
) -> None:
    created = await create(keys, me, *TASKS)
    assert await calls(client, x_api_key(created.key)) == "OK"
    assert await outcome(rotate(keys, me, created.api_key)) == "OK"


async def test_both_secrets_of_a_rotated_key_are_accepted_during_the_overlap(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID, dsn: str
) -> None:
    created = await create(keys, me, *TASKS)
    assert await calls(client, x_api_key(created.key)) == "OK"
    rotated = await rotate(keys, me, created.api_key, overlap=3600)
    assert rotated.key != created.key
    assert (rotated.api_key.id, rotated.api_key.prefix) == (created.api_key.id, rotated.key[:12])
    left = to_datetime(rotated.api_key.previous_expires_at) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert [await calls(client, x_api_key(each)) for each in (created.key, rotated.key)] == ["OK", "OK"]
    await revoke(keys, me, created.api_key.id)
    for each in (created.key, rotated.key):
        assert await calls(client, x_api_key(each)) == "CREDENTIAL_INVALID"


async def test_without_an_overlap_the_old_secret_is_invalid_at_once(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID
) -> None:
    created = await create(keys, me, *TASKS)
    assert await calls(client, x_api_key(created.key)) == "OK"
    rotated = await rotate(keys, me, created.api_key)
    assert not rotated.api_key.HasField("previous_expires_at")
    assert await calls(client, x_api_key(created.key)) == "CREDENTIAL_INVALID"
    assert await calls(client, x_api_key(rotated.key)) == "OK"


async def test_one_of_50_concurrent_rotations_succeeds(keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID) -> None:
    made = (await create(keys, me, *TASKS)).api_key
    outcomes = await asyncio.gather(*(outcome(rotate(keys, me, made, overlap=60)) for _ in range(50)))
    assert sorted(outcomes) == ["ETAG_MISMATCH"] * 49 + ["OK"]


async def test_rotation_needs_an_etag(keys: "ApiKeyServiceAsyncStub", me: Person, key: Key) -> None:
    refused = await refusal(rotate(keys, me, ApiKey(id=str(key.id))))
    assert refused.violations.keys() == {"etag"}


@pytest.mark.parametrize("seconds", [-1, 7 * 86_400 + 1])
async def test_overlap_is_at_most_one_week(
    keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID, seconds: int
) -> None:
    made = (await create(keys, me, *TASKS)).api_key
    assert (await refusal(rotate(keys, me, made, overlap=seconds))).violations.keys() == {"overlap"}


async def test_only_the_creator_of_a_key_can_rotate_it(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID
) -> None:
    """The new secret acts as the creator of the key. Other administrators may still revoke it."""
    admin = await member(client, ours, "admin")
    theirs = await create(keys, admin, *TASKS)
    assert await outcome(rotate(keys, me, theirs.api_key)) == "PERMISSION_DENIED"
    assert await calls(client, x_api_key(theirs.key)) == "OK"
    mine = await create(keys, me, PERMISSION_ORGANIZATION_DELETE, PERMISSION_TASKS_READ)
    assert (await revoke(keys, admin, mine.api_key.id)).HasField("revoked_at")
    assert await calls(client, x_api_key(mine.key)) == "CREDENTIAL_INVALID"


async def test_revoked_key_cannot_be_changed(keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID) -> None:
    made = (await create(keys, me, *TASKS)).api_key
    revoked = await revoke(keys, me, made.id)
    assert await revoke(keys, me, made.id) == revoked
    attempts = (update(keys, me, ApiKey(id=made.id, name="Again"), "name"), rotate(keys, me, revoked))
    for attempt in attempts:
        refused = await refusal(attempt)
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "API_KEY_ENDED")
    assert await get(keys, me, made.id) == revoked


async def test_expired_key_cannot_be_rotated_but_can_be_extended(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID, dsn: str
) -> None:
    created = await create(keys, me, *TASKS)
    change(dsn, "UPDATE api_keys SET expires_at = now()")
    assert await outcome(rotate(keys, me, created.api_key)) == "API_KEY_ENDED"
    assert await calls(client, x_api_key(created.key)) == "CREDENTIAL_INVALID"
    await update(keys, me, ApiKey(id=created.api_key.id), "expires_at")
    assert await calls(client, x_api_key(created.key)) == "OK"


async def test_expiry_of_a_new_key_must_be_in_the_future(
    keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID
) -> None:
    past = to_timestamp(datetime.now(UTC) - timedelta(seconds=1))
    assert (await refusal(create(keys, me, *TASKS, expires_at=past))).violations.keys() == {"expires_at"}
    future = to_timestamp(datetime.now(UTC) + timedelta(days=1))
    assert (await create(keys, me, *TASKS, expires_at=future)).api_key.expires_at == future


async def test_list_returns_keys_of_all_members_newest_first_and_ended_keys_with_show_ended(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID, dsn: str
) -> None:
    admin = await member(client, ours, "admin")
    for name in ("revoked", "expired"):
        await create(keys, me, *TASKS, name=name)
    change(dsn, "UPDATE api_keys SET revoked_at = now() WHERE name = 'revoked'")
    change(dsn, "UPDATE api_keys SET expires_at = now() WHERE name = 'expired'")
    await create(keys, admin, *TASKS, name="theirs")
    await create(keys, me, *TASKS, name="mine")
    assert await names_of(keys, me) == await names_of(keys, admin) == ["mine", "theirs"]
    assert await names_of(keys, me, show_ended=True) == ["mine", "theirs", "expired", "revoked"]


async def test_pages_contain_every_key_once(keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID) -> None:
    for n in range(5):
        await create(keys, me, *TASKS, name=str(n))
    listed, token = [], ""
    while True:
        request = ListApiKeysRequest(page_size=2, page_token=token)
        page = await keys.ListApiKeys(request, metadata=me.headers)
        listed += [api_key.name for api_key in page.api_keys]
        if not (token := page.next_page_token):
            break
    assert listed == ["4", "3", "2", "1", "0"]
    request = ListApiKeysRequest(page_size=2, page_token="nonsense")
    assert (await refusal(keys.ListApiKeys(request, metadata=me.headers))).reason == "PAGE_TOKEN_INVALID"


async def test_an_organization_has_at_most_1000_keys_that_are_not_revoked(
    keys: "ApiKeyServiceAsyncStub", me: Person, key: Key, dsn: str
) -> None:
    change(
        dsn,
        "INSERT INTO api_keys (id, organization_id, created_by, name, prefix, key_hash, scopes)"
        " SELECT gen_random_uuid(), organization_id, created_by, name, prefix, sha256(n::text::bytea), scopes"
        " FROM api_keys, generate_series(1, 999) AS n",
    )
    refused = await refusal(create(keys, me, *TASKS))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOO_MANY_API_KEYS")
    await revoke(keys, me, key.id)
    assert await outcome(create(keys, me, *TASKS)) == "OK"


async def test_rate_limit_of_a_key_is_shared_by_all_methods(client: Client, me: Person, ours: UUID) -> None:
    key = await api_key_of(client.database, me, ours, calls_per_minute=3)
    other = await api_key_of(client.database, me, ours)
    for _ in range(2):
        assert await calls(client, key.headers) == "OK"
    await client.tasks.CreateTask(CreateTaskRequest(title="The third"), metadata=key.headers)
    refused = await refusal(client.tasks.ListTasks(ListTasksRequest(), metadata=key.headers))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert refused.quota == [f"api_key:{key.id}"]
    assert refused.retry_after is not None
    assert 0 < refused.retry_after <= 60
    assert await calls(client, other.headers) == "OK"
    assert await calls(client, me.headers) == "OK"


async def test_changed_rate_limit_takes_effect_immediately(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID
) -> None:
    key = await api_key_of(client.database, me, ours, calls_per_minute=1)
    assert [await calls(client, key.headers) for _ in range(2)] == ["OK", "RATE_LIMITED"]
    await update(keys, me, ApiKey(id=str(key.id), calls_per_minute=3), "calls_per_minute")
    assert [await calls(client, key.headers) for _ in range(2)] == ["OK", "RATE_LIMITED"]
    await update(keys, me, ApiKey(id=str(key.id)), "calls_per_minute")
    assert await calls(client, key.headers) == "OK"


async def test_no_call_is_accepted_after_the_response_to_a_revocation(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, key: Key
) -> None:
    revoked, used = asyncio.Event(), asyncio.Event()
    outcomes: list[tuple[bool, str]] = []

    async def use() -> None:
        for _ in range(200):
            begun_after = revoked.is_set()
            outcomes.append((begun_after, await calls(client, key.headers)))
            used.set()
            if begun_after:
                return

    users = [asyncio.create_task(use()) for _ in range(50)]
    await used.wait()
    await revoke(keys, me, key.id)
    revoked.set()
    await asyncio.gather(*users)
    assert {result for begun_after, result in outcomes if begun_after} == {"CREDENTIAL_INVALID"}
    assert "OK" in {result for _, result in outcomes}


async def test_audit_events_record_key_changes_without_secrets(
    client: Client, keys: "ApiKeyServiceAsyncStub", me: Person, ours: UUID, dsn: str
) -> None:
    created = await create(keys, me, *TASKS)
    rotated = await rotate(keys, me, created.api_key, overlap=60)
    await update(keys, me, ApiKey(id=created.api_key.id, name="Renamed"), "name")
    await revoke(keys, me, created.api_key.id)
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT method, target, code, row_to_json(e)::text FROM audit_events e ORDER BY id"
        ).fetchall()
    assert [(method.rpartition("/")[2], target, code) for method, target, code, _ in rows] == [
        (name, created.api_key.id, "OK") for name in ("CreateApiKey", "RotateApiKey", "UpdateApiKey", "RevokeApiKey")
    ]
    for secret in (created.key, rotated.key):
        assert secret[12:] not in str(rows)
