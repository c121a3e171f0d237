"""The servers that are measured, and how each is started."""

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Final, NamedTuple

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmarks.calls import (
    CANNED_CONNECT,
    CANNED_GRPC,
    CANNED_REST,
    CONNECT,
    GRPC,
    PEER,
    REST,
    CheckedCall,
    call_once,
)
from benchmarks.data import Databases, Person
from benchmarks.processes import Server, free_port, serving

ROOT: Final = Path(__file__).parent.parent

GATEWAY: Final = [sys.executable, "-m", "accord_gateway", "serve"]
# As in production, without TLS: a proxy would end it, and the embedded PostgreSQL has none.
GATEWAY_SETTINGS: Final = {
    "LOG_FORMAT": "json",
    "REFLECTION": "off",
    "MIGRATE_ON_START": "false",
    "WORKERS": "1",
    "SECRET_KEY": "a key that is used for nothing but benchmarks",
}
# What the peer in Go has of the contract.
GO: Final = {name: GRPC[name] for name in ("GetTask", "ListTasks", "CreateTask")}


class Target(NamedTuple):
    """Calls of one kind to one server. Several targets may share a server."""

    name: str
    server: Server
    people: Sequence[Person]
    calls: Mapping[str, CheckedCall]


class Programs(NamedTuple):
    """What was installed or built for the peers. `go` is None if it cannot be built here, `other_python` if no other checkout
    is measured."""

    fastapi_python: Path
    go: Path | None
    other_python: Path | None = None


class Servers:
    """Starts a server when it is first needed. All of them run until the end; an idle one costs nothing."""

    def __init__(self, databases: Databases, programs: Programs, folder: Path, running: ExitStack) -> None:
        self._databases = databases
        self._programs = programs
        self._folder = folder
        self._running = running
        self._started: dict[tuple[str, str], Server] = {}

    def fastapi(self) -> Server:
        return self._once(
            ("fastapi", ""), lambda: _fastapi(self._programs.fastapi_python, self._databases.peer, self._folder)
        )

    def go(self, variant: str = "") -> Server:
        program = self._programs.go
        assert program is not None
        return self._once(("go", variant), lambda: _go(program, variant, self._databases.peer, self._folder))

    def bare(self) -> Server:
        return self._once(("bare", ""), lambda: _bare(self._folder))

    def gateway(self, server: str, variant: str = "") -> Server:
        command = _variant(variant) if variant else GATEWAY
        return self._once(
            (server, variant), lambda: gateway(command, self._databases.accord, self._folder, {"SERVER": server})
        )

    def other(self) -> Server:
        command = [str(self._programs.other_python), *GATEWAY[1:]]
        return self._once(("other", ""), lambda: gateway(command, self._databases.accord, self._folder))

    def _once(self, key: tuple[str, str], start: Callable[[], AbstractContextManager[Server]]) -> Server:
        if key not in self._started:
            self._started[key] = self._running.enter_context(start())
        return self._started[key]


class _Plan(NamedTuple):
    front: str
    start: Callable[[], Server]
    calls: Mapping[str, CheckedCall]


# The name on the command line, and in the tables.
FRONTS: Final = {
    "fastapi": "FastAPI",
    "go": "Go",
    "go-cached": "Go, session cache",
    "grpcio": "Accord on grpcio",
    "accord": "Accord",
    "rest": "Accord, REST",
    "connect": "Accord, Connect JSON",
    "uncached": "Accord, no session cache",
    "unsecured": "Accord, no row-level security",
    "other": "Accord, other checkout",
    "bare": "grpc.aio, bare",
}
PEERS: Final = ("fastapi", "go", "go-cached")


@contextmanager
def all_targets(
    databases: Databases, programs: Programs, folder: Path, fronts: Collection[str], calls: Collection[str]
) -> Iterator[list[Target]]:
    """Those of `fronts` that can make one of `calls`."""
    with ExitStack() as running:
        plans = _plans(Servers(databases, programs, folder, running))
        yield [
            Target(FRONTS[plan.front], plan.start(), _people(databases, plan.front), plan.calls)
            for plan in plans
            if plan.front in fronts
            and any(call in plan.calls for call in calls)
            and (programs.go is not None or not plan.front.startswith("go"))
            and (programs.other_python is not None or plan.front != "other")
        ]


def _plans(servers: Servers) -> list[_Plan]:
    return [
        _Plan("fastapi", servers.fastapi, PEER),
        _Plan("go", servers.go, GO),
        _Plan("go-cached", partial(servers.go, "cached"), GO),
        _Plan("go-cached", partial(servers.go, "canned"), CANNED_GRPC),
        _Plan("bare", servers.bare, CANNED_GRPC),
        _Plan("grpcio", partial(servers.gateway, "grpcio"), _some(GRPC, *GO)),
        _Plan("grpcio", partial(servers.gateway, "grpcio", "canned"), CANNED_GRPC),
        _Plan("accord", partial(servers.gateway, "accord"), GRPC),
        _Plan("accord", partial(servers.gateway, "accord", "canned"), CANNED_GRPC),
        _Plan("other", servers.other, GRPC),
        _Plan("rest", partial(servers.gateway, "accord"), REST),
        _Plan("rest", partial(servers.gateway, "accord", "canned"), CANNED_REST),
        _Plan("connect", partial(servers.gateway, "accord"), CONNECT),
        _Plan("connect", partial(servers.gateway, "accord", "canned"), CANNED_CONNECT),
        _Plan("uncached", partial(servers.gateway, "accord", "uncached"), _some(GRPC, "GetTask")),
        _Plan(
            "unsecured",
            partial(servers.gateway, "accord", "no-row-level-security"),
            _some(GRPC, "GetTask", "ListTasks"),
        ),
    ]


def _some(calls: Mapping[str, CheckedCall], *names: str) -> Mapping[str, CheckedCall]:
    return {name: calls[name] for name in names}


def _people(databases: Databases, front: str) -> Sequence[Person]:
    return databases.peer_people if front in PEERS else databases.accord_people


def seconds_to_first_response(databases: Databases, folder: Path, server: str = "accord") -> float:
    """From the start of a gateway's process, on a migrated database."""
    began = perf_counter()
    with gateway(GATEWAY, databases.accord, folder, {"SERVER": server}) as started:
        call_once(started.port, GRPC["GetTask"], databases.accord_people[0])
        return perf_counter() - began


@contextmanager
def gateway(
    command: Sequence[str],
    database: str,
    folder: Path,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Server]:
    port, metrics_port = free_port(), free_port()
    settings = {"DATABASE_URL": database, "PORT": str(port), "METRICS_PORT": str(metrics_port), **more}
    with serving(command, _environment() | GATEWAY_SETTINGS | settings, port, folder) as server:
        yield server


@contextmanager
def _fastapi(python: Path, database: str, folder: Path) -> Iterator[Server]:
    port = free_port()
    command = [str(python), "-m", "uvicorn", "--app-dir", str(ROOT / "benchmarks" / "peer"), "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "server:app"]
    with serving(command, _environment() | {"PEER_DSN": database}, port, folder) as server:
        yield server


@contextmanager
def _go(program: Path, variant: str, database: str, folder: Path) -> Iterator[Server]:
    port = free_port()
    wanted = {name: value for name, value in conninfo_to_dict(database).items() if name in _LIB_PQ}
    command = [str(program), make_conninfo(**wanted, sslmode="disable"), str(port), *filter(None, [variant])]
    with serving(command, _environment(), port, folder) as server:
        yield server


# The parameters that lib/pq does not send to the server as settings.
_LIB_PQ: Final = ("host", "port", "user", "password", "dbname")


@contextmanager
def _bare(folder: Path) -> Iterator[Server]:
    port = free_port()
    with serving([sys.executable, "-m", "benchmarks.bare", str(port)], _environment(), port, folder) as server:
        yield server


def _variant(name: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.variants", name]


def _environment() -> dict[str, str]:
    """Without the developer's settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT)}
