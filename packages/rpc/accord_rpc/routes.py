"""Where calls are sent: every served path, and one answer for all the others."""

from collections.abc import Mapping
from typing import Any

import grpc

from accord_rpc.pipeline import Pipeline
from accord_rpc.pipeline.receive import Handler
from accord_rpc.policy import Method


class Routes(grpc.GenericRpcHandler):
    """All handlers behind their pipelines, as the one generic handler that a grpcio server is given."""

    def __init__(self, pipeline: Pipeline, served: Mapping[Method, Handler]) -> None:
        self._pipeline = pipeline
        self._handlers = {method.path: pipeline.serve(method, handler) for method, handler in served.items()}

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        return self._handlers.get(details.method) or self._pipeline.refuse(details.method)
