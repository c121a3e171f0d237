import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import func, select, text

from accord.policy.v1.policy_pb2 import (
    PERMISSION_API_KEYS_WRITE,
    PERMISSION_MEMBERS_READ,
    PERMISSION_ORGANIZATION_DELETE,
    PERMISSION_ORGANIZATION_WRITE,
    PERMISSION_ROLES_READ,
    PERMISSION_ROLES_WRITE,
    PERMISSION_TASKS_READ,
    PERMISSION_TASKS_WRITE,
    PERMISSION_UNSPECIFIED,
)
from accord.roles.v1.roles_pb2 import (
    CreateRoleRequest,
    DeleteRoleRequest,
    GetMyPermissionsRequest,
    GetMyPermissionsResponse,
    GetRoleRequest,
    ListRolesRequest,
    Role,
    UpdateRoleRequest,
)
from accord.roles.v1.roles_pb2_grpc import RoleServiceStub
from accord_db.queries import members, organizations
from accord_db.queries import roles as queries
from accord_rpc.permissions import AnyPermission, held, of_accord, of_application
from tests.api.conftest import Client, outcome, refusal
from tests.api.services import new_service, token_for
from tests.auth.conftest import process
from tests.conftest import Connect
from tests.factories import Headers, Person, activate, api_key_of, bearer, joined, organization_of

if TYPE_CHECKING:
    from accord.roles.v1.roles_pb2_grpc import RoleServiceAsyncStub

READ = PERMISSION_ROLES_READ
WRITE = PERMISSION_ROLES_WRITE


@pytest.fixture
def roles(client: Client) -> "RoleServiceAsyncStub":
    return RoleServiceStub(client.channel)


@pytest.fixture
async def ours(client: Client, me: Person) -> UUID:
    """An organization owned by `me`, active in the session."""
    organization_id = await organization_of(client.database, me)
    await activate(client.database, me, organization_id)
    return organization_id


async def member(client: Client, organization_id: UUID, role: str | None = None, *own: Role) -> Person:
    """Another member with the organization active in the session."""
    person = await client.new_user()
    await joined(client.database, organization_id, person, role)
    await members.replace_member_roles(
        client.database,
        organization_id=organization_id,
        account_id=person.account_id,
        role_ids=[UUID(each.id) for each in own],
    )
    await activate(client.database, person, organization_id)
    return person


async def create(
    roles: "RoleServiceAsyncStub", caller: Person, *permissions: AnyPermission, name: str = "", request_id: str = ""
) -> Role:
    request = CreateRoleRequest(
        name=name or uuid4().hex,
        permissions=of_accord(permissions),
        app_permissions=of_application(permissions),
        request_id=request_id,
    )
    return (await roles.CreateRole(request, metadata=caller.headers)).role


async def get(roles: "RoleServiceAsyncStub", caller: Person, role_id: str) -> Role:
    return (await roles.GetRole(GetRoleRequest(role_id=role_id), metadata=caller.headers)).role


async def update(roles: "RoleServiceAsyncStub", caller: Person, role: Role, *paths: str) -> Role:
    request = UpdateRoleRequest(role=role, update_mask=FieldMask(paths=paths))
    return (await roles.UpdateRole(request, metadata=caller.headers)).role


async def delete(roles: "RoleServiceAsyncStub", caller: Person, role_id: str, etag: str = "") -> None:
    await roles.DeleteRole(DeleteRoleRequest(role_id=role_id, etag=etag), metadata=caller.headers)


def permissions_of(message: Role | GetMyPermissionsResponse) -> list[AnyPermission]:
    """Permissions of Accord and of the application."""
    return [*message.permissions, *message.app_permissions]


async def list_names(roles: "RoleServiceAsyncStub", caller: Person) -> list[str]:
    return [role.name for role in (await roles.ListRoles(ListRolesRequest(), metadata=caller.headers)).roles]


class Caller(Protocol):
    """A person, an API key or a service."""

    @property
    def headers(self) -> Headers: ...


@dataclass(frozen=True)
class Bearer:
    token: str

    @property
    def headers(self) -> Headers:
        return bearer(self.token)


async def my_permissions(roles: "RoleServiceAsyncStub", caller: Caller) -> GetMyPermissionsResponse:
    return await roles.GetMyPermissions(GetMyPermissionsRequest(), metadata=caller.headers)


# --- create, get, list, update, delete --------------------------------------------------------------------------------
async def test_get_role_returns_the_created_role(roles: "RoleServiceAsyncStub", me: Person, ours: UUID) -> None:
    role = await create(roles, me, PERMISSION_TASKS_WRITE, PERMISSION_MEMBERS_READ, name=" Ünï 𝕏 ")
    assert UUID(role.id).version == 7
    assert role.name == " Ünï 𝕏 "
    assert list(role.permissions) == [PERMISSION_MEMBERS_READ, PERMISSION_TASKS_WRITE]
    assert role.created_at == role.updated_at
    assert role.etag
    assert await get(roles, me, role.id) == role


async def test_role_can_have_no_permissions_or_all_of_them(
    roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    everything = sorted(held("owner"))
    assert list((await create(roles, me)).permissions) == []
    assert permissions_of(await create(roles, me, *everything)) == everything


async def test_list_roles_returns_pages_newest_first(roles: "RoleServiceAsyncStub", me: Person, ours: UUID) -> None:
    for name in ("a", "b", "c"):
        await create(roles, me, name=name)
    assert await list_names(roles, me) == ["c", "b", "a"]
    first = await roles.ListRoles(ListRolesRequest(page_size=2), metadata=me.headers)
    assert [role.name for role in first.roles] == ["c", "b"]
    last = await roles.ListRoles(ListRolesRequest(page_size=2, page_token=first.next_page_token), metadata=me.headers)
    assert ([role.name for role in last.roles], last.next_page_token) == (["a"], "")


async def test_a_page_token_of_another_organization_is_refused(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    await create(roles, me)
    await create(roles, me)
    token = (await roles.ListRoles(ListRolesRequest(page_size=1), metadata=me.headers)).next_page_token
    other = await member(client, await organization_of(client.database, me), "owner")
    call = roles.ListRoles(ListRolesRequest(page_token=token), metadata=other.headers)
    assert (await refusal(call)).reason == "PAGE_TOKEN_INVALID"


async def test_update_changes_only_the_fields_of_the_mask(
    roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    role = await create(roles, me, PERMISSION_TASKS_READ, name="before")
    renamed = await update(roles, me, Role(id=role.id, name="after", permissions=[PERMISSION_TASKS_WRITE]), "name")
    assert (renamed.name, list(renamed.permissions)) == ("after", [PERMISSION_TASKS_READ])
    assert renamed.etag != role.etag
    emptied = await update(roles, me, Role(id=role.id, name="not this"), "permissions")
    assert (emptied.name, list(emptied.permissions)) == ("after", [])
    both = await update(roles, me, Role(id=role.id, name="both", permissions=[PERMISSION_TASKS_WRITE]))
    assert (both.name, list(both.permissions)) == ("both", [PERMISSION_TASKS_WRITE])
    assert await get(roles, me, role.id) == both


@pytest.mark.parametrize("path", ["id", "etag", "created_at", "updated_at", "organization_id", "*", ""])
async def test_mask_cannot_name_a_read_only_field(
    roles: "RoleServiceAsyncStub", me: Person, ours: UUID, path: str
) -> None:
    role = await create(roles, me)
    refused = await refusal(update(roles, me, Role(id=role.id, name="x"), path))
    assert (refused.reason, list(refused.violations)) == ("INVALID_MESSAGE", ["update_mask"])


async def test_update_and_delete_with_a_stale_etag_change_nothing(
    roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    stale = await create(roles, me)
    role = await update(roles, me, Role(id=stale.id, name="newer"))
    for call in (
        update(roles, me, Role(id=role.id, name="stale", etag=stale.etag)),
        delete(roles, me, role.id, stale.etag),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
        assert refused.metadata == {"role_id": role.id}
    assert await get(roles, me, role.id) == role
    await delete(roles, me, role.id, role.etag)
    assert await list_names(roles, me) == []


async def test_role_name_is_unique_in_an_organization_and_case_insensitive(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    await create(roles, me, name="Support")
    other = await create(roles, me, name="other")
    for call in (
        create(roles, me, name="SUPPORT"),
        update(roles, me, Role(id=other.id, name="support")),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ROLE_NAME_TAKEN")
    await update(roles, me, Role(id=other.id, name="OTHER"))  # no conflict with its own name
    elsewhere = await member(client, await organization_of(client.database, me), "owner")
    assert (await create(roles, elsewhere, name="Support")).name == "Support"


async def test_one_of_fifty_concurrent_creations_with_the_same_name_succeeds(
    roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    outcomes = await asyncio.gather(*(outcome(create(roles, me, name="one")) for _ in range(50)))
    assert sorted(outcomes) == sorted(["OK"] + ["ROLE_NAME_TAKEN"] * 49)
    assert await list_names(roles, me) == ["one"]


async def test_repeated_request_id_creates_one_role(roles: "RoleServiceAsyncStub", me: Person, ours: UUID) -> None:
    request_id = str(uuid4())
    first = await create(roles, me, name="once", request_id=request_id)
    assert await create(roles, me, name="once", request_id=request_id) == first
    assert await list_names(roles, me) == ["once"]


async def test_organization_has_at_most_100_roles(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    for number in range(98):
        await queries.insert_role(
            client.database, role_id=uuid4(), organization_id=ours, name=str(number), permissions=[]
        )
    outcomes = await asyncio.gather(*(outcome(create(roles, me)) for _ in range(10)))
    assert sorted(outcomes) == sorted(["OK"] * 2 + ["TOO_MANY_ROLES"] * 8)
    assert (await refusal(create(roles, me))).code == grpc.StatusCode.FAILED_PRECONDITION


async def test_role_of_another_organization_is_not_found(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    other = await member(client, await organization_of(client.database, me), "owner")
    theirs = await create(roles, other, name="theirs")
    for role_id in (theirs.id, str(uuid4())):
        for call in (
            get(roles, me, role_id),
            update(roles, me, Role(id=role_id, name="x")),
            update(roles, me, Role(id=role_id, name="x", etag=str(uuid4()))),
            delete(roles, me, role_id),
            delete(roles, me, role_id, str(uuid4())),
        ):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ROLE_NOT_FOUND")
            assert refused.metadata == {"role_id": role_id}
    assert await get(roles, other, theirs.id) == theirs
    assert await list_names(roles, me) == []


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (CreateRoleRequest(), "name"),
        (CreateRoleRequest(name="x" * 101), "name"),
        (CreateRoleRequest(name="line\nbreak"), "name"),
        (CreateRoleRequest(name="x", permissions=[PERMISSION_TASKS_READ] * 2), "permissions"),
        (CreateRoleRequest(name="x", permissions=[PERMISSION_UNSPECIFIED]), "permissions[0]"),
        (CreateRoleRequest(name="x", permissions=[9999]), "permissions[0]"),  # type: ignore[list-item]  # unknown value
        (CreateRoleRequest(name="x", request_id="1"), "request_id"),
    ],
)
async def test_invalid_role_reports_the_field(
    roles: "RoleServiceAsyncStub", me: Person, ours: UUID, request_: CreateRoleRequest, field: str
) -> None:
    refused = await refusal(roles.CreateRole(request_, metadata=me.headers))
    assert (refused.reason, list(refused.violations)) == ("INVALID_MESSAGE", [field])


# --- privilege escalation -----------------------------------------------------------------------------------------------
async def test_new_role_has_only_permissions_that_its_creator_holds(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    admin = await member(client, ours, "admin")
    await create(roles, admin, *held("admin"))
    for more in held("owner") - held("admin"):
        refused = await refusal(create(roles, admin, PERMISSION_TASKS_READ, more, name="more"))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert "more" not in await list_names(roles, me)


async def test_member_cannot_add_permissions_they_do_not_hold(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    role = await create(roles, me, READ, WRITE)
    holder = await member(client, ours, None, role)
    extended = Role(id=role.id, permissions=[READ, WRITE, PERMISSION_API_KEYS_WRITE])
    assert await outcome(update(roles, holder, extended)) == "PERMISSION_DENIED"
    assert list((await my_permissions(roles, holder)).permissions) == [READ, WRITE]


async def test_member_cannot_change_or_delete_a_role_with_permissions_they_do_not_hold(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    role = await create(roles, me, PERMISSION_TASKS_READ, PERMISSION_ORGANIZATION_DELETE)
    admin = await member(client, ours, "admin")
    for call in (
        update(roles, admin, Role(id=role.id, permissions=[PERMISSION_TASKS_READ])),
        update(roles, admin, Role(id=role.id), "permissions"),
        update(roles, admin, Role(id=role.id, name="renamed")),
        delete(roles, admin, role.id),
    ):
        assert (await refusal(call)).reason == "PERMISSION_DENIED"
    assert await get(roles, me, role.id) == role


async def test_holder_cannot_restore_a_permission_they_removed_from_their_own_role(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    role = await create(roles, me, READ, WRITE, PERMISSION_TASKS_READ)
    holder = await member(client, ours, None, role)
    await update(roles, holder, Role(id=role.id, permissions=[READ, WRITE]))
    restored = Role(id=role.id, permissions=[READ, WRITE, PERMISSION_TASKS_READ])
    assert await outcome(update(roles, holder, restored)) == "PERMISSION_DENIED"
    await update(roles, me, restored)
    assert list((await my_permissions(roles, holder)).permissions) == [READ, WRITE, PERMISSION_TASKS_READ]


async def test_member_without_permission_cannot_create_change_or_delete_roles(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    role = await create(roles, me)
    plain = await member(client, ours, "member")
    for call in (create(roles, plain), update(roles, plain, Role(id=role.id, name="x")), delete(roles, plain, role.id)):
        assert (await refusal(call)).reason == "PERMISSION_DENIED"
    assert await get(roles, plain, role.id) == role
    stranger = await client.new_user()
    await activate(client.database, stranger, ours)
    assert await outcome(get(roles, stranger, role.id)) == "PERMISSION_DENIED"


async def test_caller_who_loses_the_permission_during_the_call_is_refused(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID, connect: Connect
) -> None:
    role, elsewhere = await create(roles, me, READ, WRITE), await connect()
    holder, harmless = await member(client, ours, None, role), await create(roles, me)
    async with elsewhere.transaction() as tx:
        await organizations.get_organization_locked(tx, organization_id=ours)
        calls = [
            asyncio.create_task(outcome(call))
            for call in (
                create(roles, holder),
                update(roles, holder, Role(id=harmless.id, name="renamed")),
                delete(roles, holder, harmless.id),
            )
        ]
        async with asyncio.timeout(10):
            while await waiting_calls(client) < len(calls):
                await asyncio.sleep(0.01)
        nothing = queries.RoleChanges(permissions=[])
        await queries.update_role(tx, role_id=UUID(role.id), organization_id=ours, changes=nothing)
    assert await asyncio.gather(*calls) == ["PERMISSION_DENIED"] * len(calls)
    assert await get(roles, me, harmless.id) == harmless


async def waiting_calls(client: Client) -> int:
    """The number of calls that wait for the lock of the organization."""
    blocked = text("cardinality(pg_blocking_pids(pid)) > 0 AND datname = current_database()")
    return (
        await client.database.fetch_one(select(func.count()).select_from(text("pg_stat_activity")).where(blocked)) or 0
    )


async def test_one_of_two_concurrent_mutual_revocations_succeeds(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    for _ in range(5):
        one, other = await create(roles, me, READ, WRITE), await create(roles, me, READ, WRITE)
        its, others = await member(client, ours, None, one), await member(client, ours, None, other)
        await asyncio.gather(my_permissions(roles, its), my_permissions(roles, others))  # caches the permission of both
        outcomes = await asyncio.gather(
            outcome(update(roles, its, Role(id=other.id), "permissions")),
            outcome(update(roles, others, Role(id=one.id), "permissions")),
        )
        assert sorted(outcomes) == ["OK", "PERMISSION_DENIED"]


# --- cache invalidation -------------------------------------------------------------------------------------------------
async def test_role_change_takes_effect_on_the_next_call(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    role = await create(roles, me)
    holder = await member(client, ours, None, role)
    for _ in range(3):
        assert await outcome(get(roles, holder, role.id)) == "PERMISSION_DENIED"
        await update(roles, me, Role(id=role.id, permissions=[READ]))
        assert await outcome(get(roles, holder, role.id)) == "OK"
        await update(roles, me, Role(id=role.id), "permissions")
    await update(roles, me, Role(id=role.id, permissions=[READ]))
    assert await outcome(get(roles, holder, role.id)) == "OK"
    await delete(roles, me, role.id)
    assert await outcome(get(roles, holder, role.id)) == "PERMISSION_DENIED"


async def test_role_change_takes_effect_in_another_process(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID, dsn: str
) -> None:
    role = await create(roles, me, READ)
    holder = await member(client, ours, None, role)
    async with process(dsn) as there:  # its cache entries outlive this test
        assert (found := await there.authenticate(holder.token))
        assert found.caller.permissions == {READ}
        assert await there.authenticate(holder.token) is found  # cached
        await update(roles, me, Role(id=role.id, permissions=[PERMISSION_TASKS_READ]))
        async with asyncio.timeout(5):
            while (found := await there.authenticate(holder.token)) and READ in found.caller.permissions:
                await asyncio.sleep(0.005)
        assert found
        assert found.caller.permissions == {PERMISSION_TASKS_READ}
        await delete(roles, me, role.id)
        async with asyncio.timeout(5):
            while (found := await there.authenticate(holder.token)) and found.caller.permissions:
                await asyncio.sleep(0.005)
        assert found


# --- GetMyPermissions ---------------------------------------------------------------------------------------------------
async def test_get_my_permissions_returns_the_union_of_all_roles_of_the_caller(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    one = await create(roles, me, PERMISSION_ORGANIZATION_WRITE, READ)
    two = await create(roles, me, PERMISSION_API_KEYS_WRITE, READ)
    for role, own in (("owner", ()), ("admin", ()), ("member", (one, two)), (None, (one, two)), (None, ())):
        person = await member(client, ours, role, *own)
        expected = held(role).union(*(each.permissions for each in own))
        response = await my_permissions(roles, person)
        assert response.organization_id == str(ours)
        assert permissions_of(response) == sorted(expected)


async def test_permissions_of_an_api_key_are_the_intersection_of_scopes_and_creator_permissions(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    role = await create(roles, me, READ, PERMISSION_TASKS_READ)
    creator = await member(client, ours, None, role)
    key = await api_key_of(client.database, creator, ours, [PERMISSION_TASKS_READ, PERMISSION_TASKS_WRITE])
    response = await my_permissions(roles, key)
    assert (response.organization_id, list(response.permissions)) == (str(ours), [PERMISSION_TASKS_READ])
    await update(roles, me, Role(id=role.id), "permissions")
    assert list((await my_permissions(roles, key)).permissions) == []


async def test_service_acting_for_a_user_has_the_permissions_of_the_user(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    role = await create(roles, me, READ, PERMISSION_TASKS_READ)
    person = await member(client, ours, None, role)
    acting = Bearer(await token_for(client.channel, await new_service(client.database), person))
    response = await my_permissions(roles, acting)
    assert (response.organization_id, list(response.permissions)) == (str(ours), [READ, PERMISSION_TASKS_READ])
    await update(roles, me, Role(id=role.id, permissions=[READ]))
    assert list((await my_permissions(roles, acting)).permissions) == [READ]


async def test_caller_without_an_active_organization_has_no_permissions(
    client: Client, roles: "RoleServiceAsyncStub", me: Person
) -> None:
    await organization_of(client.database, me)
    assert await my_permissions(roles, me) == GetMyPermissionsResponse()


async def test_non_member_has_no_permissions_in_the_active_organization(
    client: Client, roles: "RoleServiceAsyncStub", me: Person, ours: UUID
) -> None:
    stranger = await client.new_user()
    await activate(client.database, stranger, ours)
    assert list((await my_permissions(roles, stranger)).permissions) == []
