"""Makes what an id in a request can name, for one owner or another: a row of the resource's table, made from its columns."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from sqlalchemy import Table

from accord_api.registration import SERVICES
from accord_db.schema import metadata
from tests.api.matrix import every_method
from tests.api.requests import is_output_only, is_uuid, least, names_it
from tests.api.world import World
from tests.factories import Person
from tests.rows import can_be_of_organization, needs_organization


@dataclass(frozen=True)
class Owner:
    """Whose a thing is: the organization's, or if there is none, the person's."""

    person: Person
    organization: UUID | None


Make = Callable[[World, Owner], Awaitable[UUID | None]]


@dataclass(frozen=True)
class MakeRow:
    """Makes a row of the table of a resource."""

    table: Table

    async def __call__(self, world: World, owner: Owner) -> UUID | None:
        if owner.organization is None and needs_organization(self.table):
            return None
        return cast(UUID, world.row(self.table, owner.person, owner.organization)["id"])


# --- exceptions -------------------------------------------------------------------------------------------------------
async def account(_: World, owner: Owner) -> UUID:
    return owner.person.account_id


async def organization(_: World, owner: Owner) -> UUID | None:
    return owner.organization


async def member(world: World, owner: Owner) -> UUID | None:
    if owner.organization is None:
        return None
    return (await world.member(owner.organization, "member")).account_id


RESOURCES: Final = {
    message.DESCRIPTOR.name: metadata.tables[model.__tablename__]
    for service in SERVICES
    for message, model in getattr(service, "resources", {}).items()
}
"""The tables of resources, by the names of the messages."""
_MADE: Final[Mapping[str, Make]] = {name: MakeRow(table) for name, table in RESOURCES.items()}
# By the full name of a field or the name of a resource.
_EXCEPTIONS: Final[Mapping[str, Make]] = {
    "Account": account,
    "Client": _MADE["ServiceAccount"],
    "Organization": organization,
    # An account of another person names no one here: the account of a member is meant.
    "accord.members.v1.Member.account_id": member,
    "accord.members.v1.RemoveMemberRequest.account_id": member,
    "accord.members.v1.TransferOwnershipRequest.account_id": member,
}


def is_of_person(make: Make) -> bool:
    """Whether it makes the same, whichever organization is active. Membership of an organization is a person's too."""
    return make in (account, organization) or (isinstance(make, MakeRow) and not can_be_of_organization(make.table))


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
        return _EXCEPTIONS.get(self.field.full_name) or _EXCEPTIONS.get(self._resource) or _MADE.get(self._resource)

    @property
    def _resource(self) -> str:
        """`ApiKey` for `api_key_id`, `api_key_ids` and the `id` of ApiKey."""
        if self.field.name == "id":
            return cast(Descriptor, self.field.containing_type).name
        return self.field.name.removesuffix("s").removesuffix("_id").title().replace("_", "")

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


def makers() -> list[Make]:
    """One for each thing that a request can name."""
    found = (place.make for method in every_method() for place in places(method))
    return list(dict.fromkeys(make for make in found if make))


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
