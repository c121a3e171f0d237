"""A server of every method there is, which answers what a test says and keeps what it was asked."""

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

Script = Callable[["Asked"], Message | RpcError]


@dataclass(frozen=True)
class Asked:
    """A call as it came; `attempt` counts those of the method, from 1 on."""

    method: str
    request: bytes
    headers: list[tuple[str, Any]]
    time_left: float | None
    attempt: int

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2
        return str(found[0]) if found else None


@dataclass
class Scripted(grpc.GenericRpcHandler):
    """What a script answers instead of a message, is refused as the gateway would refuse it."""

    asked: list[Asked] = field(default_factory=list)
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

    def of(self, method: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == method]

    def service(self, handler_call_details: Any) -> "grpc.RpcMethodHandler[bytes, bytes]":
        method = handler_call_details.method.rpartition("/")[2]

        def answer(request: bytes, context: Any) -> bytes:
            with self._lock:
                self._attempts[method] += 1
                left = context.time_remaining()
                asked = Asked(
                    method, request, list(context.invocation_metadata()), left, attempt=self._attempts[method]
                )
                self.asked.append(asked)
            answered = self.scripts[method](asked)
            if isinstance(answered, RpcError):
                refuse(context, answered)
            assert isinstance(answered, Message)
            return answered.SerializeToString()

        return handler(method, answer)


def handler(method: str, answer: Callable[[bytes, Any], bytes]) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """For methods of the probe, which are named after the kinds of call. A server's stream asks the script twice."""
    match method:
        case "ServerStream":
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: (answer(request, context) for _ in range(2))
            )
        case "ClientStream":
            return grpc.stream_unary_rpc_method_handler(lambda requests, context: answer(b"", context))
        case "BothStream":
            return grpc.stream_stream_rpc_method_handler(lambda requests, context: iter([answer(b"", context)]))
        case _:
            return grpc.unary_unary_rpc_method_handler(answer)


def refuse(context: Any, refused: RpcError) -> None:
    failed = status_of(refused, frozenset({refused.reason}))
    context.set_trailing_metadata(((STATUS_HEADER, failed.details),))
    context.abort(failed.code, failed.message)


def unavailable_until(attempt: int, answer: Message) -> Script:
    return lambda asked: answer if asked.attempt >= attempt else RpcError(Reason.REASON_UNAVAILABLE, retry_after=1)
