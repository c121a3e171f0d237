"""Fails new calls during shutdown, so that clients retry them on another gateway or later."""

from typing import Any

import grpc

from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.call import Context
from accord_rpc.errors import RpcError
from accord_rpc.status import STATUS_HEADER, status_of

HEALTH = "/grpc.health.v1.Health/"
RETRY_AFTER = 1.0  # seconds; another gateway can serve at once, a restarted one soon


class Draining(grpc.GenericRpcHandler):
    """Outside all other stages. While `active`, a call fails with UNAVAILABLE before its message is read. Health checks continue,
    because load balancers learn from them that this gateway stops."""

    def __init__(self, routes: grpc.GenericRpcHandler) -> None:
        self._routes = routes
        self._unavailable = status_of(RpcError(Reason.REASON_UNAVAILABLE, retry_after=RETRY_AFTER), frozenset())
        self.active = False

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        if self.active and not handler_call_details.method.startswith(HEALTH):
            return grpc.stream_stream_rpc_method_handler(self._fail)
        return self._routes.service(handler_call_details)

    async def _fail(self, _: object, context: Context) -> None:
        context.set_code(self._unavailable.code)
        context.set_details(self._unavailable.message)
        context.set_trailing_metadata(((STATUS_HEADER, self._unavailable.details),))
