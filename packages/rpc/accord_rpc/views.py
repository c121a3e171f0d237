"""Views of a resource: BASIC leaves out what only FULL has, such as a large document (AIP-157)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from accord.policy.v1.policy_pb2 import VIEW_FULL, VIEW_UNSPECIFIED, View
from accord_rpc.fields import only_in_full_view
from accord_rpc.policy import Method

_READING: Final = ("List", "Get", "BatchGet", "Search")


def wants_full(request: Any, *, default: bool) -> bool:
    """`default` is what an unset `view` means: False for lists, True for a single resource."""
    return default if request.view == VIEW_UNSPECIFIED else bool(request.view == VIEW_FULL)


def view_problems(methods: Iterable[Method], resources: Mapping[type[Message], Any]) -> Iterator[str]:
    """A sentence for each reading method whose request lacks the `view` of what it returns, or has one without effect."""
    partial = {
        message.DESCRIPTOR.full_name: names
        for message in resources
        if (names := only_in_full_view(cast(Descriptor, message.DESCRIPTOR)))
    }
    for method in methods:
        if not method.name.startswith(_READING):
            continue
        request, response = (cast(Descriptor, each.DESCRIPTOR) for each in (method.request, method.response))
        returned = [field.message_type.full_name for field in response.fields if field.message_type]
        left_out = [name for resource in returned for name in partial.get(resource, ())]
        if left_out and not _is_view(request.fields_by_name.get("view")):
            yield f"{request.full_name}: {', '.join(left_out)} is only in the view FULL: add `accord.policy.v1.View view`"
        if not left_out and _is_view(request.fields_by_name.get("view")):
            yield f"{request.full_name}: view has no effect, because no field of the resource has `full_view`"


def _is_view(field: FieldDescriptor | None) -> bool:
    return field is not None and field.enum_type is not None and field.enum_type.full_name == View.DESCRIPTOR.full_name
