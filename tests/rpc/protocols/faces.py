"""The service of protos/faces/v1/faces.proto on a real server, inside the stages that need no database."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Final, cast

from grpc_interceptor.server import AsyncServerInterceptor
from protovalidate import Validator

from accord.errors.v1.errors_pb2 import Reason
from accord_rpc.call import Context
from accord_rpc.client_address import ClientAddresses
from accord_rpc.errors import RpcError
from accord_rpc.interceptor import CheckInterceptor, Next
from accord_rpc.pipeline.deadlines import Clock, DeadlineInterceptor
from accord_rpc.pipeline.receive import ReceiveInterceptor, respond_with
from accord_rpc.pipeline.telemetry import TelemetryInterceptor, call_metrics
from accord_rpc.policy import Method, read_methods
from accord_rpc.protocols.compression import may_compress
from accord_rpc.protocols.connect.protocol import ConnectProtocol
from accord_rpc.protocols.dispatch import Dispatcher
from accord_rpc.protocols.grpc import GrpcProtocol
from accord_rpc.protocols.grpc_web import GrpcWebProtocol
from accord_rpc.server.server import Server
from tests.protos import generated

pb: Final[Any] = generated(Path(__file__).parents[1] / "protos", "faces/v1/faces.proto").messages
SERVICE: Final = "faces.v1.FaceService"
KEY: Final = "let me in"
_VALIDATOR: Final = Validator()


@dataclass
class Service:
    """The handlers, which perform the `act` of a request."""

    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    entered: int = 0

    async def SendText(self, request: Any, context: Context) -> Any:
        response = pb.TextResponse(text=await self._act(request, context), number=request.number)
        if request.act == "overflow":
            response.time.seconds = 2**60  # which JSON has no form for
        return response

    GetText = SendText

    async def GetSecret(self, request: Any, context: Context) -> Any:
        return pb.SecretResponse(token=await self._act(request, context))

    async def ListTexts(self, request: Any, context: Context) -> AsyncIterator[Any]:
        for number in range(3):
            yield pb.TextResponse(text=request.text, number=number)
        await self._act(request, context)

    async def JoinTexts(self, requests: AsyncIterator[Any], context: Context) -> Any:
        return pb.TextResponse(text=",".join([await self._act(request, context) async for request in requests]))

    async def EchoTexts(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async for request in requests:
            yield pb.TextResponse(text=await self._act(request, context))

    async def _act(self, request: Any, context: Context) -> str:
        self.entered += 1
        match request.act.split():
            case ["refuse"]:
                raise RpcError(Reason.REASON_TASK_NOT_FOUND, task_id="7")
            case ["limit"]:
                raise RpcError(Reason.REASON_RATE_LIMITED, retry_after=1.5)
            case ["fail"]:
                raise ValueError("secret text of a fault")
            case ["wait"]:
                await self._wait()
            case ["metadata", name]:
                return repr([value for key, value in context.invocation_metadata() or () if key == name])
            case ["trailers"]:
                sent = [(key, value) for key, value in cast(Any, context).trailers]
                context.set_trailing_metadata((*sent, ("x-note", "a"), ("x-note-bin", b"\xff\x00")))
            case ["large"]:
                return str(request.text) * 20_000
        return str(request.text)

    async def _wait(self) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class Door(CheckInterceptor):
    """Stands where the gateway decides who may call."""

    async def admit(self, context: Context) -> None:
        if ("authorization", KEY) not in (context.invocation_metadata() or ()):
            raise RpcError(Reason.REASON_CREDENTIAL_MISSING)


class Chains:
    """As `Routes`."""

    def __init__(self, service: Service) -> None:
        methods, faults = read_methods([pb.DESCRIPTOR.services_by_name["FaceService"]])
        assert not faults
        self.methods: Mapping[str, Method] = {method.path: method for method in methods}
        clock, self._peers = Clock(), ClientAddresses()
        self._chains: dict[str, Next] = {
            path: _chain(
                [
                    TelemetryInterceptor(
                        method.service, method.name, method.policy.errors, call_metrics(), self._peers
                    ),
                    DeadlineInterceptor(method.policy, clock),
                    Door(),
                    ReceiveInterceptor(method, _VALIDATOR),
                ],
                respond_with(method, getattr(service, method.name)),
                path,
            )
            for path, method in self.methods.items()
        }

    def find(self, path: str) -> Next:
        return self._chains.get(path) or _chain(
            [TelemetryInterceptor("unknown", "unknown", frozenset(), call_metrics(), self._peers)], _unknown, path
        )


async def _unknown(request: object, context: Context) -> None:
    raise RpcError(Reason.REASON_METHOD_UNKNOWN)


def _chain(stages: list[AsyncServerInterceptor], innermost: Next, path: str) -> Next:
    def around(following: Next, stage: AsyncServerInterceptor) -> Next:
        return lambda request, context: stage.intercept(following, request, cast(Any, context), path)

    return reduce(around, reversed(stages), innermost)


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[str]:
    """Yields the address, `127.0.0.1:4711`."""
    chains, sock = Chains(service), socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    compressed = {path.encode() for path, method in chains.methods.items() if may_compress(method.response)}
    protocols = [
        GrpcProtocol(chains, compressed),
        GrpcWebProtocol(chains, compressed),
        ConnectProtocol(chains, chains.methods),
    ]
    server = Server(Dispatcher(protocols))
    await server.start([sock])
    yield f"127.0.0.1:{port}"
    await server.stop(None)
