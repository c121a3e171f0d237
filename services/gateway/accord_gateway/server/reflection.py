"""gRPC server reflection, v1 and v1alpha, from which clients such as grpcurl and buf curl read the contract."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Literal, cast

from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

from accord.policy.v1.policy_pb2 import Access
from accord_gateway.server.method_policies import method_with_policy
from accord_rpc.pipeline.receive import Handler
from accord_rpc.policy import Method

V1ALPHA = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
V1 = V1ALPHA.full_name.replace("v1alpha", "v1")
DEADLINE = 600  # seconds; a client keeps its stream open while it resolves types


def reflection_methods(services: Iterable[str], access: Literal["on", "signed-in"]) -> dict[Method, Handler]:
    """grpcio-reflection implements v1alpha only. Its servicer also serves v1, which has the same messages."""
    _add_v1_descriptor()
    servicer = aio.ReflectionServicer((*services, V1, V1ALPHA.full_name))
    level = Access.ACCESS_PUBLIC if access == "on" else Access.ACCESS_SIGNED_IN
    v1alpha = method_with_policy(V1ALPHA, "ServerReflectionInfo", level, deadline_seconds=DEADLINE)
    handler = cast(Handler, servicer.ServerReflectionInfo)
    return {v1alpha: handler, replace(v1alpha, service=V1): handler}


@cache
def _add_v1_descriptor() -> None:
    """Clients request the descriptor of each listed service, including v1."""
    v1alpha = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(v1alpha)
    v1 = json_format.Parse(json_format.MessageToJson(v1alpha).replace("v1alpha", "v1"), FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())
