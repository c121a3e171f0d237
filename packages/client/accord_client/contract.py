"""Reads the deadline, access and repeatability of each method from the generated descriptors."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Final

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from accord.policy.v1.policy_pb2 import ACCESS_PUBLIC, policy, policy_defaults

PACKAGE = "accord"
REQUEST_ID = "request_id"


@dataclass(frozen=True, slots=True)
class Method:
    """`default_deadline` is in seconds. `repeatable`: a client that does not know whether a call took effect may repeat it.
    `takes_request_id`: the server recognizes a repeated request by its id and returns the first response."""

    service: str
    name: str
    default_deadline: float
    public: bool
    repeatable: bool
    takes_request_id: bool

    @classmethod
    def of(cls, method: MethodDescriptor) -> "Method":
        options = method.GetOptions()
        declared = options.Extensions[policy]
        defaults = method.containing_service.GetOptions().Extensions[policy_defaults]
        deadline = (declared if declared.HasField("default_deadline") else defaults).default_deadline
        takes_request_id = REQUEST_ID in method.input_type.fields_by_name
        return cls(
            service=method.containing_service.full_name,
            name=method.name,
            default_deadline=deadline.ToNanoseconds() / 1e9,
            public=declared.access == ACCESS_PUBLIC,
            repeatable=takes_request_id or options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN,
            takes_request_id=takes_request_id,
        )


Methods = Mapping[str, Method]  # by path: /package.Service/Method
NO_METHODS: Final[Methods] = MappingProxyType({})


def methods_of(services: Iterable[ServiceDescriptor]) -> Methods:
    """The methods that declare a policy."""
    declared = (
        method for service in services for method in service.methods if method.GetOptions().HasExtension(policy)
    )
    return {f"/{method.containing_service.full_name}/{method.name}": Method.of(method) for method in declared}


@cache
def contract() -> Methods:
    """The methods of every service in the installed contract package."""
    modules = [importlib.import_module(name) for name in sorted(_modules(files(PACKAGE), PACKAGE))]
    return methods_of(service for module in modules for service in module.DESCRIPTOR.services_by_name.values())


def _modules(folder: Traversable, package: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _modules(entry, f"{package}.{entry.name}")
        elif entry.name.endswith("_pb2.py"):
            yield f"{package}.{entry.name.removesuffix('.py')}"
