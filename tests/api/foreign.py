"""How to make a thing of somebody, for each id that a request may have."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID, uuid4

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from accord_auth.tokens import new_session_token, token_hash
from accord_db.engine.ids import uuid7
from tests.api.requests import is_output_only, is_uuid, least, names_it
from tests.api.services import new_service
from tests.api.world import World
from tests.factories import Person


@dataclass(frozen=True)
class Owner:
    """Whose a thing is: the organization's, or if there is none, the person's."""

    person: Person
    organization: UUID | None


Make = Callable[[World, Owner], Awaitable[UUID | None]]


# --- what there is of a person, whichever organization is active ------------------------------------------------------
async def account(_: World, owner: Owner) -> UUID:
    return owner.person.account_id


async def session(world: World, owner: Owner) -> UUID:
    made = uuid7()
    world.write(
        "INSERT INTO sessions (id, account_id, token_hash, expires_at) VALUES (%s, %s, %s, now() + interval '1 hour')",
        *(made, owner.person.account_id, token_hash(new_session_token())),
    )
    return made


async def linked_provider(world: World, owner: Owner) -> UUID:
    made = uuid7()
    world.write(
        "INSERT INTO linked_providers (id, account_id, provider, issuer, subject, email)"
        " VALUES (%s, %s, 'corp', 'https://corp.example', %s, %s)",
        *(made, owner.person.account_id, uuid4().hex, owner.person.email),
    )
    return made


# --- what there is of an organization ---------------------------------------------------------------------------------
async def organization(_: World, owner: Owner) -> UUID | None:
    return owner.organization


async def member(world: World, owner: Owner) -> UUID | None:
    if owner.organization is None:
        return None
    return (await world.member(owner.organization, "member")).account_id


async def role(world: World, owner: Owner) -> UUID | None:
    return world.role(owner.organization, ()) if owner.organization else None


async def invitation(world: World, owner: Owner) -> UUID | None:
    return world.invitation(owner.organization, owner.person).id if owner.organization else None


async def api_key(world: World, owner: Owner) -> UUID | None:
    return world.key(owner.organization, owner.person, ()).id if owner.organization else None


# --- what there is of either ------------------------------------------------------------------------------------------
async def task(world: World, owner: Owner) -> UUID:
    made = uuid7()
    row = (made, owner.person.account_id, owner.organization)
    world.write("INSERT INTO tasks (id, title, created_by, organization_id) VALUES (%s, 'A task', %s, %s)", *row)
    return made


# --- what there is of the operator ------------------------------------------------------------------------------------
async def service_account(world: World, _: Owner) -> UUID:
    return (await new_service(world.database)).id


# Whichever organization is active; membership too is a person's.
OF_PERSONS: Final[tuple[Make, ...]] = (
    account,
    linked_provider,
    organization,
    service_account,
    session,
)

# By the full name of a field, or by what it is called without `_id` or `_ids`; `id` is the message's own name.
MAKERS: Final[Mapping[str, Make]] = {
    "account": account,
    "api_key": api_key,
    "client": service_account,
    "invitation": invitation,
    "linked_provider": linked_provider,
    "organization": organization,
    "role": role,
    "service_account": service_account,
    "session": session,
    "task": task,
    # Somebody else's, or none: what these name is a member.
    "accord.members.v1.Member.account_id": member,
    "accord.members.v1.RemoveMemberRequest.account_id": member,
    "accord.members.v1.TransferOwnershipRequest.account_id": member,
}


@dataclass(frozen=True)
class Place:
    """Where a request has an id: in itself, or in a message of it."""

    method: MethodDescriptor
    part: FieldDescriptor | None
    field: FieldDescriptor

    @property
    def path(self) -> str:
        return f"{self.part.name}.{self.field.name}" if self.part else self.field.name

    @property
    def make(self) -> Make | None:
        return MAKERS.get(self.field.full_name) or MAKERS.get(self._resource)

    @property
    def _resource(self) -> str:
        if self.field.name == "id":
            name = cast(Descriptor, self.field.containing_type).name
            return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
        return self.field.name.removesuffix("s").removesuffix("_id")

    def __str__(self) -> str:
        return f"{self.method.name}.{self.path}"


def places(method: MethodDescriptor) -> list[Place]:
    """Of ids that callers give. A `request_id` is of nothing, and what is output-only is not read."""
    here = [Place(method, None, field) for field in method.input_type.fields]
    below = [
        Place(method, part, field)
        for part in method.input_type.fields
        if part.message_type is not None and not part.message_type.full_name.startswith("google.")
        for field in part.message_type.fields
    ]
    return [place for place in here + below if _is_id(place.field)]


async def own_request(world: World, owner: Owner, method: MethodDescriptor) -> Any:
    """As little as keeps the rules, about what is the owner's. Lists of ids that may be empty are."""
    request = least(method)
    for place in places(method):
        if place.make and (names_it(place.field) or not (place.part or place.field.is_repeated)):
            put(request, place, await place.make(world, owner))
    return request


def put(request: Any, place: Place, id: UUID | None) -> None:
    message = getattr(request, place.part.name) if place.part else request
    if place.field.is_repeated:
        message.ClearField(place.field.name)
        getattr(message, place.field.name).append(str(id))
    else:
        setattr(message, place.field.name, str(id))


def _is_id(field: FieldDescriptor) -> bool:
    named = field.name == "id" or field.name.endswith(("_id", "_ids"))
    return named and is_uuid(field) and field.name != "request_id" and not is_output_only(field)
