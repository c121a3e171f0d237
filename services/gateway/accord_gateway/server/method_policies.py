"""Policies for services whose contract is not Accord's, and therefore declares none."""

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.duration_pb2 import Duration

from accord.policy.v1.policy_pb2 import Access, MethodPolicy
from accord_rpc.policy import Method


def method_with_policy(
    service: ServiceDescriptor, name: str, access: "Access.ValueType", *, deadline_seconds: int
) -> Method:
    """The deadline is both the default and the maximum."""
    deadline = Duration(seconds=deadline_seconds)
    policy = MethodPolicy(access=access, default_deadline=deadline, max_deadline=deadline)
    return Method.of(service.methods_by_name[name], policy)
