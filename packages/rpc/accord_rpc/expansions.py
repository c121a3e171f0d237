"""Expanded references: `expand: "flow"` in a request fills `flow` with the resource that `flow_id` refers to, with one query
per reference and never one per row."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar, cast
from uuid import UUID

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from accord.policy.v1 import policy_pb2
from accord.policy.v1.policy_pb2 import ACCESS_SIGNED_IN
from accord_rpc.caller import caller
from accord_rpc.messages import MessageMapper
from accord_rpc.policy import Method, Policy, effective_policy
from buf.validate import validate_pb2

R = TypeVar("R")
FIELD: Final = "expand"


class Expansion(Generic[R]):
    """One reference of a resource: `Expansion(pb.Diagram, "flow")`. Raises TypeError, when it is made, if the contract does not
    declare it."""

    def __init__(self, message: type[Message], name: str) -> None:
        resource = cast(Descriptor, message.DESCRIPTOR)
        field = resource.fields_by_name.get(name)
        if field is None or (problem := next(_field_problems(field), None)):
            raise TypeError(f"{resource.full_name}.{name}: {problem if field else 'there is no such field'}")
        policy = Policy.of(effective_policy(_reader(field)))
        self._permission, self._personal = policy.permission, policy.personal
        self._credentials = policy.credentials
        self._name = name
        self._map = MessageMapper(GetMessageClass(cast(Descriptor, field.message_type)))

    async def fill(
        self, request: Any, resources: Sequence[Any], fetch: Callable[[list[UUID]], Awaitable[Iterable[R]]]
    ) -> None:
        """Does nothing unless the request names the reference and the caller may read what it refers to. `fetch` returns the rows
        of the caller's own tenant; a reference to another row stays unset."""
        if self._name not in request.expand or not self._is_permitted():
            return
        ids = {reference for resource in resources if (reference := getattr(resource, f"{self._name}_id"))}
        rows = {str(cast(Any, row).id): row for row in await fetch([UUID(id_) for id_ in sorted(ids)])} if ids else {}
        for resource in resources:
            if (row := rows.get(getattr(resource, f"{self._name}_id"))) is not None:
                self._map.fill(getattr(resource, self._name), row)

    def _is_permitted(self) -> bool:
        me = caller()
        return me.credential in self._credentials and (
            not self._permission or me.holds(self._permission, personal=self._personal)
        )


def expansion_problems(methods: Iterable[Method]) -> Iterator[str]:
    """A sentence for each declaration that does not fit, and for each `expand` that admits other names than the references."""
    for method in methods:
        response, request = (cast(Descriptor, each.DESCRIPTOR) for each in (method.response, method.request))
        resources = [field.message_type for field in response.fields if field.message_type]
        fields = [field for resource in resources for field in resource.fields if _declared(field)]
        for field in fields:
            yield from (f"{field.full_name}: {problem}" for problem in _field_problems(field))
        admitted, names = _admitted(request.fields_by_name.get(FIELD)), {field.name for field in fields}
        if admitted is not None and admitted != names:
            yield f"{request.full_name}.{FIELD}: admits {sorted(admitted)}, and the references are {sorted(names)}"


def _declared(field: FieldDescriptor) -> str:
    return field.GetOptions().Extensions[policy_pb2.expanded_by]


def _admitted(field: FieldDescriptor | None) -> set[str] | None:
    """The names that the rules of `expand` admit; None without such a field."""
    if field is None:
        return None
    return set(getattr(field.GetOptions().Extensions[validate_pb2.field].repeated.items.string, "in"))


def _field_problems(field: FieldDescriptor) -> Iterator[str]:
    if not _declared(field):
        yield "declare which method returns it: expanded_by"
        return
    if field.message_type is None or field.is_repeated:
        yield "an expanded reference is a single message"
        return
    if not field.GetOptions().Extensions[policy_pb2.computed]:
        yield "no column holds an expanded reference: mark it `computed`"
    if f"{field.name}_id" not in cast(Descriptor, field.containing_type).fields_by_name:
        yield f"the message has no field {field.name}_id"
    if (method := _find(field)) is None:
        yield f"{_declared(field)} is not a method in the file of {field.message_type.full_name}"
    elif (policy := effective_policy(method)).access != ACCESS_SIGNED_IN or policy.fresh or policy.in_person:
        yield f"{_declared(field)} requires more of its callers than to be signed in"
    elif field.message_type not in [each.message_type for each in method.output_type.fields]:
        yield f"{_declared(field)} does not return {field.message_type.full_name}"


def _reader(field: FieldDescriptor) -> MethodDescriptor:
    method = _find(field)
    assert method is not None
    return method


def _find(field: FieldDescriptor) -> MethodDescriptor | None:
    services = cast(Descriptor, field.message_type).file.services_by_name.values()
    methods = (method for service in services for method in service.methods)
    return next((method for method in methods if method.full_name == _declared(field)), None)
