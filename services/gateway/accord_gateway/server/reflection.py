"""gRPC server reflection, v1 and v1alpha: clients such as grpcurl and buf curl learn the contract from it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, cast

from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

from accord.policy.v1.policy_pb2 import Access
from accord_gateway.server.method_policies import method
from accord_rpc.pipeline.receive import Handler
from accord_rpc.policy import Method

V1ALPHA = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
V1 = V1ALPHA.full_name.replace("v1alpha", "v1")
LIMIT = 600  # seconds; a client keeps its one stream open for as long as it has calls to describe


def methods(services: Iterable[str], access: Literal["on", "signed-in"]) -> dict[Method, Handler]:
    """Both versions have the same messages, so one servicer answers for both; grpcio-reflection knows v1alpha only."""
    _describe_v1()
    names = (*services, V1, V1ALPHA.full_name)
    servicer = aio.ReflectionServicer(names)
    may_call = Access.ACCESS_PUBLIC if access == "on" else Access.ACCESS_SIGNED_IN
    v1alpha = method(V1ALPHA, "ServerReflectionInfo", may_call, seconds=LIMIT)
    handler = cast(Handler, servicer.ServerReflectionInfo)
    return {v1alpha: handler, replace(v1alpha, service=V1): handler}


def _describe_v1() -> None:
    """Adds v1's descriptor, so that clients which ask about every service they are told of get an answer."""
    v1alpha = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(v1alpha)
    v1 = json_format.Parse(json_format.MessageToJson(v1alpha).replace("v1alpha", "v1"), FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())
