"""Each test gets a gateway: the real server, called over a real channel, with its own database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from protovalidate import Validator

from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.listen import Listener
from accord_gateway.server import gateway as gateway_module
from accord_gateway.server.gateway import Gateway, Runtime, build_server
from accord_gateway.settings import Settings
from accord_rpc.contract import Registry, check, contract_services
from accord_rpc.pipeline.rate_limits import rate_limiter
from accord_rpc.policy import Method
from tests.api.calls import Calls as Calls
from tests.api.face_channel import FaceChannel, face_named
from tests.api.faces import Ends, Face, ends_of
from tests.api.hostile_provider import Provider, serving
from tests.api.oidc_provider import OidcProvider, oidc_provider
from tests.api.probe import ProbeClient, build_probe_server
from tests.api.representatives import Faces
from tests.api.world import World
from tests.factories import Person, signed_in_person

if TYPE_CHECKING:
    from accord.accounts.v1.accounts_pb2_grpc import AccountServiceAsyncStub
    from accord.tasks.v1.tasks_pb2_grpc import TaskServiceAsyncStub

SECRET_KEY = b"the secret key of all test gateways"


@dataclass(frozen=True)
class Client:
    """A channel to the gateway, stubs on it, and the gateway's database."""

    channel: grpc.aio.Channel
    tasks: "TaskServiceAsyncStub"
    accounts: "AccountServiceAsyncStub"
    database: Database

    async def new_user(self) -> Person:
        return await signed_in_person(self.database)

    def calls(self, contract: ModuleType, person: Person) -> Calls:
        """Calls of the services in `contract`, such as `tasks_pb2`."""
        return Calls(self.channel, contract, person.headers)


@pytest.fixture(scope="session", autouse=True)
def _contract_read_once() -> Iterator[None]:
    """Shares between the gateways of a worker what depends only on the contract and takes most of the startup: the compiled
    rules of all messages, and the comparison of the contract with the handlers."""
    validator, checked = Validator(), dict[object, list[Method]]()

    def check_once(services: Iterable[ServiceDescriptor], registry: Registry, _: Validator) -> list[Method]:
        services = tuple(services)
        handlers = frozenset((path, getattr(it, "__func__", it)) for path, it in registry.handlers.items())
        same = (services, handlers, frozenset(registry.resources.items()))
        if same not in checked:
            checked[same] = check(services, registry, validator)
        return list(checked[same])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gateway_module, "Validator", lambda: validator)
        patched.setattr(gateway_module, "check", check_once)
        patched.setattr(gateway_module, "contract_services", cache(contract_services))
        yield


@pytest.fixture
async def listener(dsn: str) -> AsyncIterator[Listener]:
    """Not started yet, because the gateway first registers its channels."""
    listener = Listener(dsn)
    yield listener
    await listener.close()


@pytest.fixture
def gateway_settings() -> Settings:
    """To test other settings: `@pytest.mark.parametrize("gateway_settings", [Settings(…)])`."""
    return Settings(port=0, metrics_port=0)


@pytest.fixture(scope="session")
def called_through(pytestconfig: pytest.Config) -> Face | None:
    """The face of `--face`; None for gRPC."""
    name = pytestconfig.getoption("--face")
    return face_named(name) if name else None


@pytest.fixture
def faces(request: pytest.FixtureRequest) -> Faces:
    return Faces(request.config)


@pytest.fixture
def settings_of_every_face(request: pytest.FixtureRequest) -> Settings:
    """Of a gateway that has all faces, except if the test run is one of another server."""
    return Settings(port=0, metrics_port=0, server=request.config.getoption("server") or "accord")


@pytest.fixture
async def gateway(
    database: Database, listener: Listener, gateway_settings: Settings, called_through: Face | None
) -> AsyncIterator[tuple[Gateway, str]]:
    """A running gateway and its address."""
    if called_through is not None:
        gateway_settings = gateway_settings.model_copy(update={"server": "accord"})
    async with running(database, listener, gateway_settings) as gateway:
        yield gateway


@pytest.fixture
async def elsewhere(dsn: str, settings: DatabaseSettings) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a second gateway on the same database."""
    database, listener = await Database.connect(settings), Listener(dsn)
    async with (
        running(database, listener, Settings(port=0, metrics_port=0)) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield channel
    await listener.close()
    await database.close()


@asynccontextmanager
async def running(
    database: Database, listener: Listener, gateway_settings: Settings
) -> AsyncIterator[tuple[Gateway, str]]:
    gateway = build_server(Runtime(gateway_settings, SECRET_KEY, database, listener))
    await listener.start()
    while not listener.connected:  # until then, sessions are not cached
        await asyncio.sleep(0.002)
    port = gateway.server.listen()
    await gateway.server.start()
    yield gateway, f"127.0.0.1:{port}"
    await gateway.server.stop(None)


@pytest.fixture
async def client(
    gateway: tuple[Gateway, str], database: Database, called_through: Face | None
) -> AsyncIterator[Client]:
    async with open_channel(gateway[1], called_through) as channel:
        yield Client(channel, TaskServiceStub(channel), AccountServiceStub(channel), database)


@pytest.fixture
async def ends(gateway: tuple[Gateway, str]) -> AsyncIterator[Ends]:
    """Ways to the gateway for each face."""
    async with ends_of(gateway[1]) as ends:
        yield ends


def open_channel(address: str, face: Face | None) -> grpc.aio.Channel:
    if face is None:
        return grpc.aio.insecure_channel(address)
    return cast(grpc.aio.Channel, FaceChannel(address, face))


@pytest.fixture(scope="session")
def corp() -> Iterator[OidcProvider]:
    """An OpenID Connect provider. The settings of the gateway must name it."""
    with oidc_provider() as provider:
        yield provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A provider that the test controls. The settings of the gateway must name it."""
    with serving(Provider()) as provider:
        yield provider


@pytest.fixture
def world(database: Database, dsn: str) -> Iterator[World]:
    world = World(database, dsn)
    yield world
    world.close()


@pytest.fixture
async def me(client: Client) -> Person:
    return await client.new_user()


@dataclass(frozen=True)
class Refusal:
    """The error status of a call, with its details."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    violations: dict[str, str]
    retry_after: float | None
    quota: list[str]


async def refusal(call: Awaitable[object]) -> Refusal:
    """Awaits a call that must fail. Checks the form of its status, which is the same for all errors."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(_awaited(call), 20)  # a call that hangs fails the test
    return read_refusal(caught.value)


async def outcome(call: Awaitable[object]) -> str:
    """OK, or the reason of the error."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return read_refusal(error).reason
    return "OK"


async def _awaited(call: Awaitable[object]) -> object:
    return await call


def read_refusal(error: grpc.aio.AioRpcError) -> Refusal:
    trailers = dict(error.trailing_metadata() or ())
    assert "grpc-status-details-bin" in trailers, error
    status = Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    assert len(trailers["grpc-status-details-bin"]) < 4096
    details = {detail.type_url.rpartition("/")[2]: detail.value for detail in status.details}
    info = ErrorInfo.FromString(details["google.rpc.ErrorInfo"])
    assert info.domain == "accord"
    bad = BadRequest.FromString(details.get("google.rpc.BadRequest", b""))
    retry = details.get("google.rpc.RetryInfo")
    quota = QuotaFailure.FromString(details.get("google.rpc.QuotaFailure", b""))
    return Refusal(
        code=error.code(),
        message=status.message,
        reason=info.reason,
        metadata=dict(info.metadata),
        violations={violation.field: violation.description for violation in bad.field_violations},
        retry_after=RetryInfo.FromString(retry).retry_delay.ToTimedelta().total_seconds() if retry else None,
        quota=[violation.subject for violation in quota.violations],
    )


@pytest.fixture
async def probe(database: Database, listener: Listener) -> AsyncIterator[ProbeClient]:
    server, probe = build_probe_server(database, listener, rate_limiter("async+memory://"))
    port = server.listen()
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ProbeClient(probe, channel, await signed_in_person(database))
    await server.stop(None)


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines
