"""A service with all four kinds of call inside the real pipeline. The `act` of a request selects a misbehavior."""

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_tools import protoc
from protovalidate import Validator
from sqlalchemy import select

from accord.errors.v1.errors_pb2 import Reason
from accord.policy.v1.policy_pb2 import CREDENTIAL_API_KEY, CREDENTIAL_SESSION
from accord_auth.api_keys import ApiKeys
from accord_auth.credentials import Authenticators
from accord_auth.interceptor import AuthInterceptor
from accord_auth.sessions import Sessions
from accord_db.engine.database import Database
from accord_db.engine.listen import Listener
from accord_db.engine.scope import tenant
from accord_db.schema import Task
from accord_gateway.server.servers import GatewayServer, make_server
from accord_gateway.settings import Settings
from accord_rpc.caller import Caller, caller
from accord_rpc.client_address import ClientAddresses, Network
from accord_rpc.contract import Registry, check
from accord_rpc.errors import RpcError
from accord_rpc.pipeline import Pipeline, Routes
from accord_rpc.pipeline.counters import Counters
from accord_rpc.pipeline.rate_limits import limit_account
from accord_rpc.pipeline.telemetry import call_metrics
from accord_rpc.protocols.pages import Pages
from tests.factories import Person

_PROTOS = Path(__file__).parent / "protos"
_CONTRACT = Path(__file__).parents[2] / "proto"


@cache
def generated() -> tuple[ModuleType, ModuleType]:
    """The messages and stubs of the probe, generated at the first use. Code generated for tests is not committed."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    with TemporaryDirectory(prefix="accord-probe-") as target:
        rules = _rules_descriptor(target)
        arguments = ["protoc", f"-I{_PROTOS}", f"-I{_CONTRACT}", f"-I{packages}", f"--descriptor_set_in={rules}"]
        arguments += [f"--python_out={target}", f"--grpc_python_out={target}", "probe/v1/probe.proto"]
        assert protoc.main(arguments) == 0
        sys.path.append(target)
        try:
            return importlib.import_module("probe.v1.probe_pb2"), importlib.import_module("probe.v1.probe_pb2_grpc")
        finally:
            sys.path.remove(target)


def _rules_descriptor(target: str) -> Path:
    from stubs import _validation_rules

    path = Path(target) / "rules.binpb"
    path.write_bytes(_validation_rules().SerializeToString())
    return path


class Probe:
    """The handlers of the probe, which perform the act of the request. `entered` counts the handlers that ran."""

    def __init__(self, database: Database) -> None:
        self._messages, _ = generated()
        self._database = database
        self.entered = 0
        self.conflicts = 0
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()

    async def act(self, name: str, text: str) -> str:
        self.entered += 1
        if name == "sleep":
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if name == "tenant":
            return tenant().decode()
        if name == "owner":  # getattr hides the attribute from the check at startup
            return str(getattr(caller(), text))
        if name == "tasks":  # a query without a predicate on the owner
            return " ".join(await self._database.fetch_all(select(Task.title)))
        await _ACTS.get(name, _nothing)(self)
        return text

    def response(self, text: str) -> Any:
        return self._messages.ProbeResponse(text=text)

    async def Unary(self, request: Any, context: object) -> Any:
        if request.act == "return nothing":
            return None
        if request.act == "account id":
            return self.response(str(caller().account_id))
        return self.response(await self.act(request.act, request.text))

    async def ServerStream(self, request: Any, context: object) -> AsyncIterator[Any]:
        for _ in range(3):
            yield self.response(request.text)
        await self.act(request.act, "")

    async def ClientStream(self, requests: AsyncIterator[Any], context: object) -> Any:
        return self.response(",".join([await self.act(request.act, request.text) async for request in requests]))

    async def BothStream(self, requests: AsyncIterator[Any], context: object) -> AsyncIterator[Any]:
        async for request in requests:
            yield self.response(await self.act(request.act, request.text))

    async def GuessByToken(self, request: Any, context: object) -> Any:
        """`text` is the id of the account to which the token belongs."""
        if request.act == "in a transaction":
            async with self._database.transaction():
                await limit_account(UUID(request.text))
        if request.act != "forget the limit":
            await limit_account(UUID(request.text))
        return await self.Unary(request, context)

    Watch = ServerStream
    Owned = Public = Limited = LimitedByPeer = Fresh = Admin = Service = KeysOnly = Audited = Unary
    Durable = DurableByPeer = LimitedTwice = Guess = Unary


def owner_of(me: Caller) -> UUID:
    """For handlers that the check at startup must refuse."""
    return me.owner_id


async def _nothing(probe: Probe) -> None:
    pass


async def _raise_value_error(probe: Probe) -> None:
    raise ValueError("secret text of a fault")


async def _raise_cancelled(probe: Probe) -> None:
    raise asyncio.CancelledError


async def _raise_timeout(probe: Probe) -> None:
    raise TimeoutError("secret text of a fault")


async def _exit(probe: Probe) -> None:
    sys.exit(3)


async def _refuse(probe: Probe) -> None:
    raise RpcError(Reason.REASON_TASK_NOT_FOUND, task_id="7")


async def _refuse_undeclared(probe: Probe) -> None:
    raise RpcError(Reason.REASON_SIGN_IN_REFUSED)


async def _conflict_twice(probe: Probe) -> None:
    from accord_db.engine.errors import Conflict

    probe.conflicts += 1
    if probe.conflicts < 3:
        raise Conflict("lost", sqlstate="40001")


async def _conflict_always(probe: Probe) -> None:
    from accord_db.engine.errors import Conflict

    probe.conflicts += 1
    raise Conflict("lost", sqlstate="40P01")


async def _have_no_database(probe: Probe) -> None:
    from accord_db.engine.errors import Unavailable

    raise Unavailable("gone")


async def _refuse_undecided(probe: Probe) -> None:
    raise RpcError(Reason.REASON_AUTHORIZATION_PENDING, retry_after=5)


async def _wait(probe: Probe) -> None:
    await probe.go_on.wait()


async def _limit_account(probe: Probe) -> None:
    await limit_account(uuid4())


_ACTS: dict[str, Callable[[Probe], Any]] = {
    "raise": _raise_value_error,
    "cancel": _raise_cancelled,
    "time out": _raise_timeout,
    "exit": _exit,
    "refuse": _refuse,
    "refuse undeclared": _refuse_undeclared,
    "refuse undecided": _refuse_undecided,
    "have no database": _have_no_database,
    "wait": _wait,
    "limit account": _limit_account,
    "conflict twice": _conflict_twice,
    "conflict always": _conflict_always,
}


def build_probe_server(
    database: Database,
    listener: Listener,
    counters: Counters,
    proxies: Sequence[Network] = (),
    *,
    host: str = "127.0.0.1",
) -> tuple[GatewayServer, Probe]:
    messages, stubs = generated()
    probe, registered = Probe(database), Registry()
    servicer = type("ProbeService", (stubs.ProbeServiceServicer,), {})()
    for name in vars(Probe):
        if name[0].isupper():
            setattr(servicer, name, getattr(probe, name))
    stubs.add_ProbeServiceServicer_to_server(servicer, registered)
    services = [messages.DESCRIPTOR.services_by_name["ProbeService"]]
    return build_pipeline_server(database, listener, counters, services, registered, proxies, host=host), probe


def build_pipeline_server(
    database: Database,
    listener: Listener,
    counters: Counters,
    services: Sequence[ServiceDescriptor],
    registered: Registry,
    proxies: Sequence[Network] = (),
    *,
    host: str = "127.0.0.1",
) -> GatewayServer:
    """A server with only these services inside the pipeline of the gateway."""
    validator = Validator()
    methods = check(services, registered, validator)
    sessions = Sessions(database, listener, lifetime=timedelta(hours=1))
    authenticators: Authenticators = {
        CREDENTIAL_SESSION: sessions,
        CREDENTIAL_API_KEY: ApiKeys(database, sessions.cache),
    }
    access = partial(AuthInterceptor.of, authenticators=authenticators, streams=sessions.streams, clock=database.clock)
    pipeline = Pipeline(database, access, counters, validator, call_metrics(), ClientAddresses(proxies), max_calls=1000)
    routes = Routes(pipeline, {method: registered.handlers[method.path] for method in methods})
    return make_server(routes, Settings(host=host, port=0), Pages({}))


@dataclass
class ProbeClient:
    probe: Probe
    channel: grpc.aio.Channel
    person: Person

    @property
    def database(self) -> Database:
        return self.probe._database

    async def call(
        self, method: str, act: str = "", text: str = "", *, headers: Any = None, **options: Any
    ) -> list[str]:
        """The texts of all responses, for every kind of method."""
        messages, _ = generated()
        request = messages.ProbeRequest(act=act, text=text)
        return await self.send(method, request, headers=headers, **options)

    async def send(self, method: str, *requests: Any, headers: Any = None, **options: Any) -> list[str]:
        _, stubs = generated()
        options.setdefault("timeout", None)
        options["metadata"] = self.person.headers if headers is None else headers
        stub = getattr(stubs.ProbeServiceStub(self.channel), method)
        argument = requests[0] if method not in ("ClientStream", "BothStream") else list(requests)
        call = stub(argument, **options)
        if method in ("ServerStream", "BothStream", "Watch"):
            return [response.text async for response in call]
        return [(await call).text]
