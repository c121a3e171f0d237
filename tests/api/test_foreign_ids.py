"""The id of a resource of another owner gets the same response as an unknown id, through every face: code, message and details.

The ids are read from the descriptors of the contract. A new id field fails until `foreign.py` can create its resource.
"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from accord.policy.v1.policy_pb2 import ACCESS_ADMIN, ACCESS_PUBLIC
from accord_db.engine.ids import uuid7
from accord_db.engine.row_level_security import is_tenant_bound
from accord_db.schema import metadata
from accord_gateway.settings import Settings
from tests.api import requests
from tests.api.faces import Ends, Face, Outcome
from tests.api.foreign import Owner, Place, is_of_person, own_request, places, put
from tests.api.matrix import every_method, policy_of
from tests.api.representatives import Faces
from tests.api.requests import change, is_identifier, updated
from tests.api.routes import WHOLE, route
from tests.api.world import World
from tests.conftest import execute


def kind_of_place(place: Place) -> tuple[object, ...]:
    """What decides how a face reads the id."""
    found = route(place.method)
    assert found is not None
    return place.path in found.variables, found.verb, found.body == WHOLE, place.part is None, place.field.is_repeated


# An administrator has access to the resources of all owners.
PLACES: Final = [
    place for method in every_method() if policy_of(method).access != ACCESS_ADMIN for place in places(method)
]
# One place of each kind of place in a request of REST.
REPRESENTATIVES: Final = list({kind_of_place(place): place for place in reversed(PLACES)}.values())
IN_ORGANIZATION, ALONE, LEFT = "in an organization", "alone", "after leaving the active organization"
# A method with a permission refuses a former member whatever the id is: tests/api/test_matrix.py.
WITHOUT_PERMISSION: Final = [place for place in PLACES if not policy_of(place.method).permission]
CASES: Final = (
    [(place, IN_ORGANIZATION) for place in PLACES]
    + [(place, ALONE) for place in PLACES if place in WITHOUT_PERMISSION or policy_of(place.method).personal]
    + [(place, LEFT) for place in WITHOUT_PERMISSION]
)
# Tables that record calls, whatever ids the calls contain.
TRACES: Final = {"audit_events", "rate_limits", "idempotency_keys"}


@dataclass(frozen=True)
class Scene:
    """`me` owns the active organization, except if none is active or `me` has left it."""

    ends: Ends
    world: World
    me: Owner
    others: dict[str, Owner]


@pytest.fixture(autouse=True)
def row_level_security_is_disabled(dsn: str) -> None:
    """These tests cover the predicates of the queries. tests/db/test_row_level_security.py covers the second check."""
    tenant_bound = [name for name, table in metadata.tables.items() if is_tenant_bound(table)]
    assert "tasks" in tenant_bound
    disable = sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY")
    execute(dsn, *(disable.format(sql.Identifier(name)) for name in tenant_bound))


@pytest.fixture
def gateway_settings(settings_of_every_face: Settings) -> Settings:
    return settings_of_every_face


@pytest.fixture
async def scene(ends: Ends, world: World, where: str) -> Scene:
    me, stranger, loner = [await world.person() for _ in range(3)]
    mine, other_of_mine, theirs = [world.organization() for _ in range(3)]
    for person, organization in ((me, mine), (me, other_of_mine), (stranger, theirs)):
        world.join(person, organization, "owner")
    active = mine if where == IN_ORGANIZATION else None
    if active:
        world.activate(me, mine)
    others = {
        "of another organization": Owner(stranger, theirs),
        "of a person without an organization": Owner(loner, None),
        "of an organization of the caller that is not active": Owner(me, other_of_mine),
    }
    if where == LEFT:
        left, colleague = world.organization(), await world.person()
        for person in (me, colleague):
            world.join(person, left, "owner")
        world.activate(me, left)
        world.leave(me, left)
        others["of the organization that the caller has left"] = Owner(colleague, left)
    if active:
        others["of the caller outside the organization"] = Owner(me, None)
    return Scene(ends, world, Owner(me, active), others)


@pytest.mark.parametrize(("place", "where"), CASES, ids=[f"{place} {where}" for place, where in CASES])
async def test_resource_of_another_tenant_is_not_found(
    scene: Scene, place: Place, where: str, faces: Faces, dsn: str, log: list[Any]
) -> None:
    assert place.make, (
        f"{place.field.full_name} names no resource of a servicer. Name the field after the resource, or add a function to"
        f" _EXCEPTIONS of tests/api/foreign.py under {place.field.full_name!r}"
    )
    foreign = {name: id for name, id in (await ids_of_others(scene, place)).items() if id is not None}
    assert foreign
    before = rows_of(dsn, foreign.values())
    is_chosen = where == IN_ORGANIZATION and place in REPRESENTATIVES
    for face in faces.of(place.method, [place.method] if is_chosen else ()):
        if scene.me.organization:  # after the transfer of ownership through another face
            scene.world.demote(scene.me.person, scene.me.organization, "owner")
        absent = await response_to(scene, face, place, uuid7())
        for name, id in foreign.items():
            assert await response_to(scene, face, place, id) == absent, (face, name)
        assert rows_of(dsn, foreign.values()) == before
        own = await place.make(scene.world, scene.me)
        assert own is not None or scene.me.organization is None
        if own is not None and policy_of(place.method).access != ACCESS_PUBLIC:
            assert await response_to(scene, face, place, own) != absent, (
                f"{face}: the caller's own resource gets the response of an unknown id, so this test proves nothing"
            )


async def ids_of_others(scene: Scene, place: Place) -> dict[str, UUID | None]:
    """The id of one resource of each other owner, by the description of the owner."""
    assert place.make
    return {
        name: await place.make(scene.world, owner)
        for name, owner in scene.others.items()
        if not is_of_person(place.make) or owner.person != scene.me.person
    }


def without(id: UUID, outcome: Outcome) -> tuple[str, ...]:
    """The response that the caller receives, with a placeholder for the requested id."""
    return tuple(repr(part).replace(str(id), "…") for part in (*outcome.essence, outcome.messages))


async def response_to(scene: Scene, face: Face, place: Place, id: UUID) -> tuple[str, ...]:
    request = await request_with(scene, place, id)
    assert requests.violations(request) == [], "tests/api/requests.py cannot satisfy these validation rules"
    outcome = await face.call(scene.ends, place.method, request, scene.me.person.headers)
    assert outcome.code != "INTERNAL"
    return without(id, outcome)


async def request_with(scene: Scene, place: Place, id: UUID) -> Any:
    """A request with the id in `place` and the ids of the caller's own resources in all other places."""
    request = await own_request(scene.world, scene.me, place.method)
    resource = updated(place.method)
    if resource and place.part == resource and not is_identifier(place.field):
        change(request, resource, place.field)
    put(request, place, id)
    return request


def rows_of(dsn: str, ids: Any) -> dict[str, list[Any]]:
    """All rows that contain one of the ids, by table."""
    with psycopg.connect(dsn) as connection:
        query = sql.SQL("SELECT t::text FROM {} t WHERE t::text LIKE ANY(%s) ORDER BY 1")
        return {
            name: connection.execute(query.format(sql.Identifier(name)), [[f"%{id}%" for id in ids]]).fetchall()
            for name in metadata.tables.keys() - TRACES
        }


def test_ids_are_found_in_the_contract() -> None:
    assert {"GetTask.task_id", "UpdateTask.task.id", "BatchGetTasks.task_ids", "UpdateMember.member.role_ids"} <= {
        str(place) for place in PLACES
    }
