"""The servers that are measured, and how each is started."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Final, NamedTuple

from benchmarks.calls import ACCORD, CANNED, PEER, CheckedCall, call_once
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


class Target(NamedTuple):
    name: str
    server: Server
    people: Sequence[Person]
    calls: Mapping[str, CheckedCall]


@contextmanager
def all_targets(databases: Databases, peer_python: Path, folder: Path) -> Iterator[list[Target]]:
    """All servers run throughout; an idle one costs nothing."""
    people = databases.accord_people
    with ExitStack() as running:
        peer = running.enter_context(_peer(peer_python, databases.peer, folder))
        accord = running.enter_context(gateway(GATEWAY, databases.accord, folder))
        uncached = running.enter_context(gateway(_variant("uncached"), databases.accord, folder))
        unsecured = running.enter_context(gateway(_variant("no-row-level-security"), databases.accord, folder))
        bare = running.enter_context(_bare(folder))
        canned = running.enter_context(gateway(_variant("canned"), databases.accord, folder))
        yield [
            Target("FastAPI", peer, databases.peer_people, PEER),
            Target("Accord", accord, people, ACCORD),
            Target("Accord, no session cache", uncached, people, {"GetTask": ACCORD["GetTask"]}),
            Target(
                "Accord, no row-level security",
                unsecured,
                people,
                {"GetTask": ACCORD["GetTask"], "ListTasks": ACCORD["ListTasks"]},
            ),
            Target("grpc.aio, bare", bare, people, {"no database": CANNED}),
            Target("Accord's pipeline", canned, people, {"no database": CANNED}),
        ]


def seconds_to_first_response(databases: Databases, folder: Path) -> float:
    """From the start of a gateway's process, on a migrated database."""
    began = perf_counter()
    with gateway(GATEWAY, databases.accord, folder) as server:
        call_once(server.port, ACCORD["GetTask"], databases.accord_people[0])
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
def _peer(python: Path, database: str, folder: Path) -> Iterator[Server]:
    port = free_port()
    command = [str(python), "-m", "uvicorn", "--app-dir", str(ROOT / "benchmarks" / "peer"), "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "server:app"]
    with serving(command, _environment() | {"PEER_DSN": database}, port, folder) as server:
        yield server


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
