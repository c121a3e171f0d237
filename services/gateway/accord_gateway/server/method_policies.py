"""The policies of services that are not of Accord's contract, and so cannot say themselves who may call them."""

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.duration_pb2 import Duration

from accord.policy.v1.policy_pb2 import Access, MethodPolicy
from accord_rpc.policy import Method


def method(service: ServiceDescriptor, name: str, access: "Access.ValueType", *, seconds: int) -> Method:
    """A method of a foreign service, which may be called, and last, as said here."""
    limit = Duration(seconds=seconds)
    policy = MethodPolicy(access=access, default_deadline=limit, max_deadline=limit)
    return Method.of(service.methods_by_name[name], policy)
