"""Turns calls away while the gateway stops, so that clients repeat them later or elsewhere."""

from typing import Any

import grpc

HEALTH = "/grpc.health.v1.Health/"


class Draining(grpc.GenericRpcHandler):
    """Stands before all handlers. Once it is active it answers UNAVAILABLE before anything is read of a call; health
    checks alone are answered to the end, since others learn from them that this gateway stops."""

    def __init__(self, routes: grpc.GenericRpcHandler) -> None:
        self._routes = routes
        self.active = False

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        if self.active and not handler_call_details.method.startswith(HEALTH):
            return REFUSED
        return self._routes.service(handler_call_details)


async def _refuse(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    context.set_code(grpc.StatusCode.UNAVAILABLE)
    context.set_details("This gateway is stopping. Try again.")


REFUSED: "grpc.RpcMethodHandler[Any, Any]" = grpc.stream_stream_rpc_method_handler(_refuse)
