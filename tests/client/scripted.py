"""A server that implements every method with scripts of a test, and records the calls."""

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.errors import RpcError
from accord_rpc.status import STATUS_HEADER, status_of

Script = Callable[["ReceivedCall"], Message | RpcError]


@dataclass(frozen=True)
class ReceivedCall:
    """`attempt` counts the calls of the method, from 1. `time_left` is in seconds; None without a deadline."""

    method: str
    request: bytes
    headers: list[tuple[str, Any]]
    time_left: float | None
    attempt: int

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2
        return str(values[0]) if values else None


@dataclass
class ScriptedServer(grpc.GenericRpcHandler):
    """A script returns the response, or an error, which is sent as the gateway sends it."""

    calls: list[ReceivedCall] = field(default_factory=list)
    scripts: dict[str, Script] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._lock = Lock()
        self._attempts: dict[str, int] = defaultdict(int)
        self._server = grpc.server(ThreadPoolExecutor(32), handlers=[self])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.stop(None).wait()

    def calls_of(self, method: str) -> list[ReceivedCall]:
        return [call for call in self.calls if call.method == method]

    def service(self, handler_call_details: Any) -> "grpc.RpcMethodHandler[bytes, bytes]":
        method = handler_call_details.method.rpartition("/")[2]

        def respond(request: bytes, context: Any) -> bytes:
            with self._lock:
                self._attempts[method] += 1
                left = context.time_remaining()
                call = ReceivedCall(
                    method, request, list(context.invocation_metadata()), left, attempt=self._attempts[method]
                )
                self.calls.append(call)
            response = self.scripts[method](call)
            if isinstance(response, RpcError):
                abort(context, response)
            assert isinstance(response, Message)
            return response.SerializeToString()

        return method_handler(method, respond)


def method_handler(method: str, respond: Callable[[bytes, Any], bytes]) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """Recognizes the probe's streaming methods by name. A stream of responses runs the script twice."""
    match method:
        case "ServerStream":
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: (respond(request, context) for _ in range(2))
            )
        case "ClientStream":
            return grpc.stream_unary_rpc_method_handler(lambda requests, context: respond(b"", context))
        case "BothStream":
            return grpc.stream_stream_rpc_method_handler(lambda requests, context: iter([respond(b"", context)]))
        case _:
            return grpc.unary_unary_rpc_method_handler(respond)


def abort(context: Any, error: RpcError) -> None:
    status = status_of(error, frozenset({error.reason}))
    context.set_trailing_metadata(((STATUS_HEADER, status.details),))
    context.abort(status.code, status.message)


def unavailable_until(attempt: int, response: Message) -> Script:
    return lambda call: response if call.attempt >= attempt else RpcError(Reason.REASON_UNAVAILABLE, retry_after=1)
