"""Creates the resource that an id field of a request refers to, for a given owner, as a row of the resource's table."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast
from uuid import UUID

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from sqlalchemy import Table

from accord_api.registration import SERVICES
from accord_db.schema import metadata
from tests.api.matrix import every_method
from tests.api.requests import is_identifier, is_immutable, is_output_only, is_uuid, minimal_request
from tests.api.world import World
from tests.factories import Person
from tests.rows import can_be_of_organization, needs_organization


@dataclass(frozen=True)
class Owner:
    """The owner of a resource: the organization, or the person if `organization` is None."""

    person: Person
    organization: UUID | None


Make = Callable[[World, Owner], Awaitable[UUID | None]]


@dataclass(frozen=True)
class MakeRow:
    """Inserts a row into the table. Returns None if the row requires an organization and the owner has none."""

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


async def received_invitation(world: World, owner: Owner) -> UUID:
    """Of an organization that the person is not a member of."""
    organization = world.organization()
    host = await world.member(organization, "owner")
    return world.invitation(organization, host, owner.person.email).id


RESOURCES: Final = {
    message.DESCRIPTOR.name: metadata.tables[model.__tablename__]
    for service in SERVICES
    for message, model in getattr(service, "resources", {}).items()
}
"""Tables of resources by message name."""
_MADE: Final[Mapping[str, Make]] = {name: MakeRow(table) for name, table in RESOURCES.items()}
# Keys are full names of fields or names of resources.
_EXCEPTIONS: Final[Mapping[str, Make]] = {
    "Account": account,
    "Client": _MADE["ServiceAccount"],
    "Organization": organization,
    "accord.invitations.v1.AcceptMyInvitationRequest.invitation_id": received_invitation,
    "accord.invitations.v1.DeclineMyInvitationRequest.invitation_id": received_invitation,
    # These ids refer to members. The id of an account that is not a member refers to nothing.
    "accord.members.v1.Member.account_id": member,
    "accord.members.v1.RemoveMemberRequest.account_id": member,
    "accord.members.v1.TransferOwnershipRequest.account_id": member,
}


def is_of_person(make: Make) -> bool:
    """Whether the resource belongs to the person, whichever organization is active. Memberships count too."""
    return make in (account, organization, received_invitation) or (
        isinstance(make, MakeRow) and not can_be_of_organization(make.table)
    )


@dataclass(frozen=True)
class Place:
    """An id field of a request. `part` is the field of the nested message that contains it, or None at the top level."""

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
        """The name of the resource: `ApiKey` for `api_key_id`, `api_key_ids` and the `id` of ApiKey."""
        if self.field.name == "id":
            return cast(Descriptor, self.field.containing_type).name
        return self.field.name.removesuffix("s").removesuffix("_id").title().replace("_", "")

    def __str__(self) -> str:
        return f"{self.method.name}.{self.path}"


def places(method: MethodDescriptor) -> list[Place]:
    """The id fields that callers set. `request_id` refers to no resource, and output-only and immutable fields are ignored."""
    here = [Place(method, None, field) for field in method.input_type.fields]
    below = [
        Place(method, part, field)
        for part in method.input_type.fields
        if part.message_type is not None and not part.message_type.full_name.startswith("google.")
        for field in part.message_type.fields
    ]
    return [place for place in here + below if _is_id(place.field)]


@cache
def makers() -> tuple[Make, ...]:
    """One function per kind of resource that requests refer to."""
    found = (place.make for method in every_method() for place in places(method))
    return tuple(dict.fromkeys(make for make in found if make))


async def own_request(world: World, owner: Owner, method: MethodDescriptor) -> Any:
    """The smallest valid request about resources of the owner. Optional lists of ids stay empty."""
    request = minimal_request(method)
    for place in places(method):
        if place.make and (is_identifier(place.field) or not (place.part or place.field.is_repeated)):
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
    is_sent = not (is_output_only(field) or is_immutable(field))
    return named and is_uuid(field) and field.name != "request_id" and is_sent
