"""Turns calls away while the gateway stops, so that clients repeat them later or elsewhere."""

from typing import Any

import grpc

from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.call import Context
from accord_rpc.errors import RpcError
from accord_rpc.status import STATUS_HEADER, status_of

HEALTH = "/grpc.health.v1.Health/"
RETRY_AFTER = 1.0  # seconds: another gateway is there at once, the next one soon


class Draining(grpc.GenericRpcHandler):
    """Stands before all handlers. Once it is active it answers UNAVAILABLE before anything is read of a call; health
    checks alone are answered to the end, since others learn from them that this gateway stops."""

    def __init__(self, routes: grpc.GenericRpcHandler) -> None:
        self._routes = routes
        self._refusal = status_of(RpcError(Reason.REASON_UNAVAILABLE, retry_after=RETRY_AFTER), frozenset())
        self.active = False

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        if self.active and not handler_call_details.method.startswith(HEALTH):
            return grpc.stream_stream_rpc_method_handler(self._refuse)
        return self._routes.service(handler_call_details)

    async def _refuse(self, _: object, context: Context) -> None:
        context.set_code(self._refusal.code)
        context.set_details(self._refusal.message)
        context.set_trailing_metadata(((STATUS_HEADER, self._refusal.details),))
