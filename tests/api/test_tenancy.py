"""A former member whose session still has the organization active cannot read or change the organization's rows.

A method without a permission does not check that the caller is a member of the active organization.
"""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import psycopg
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from protovalidate import Validator
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy import Table, select
from sqlalchemy.dialects import postgresql

from accord.policy.v1.policy_pb2 import (
    ACCESS_PUBLIC,
    ACCESS_SIGNED_IN,
    CREDENTIAL_SERVICE_TOKEN,
    CREDENTIAL_SESSION,
)
from accord_db.engine.keyset import Page
from accord_db.engine.row_level_security import is_tenant_bound, tenant_column
from accord_db.queries import tasks
from accord_db.schema import metadata
from accord_gateway.settings import Settings
from accord_rpc.caller import Caller, caller
from accord_rpc.contract import ContractMismatch, check, contract_services
from tests.api import probe as another_module
from tests.api.conftest import refusal
from tests.api.faces import GRPC, OVER_HTTP, Ends, Face
from tests.api.foreign import Make, MakeRow, Owner, is_of_person, makers, own_request
from tests.api.matrix import every_method, policy_of
from tests.api.probe import ProbeClient, owner_of
from tests.api.representatives import Faces, representatives
from tests.api.services import Service, new_service, token_for
from tests.api.test_contract import registered
from tests.api.world import World
from tests.conftest import execute
from tests.factories import Headers, Person, bearer
from tests.rows import of_tenant

pytestmark = pytest.mark.every_feature

OWNER_IDS: Final = ("owner_id", "active_organization_id")


# --- calls ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", OWNER_IDS)
@pytest.mark.parametrize("method", ["Unary", "ClientStream", "BothStream"])
async def test_owner_is_not_readable_in_a_method_without_a_permission(
    probe: ProbeClient, world: World, method: str, name: str, log: list[Any]
) -> None:
    world.activate(probe.person, acme := world.organization())
    world.join(probe.person, acme, "owner")
    assert (await refusal(probe.call(method, "owner", name))).reason == "INTERNAL"
    assert f"{name} is not available: the policy of this method has no permission" in str(log)
    assert await probe.call("Owned", "owner", name) == [str(acme)]


async def test_row_level_security_hides_rows_from_a_former_member_when_no_permission_was_checked(
    probe: ProbeClient, world: World
) -> None:
    acme = world.organization()
    former, member = await world.member(acme, "owner"), await world.member(acme, "owner")
    world.leave(former, acme)
    for title, who, organization in (("ours", member, acme), ("mine", former, None)):
        world.write(
            "INSERT INTO tasks (id, title, created_by, organization_id) VALUES (gen_random_uuid(), %s, %s, %s)",
            *(title, who.account_id, organization),
        )
    assert await probe.call("Unary", "tasks", headers=former.headers) == ["mine"]
    assert await probe.call("Unary", "tasks", headers=member.headers) == [""]
    assert await probe.call("Owned", "tasks", headers=member.headers) == ["ours"]
    assert (await refusal(probe.call("Owned", "tasks", headers=former.headers))).reason == "PERMISSION_DENIED"


# --- startup ----------------------------------------------------------------------------------------------------------
def _of_the_caller(me: Caller) -> UUID:
    return me.owner_id


@functools.cache
def _cached(me: Caller) -> UUID:
    return me.owner_id


def _decorated(handler: Any) -> Any:
    async def without_wraps(self: object, request: Any, context: Any) -> Any:
        return await handler(self, request, context)

    return without_wraps


def _reading(handler: Any) -> Any:
    @functools.wraps(handler)
    async def with_wraps(self: object, request: Any, context: Any) -> Any:
        return caller().owner_id, await handler(self, request, context)

    return with_wraps


class ReadsOwner:
    """Handlers that read the owner of rows, for a method whose policy has no permission."""

    @property
    def _mine(self) -> UUID:
        return caller().owner_id

    async def _list(self) -> list[UUID]:
        return [caller().active_organization_id]

    async def directly(self, request: Any, context: Any) -> Any:
        me = caller()
        return await tasks.list_tasks(cast(Any, None), owner_id=me.owner_id, page=Page(1))

    async def in_a_comprehension(self, request: Any, context: Any) -> Any:
        return [(lambda each: (each, caller().owner_id))(each) for each in (1, 2)]

    async def in_a_function(self, request: Any, context: Any) -> Any:
        return _of_the_caller(caller())

    async def in_a_method(self, request: Any, context: Any) -> Any:
        return await self._list()

    async def in_a_property(self, request: Any, context: Any) -> Any:
        return self._mine

    async def in_another_module(self, request: Any, context: Any) -> Any:
        return owner_of(caller())

    async def through_another_module(self, request: Any, context: Any) -> Any:
        return another_module.owner_of(caller())

    async def in_another_class(self, request: Any, context: Any) -> Any:
        return await ReadsOwner()._list()

    @_decorated
    async def behind_a_decorator(self, request: Any, context: Any) -> Any:
        return caller().owner_id

    @_reading
    async def in_a_decorator(self, request: Any, context: Any) -> Any:
        return request

    async def in_a_cached_function(self, request: Any, context: Any) -> Any:
        return _cached(caller())


class DoesNotReadOwner:
    async def sets_a_field_of_that_name(self, request: Any, context: Any) -> Any:
        response = Response()
        response.owner_id = caller().account_id
        return response

    async def names_a_parameter_of_that_name(self, request: Any, context: Any) -> Any:
        return await tasks.list_tasks(cast(Any, None), owner_id=caller().account_id, page=Page(1))


class Response:
    owner_id: UUID


WITHOUT, WITH = "accord.organizations.v1.OrganizationService.ListOrganizations", "accord.tasks.v1.TaskService.ListTasks"


def startup_violations(method: str, handler: Any) -> list[str]:
    recorder = registered()
    recorder.handlers["/" + "/".join(method.rsplit(".", 1))] = handler
    try:
        check(contract_services(), recorder, Validator())
    except ContractMismatch as mismatch:
        return str(mismatch).splitlines()[1:]
    return []


@pytest.mark.parametrize("name", [name for name in vars(ReadsOwner) if name[0] != "_"])
def test_startup_fails_if_a_handler_reads_the_owner_in_a_method_without_a_permission(name: str) -> None:
    (violation,) = startup_violations(WITHOUT, getattr(ReadsOwner(), name))
    assert violation.startswith(f"  - {WITHOUT}: its policy has no permission, but tests.api.")
    assert " reads owner_id. " in violation or " reads active_organization_id. " in violation
    assert startup_violations(WITH, getattr(ReadsOwner(), name)) == []


@pytest.mark.parametrize("name", [name for name in vars(DoesNotReadOwner) if name[0] != "_"])
def test_startup_succeeds_if_a_handler_uses_the_name_for_something_else(name: str) -> None:
    assert startup_violations(WITHOUT, getattr(DoesNotReadOwner(), name)) == []


# --- every method of the contract -------------------------------------------------------------------------------------
METHODS: Final = [method for method in every_method() if policy_of(method).access != ACCESS_PUBLIC]
READS: Final = [m for m in METHODS if m.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS]
OF_ORGANIZATIONS: Final = [make for make in makers() if not is_of_person(make)]


def is_child(make: Make) -> bool:
    """Whether the table is tenant-bound by its parent alone."""
    return isinstance(make, MakeRow) and tenant_column(make.table) is None


TENANT_BOUND: Final = [table for table in metadata.sorted_tables if is_tenant_bound(table)]


class CallResult(NamedTuple):
    outcome: str
    # The ids of the organization's rows in the response.
    shown: set[UUID]
    unchanged: bool


@dataclass(frozen=True)
class Acme:
    """An organization with a row in every table of organizations."""

    id: UUID
    world: World
    owner: Person
    ends: Ends
    service: Service
    connection: psycopg.Connection[dict[str, Any]]

    async def former_member(self) -> Person:
        """A former member who created rows of the organization."""
        former = await self.world.member(self.id, "owner")
        await self.fill(former)
        self.world.leave(former, self.id)
        return former

    async def fill(self, by: Person) -> set[UUID]:
        """Creates a row in every table. Returns the ids of the rows, without children, which are listed by their parent."""
        created = [(make, await make(self.world, Owner(by, self.id))) for make in OF_ORGANIZATIONS]
        return {id for make, id in created if id is not None and not is_child(make)}

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        return {table.name: self.connection.execute(_rows_of(table, self.id)).fetchall() for table in TENANT_BOUND}

    def ids(self) -> set[UUID]:
        """All ids in the organization's rows except its own."""
        values = [value for rows in self.rows().values() for row in rows for value in row.values()]
        return {value for value in values if isinstance(value, UUID)} - {self.id}

    async def call(self, face: Face, method: MethodDescriptor, headers: Headers) -> CallResult:
        """Calls the method with a request that names resources of the organization."""
        request = await own_request(self.world, Owner(self.owner, self.id), method)
        before = self.rows()
        outcome = await face.call(self.ends, method, request, headers)
        # The details of an error repeat ids of the request: tests/api/test_foreign_ids.py.
        shown = repr(outcome.messages)
        return CallResult(outcome.reason, {id for id in self.ids() if str(id) in shown}, self.rows() == before)


@functools.cache
def _rows_of(table: Table, tenant: UUID) -> bytes:
    query = select(table).where(of_tenant(table, tenant))
    ordered = query.order_by(*query.selected_columns)
    return str(ordered.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})).encode()  # type: ignore[no-untyped-call]


@pytest.fixture
def gateway_settings(settings_of_every_face: Settings) -> Settings:
    return settings_of_every_face


@pytest.fixture
async def acme(ends: Ends, world: World) -> AsyncIterator[Acme]:
    acme = world.organization()
    owner, service = await world.member(acme, "owner"), await new_service(world.database)
    with psycopg.connect(world.dsn, autocommit=True, row_factory=dict_row) as connection:
        yield Acme(acme, world, owner, ends, service, connection)


ByCredential = Callable[[Acme, Person], Awaitable[Headers]]


async def by_session(acme: Acme, person: Person) -> Headers:
    return person.headers


async def by_service(acme: Acme, person: Person) -> Headers:
    return bearer(await token_for(acme.ends.channel, acme.service, person))


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("second_check", ["with row-level security", "without row-level security"])
@pytest.mark.parametrize("credential", [by_session, by_service])
async def test_no_method_returns_or_changes_rows_of_an_organization_for_a_former_member(
    acme: Acme, dsn: str, credential: ByCredential, second_check: str
) -> None:
    if second_check.startswith("without"):
        disable_row_level_security(dsn)
    await assert_rows_are_safe(acme, GRPC, credential, METHODS)


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("face", OVER_HTTP, ids=str)
async def test_no_face_returns_or_changes_rows_of_an_organization_for_a_former_member(
    acme: Acme, dsn: str, face: Face, faces: Faces
) -> None:
    if face not in faces.every:
        pytest.skip("this server has no such face")
    disable_row_level_security(dsn)
    await assert_rows_are_safe(acme, face, by_session, METHODS if faces.all else representatives(READS + METHODS))


def disable_row_level_security(dsn: str) -> None:
    disable = sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY")
    execute(dsn, *(disable.format(sql.Identifier(table.name)) for table in TENANT_BOUND))


async def assert_rows_are_safe(
    acme: Acme, face: Face, credential: ByCredential, methods: Collection[MethodDescriptor]
) -> None:
    # Control: the same calls return the rows to a member.
    created = await acme.fill(acme.owner)
    shown = set[UUID]().union(*[(await acme.call(face, method, acme.owner.headers)).shown for method in READS])
    assert created
    assert created <= shown
    outcomes, violations = {}, []
    for method in methods:
        former = await acme.former_member()
        result = await acme.call(face, method, await credential(acme, former))
        outcomes[method.full_name] = result.outcome
        if result.shown - {former.account_id} or not result.unchanged:
            violations.append(f"{method.full_name} through {face}: {result}")
    assert violations == []
    accepting = {m.full_name for m in methods if _accepts_credential(m, credential)}
    assert accepting
    assert {
        name for name in accepting if outcomes[name] in ("PERMISSION_DENIED", "CREDENTIAL_INVALID", "RATE_LIMITED")
    } == set()


def _accepts_credential(method: MethodDescriptor, credential: object) -> bool:
    policy, service = policy_of(method), credential is by_service
    accepts = CREDENTIAL_SERVICE_TOKEN if service else CREDENTIAL_SESSION
    return (
        not policy.permission
        and policy.access == ACCESS_SIGNED_IN
        and accepts in (policy.credentials or [CREDENTIAL_SESSION])
    )
