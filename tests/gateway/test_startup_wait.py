"""The start waits for its database for at most DB_START_WAIT."""

import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from accord_postgres import EmbeddedPostgres
from tests.db.programs import recording_server
from tests.gateway.conftest import GatewayProcess, Start, environment, eventually, healthy
from tests.ports import free_port

# A resolver that waits for a name server in C, where no signal handler of Python runs: this mutex is locked twice.
RESOLVER_THAT_HANGS = """
import ctypes, socket

resolve = socket.getaddrinfo

def getaddrinfo(host, *arguments, **keywords):
    if host != "db.example.com":
        return resolve(host, *arguments, **keywords)
    print("resolving", flush=True)
    mutex = ctypes.create_string_buffer(64)
    libc = ctypes.CDLL(None)
    while True:
        libc.pthread_mutex_lock(mutex)

socket.getaddrinfo = getaddrinfo
"""


Database = Callable[[Path], AbstractContextManager["Unreachable"]]


def reasons(gateway: GatewayProcess) -> list[str]:
    return [str(event["reason"]) for event in gateway.events if event["event"] == "database_unreachable"]


@pytest.mark.parametrize("workers", [1, 2])
def test_gateway_started_before_its_database_serves_once_the_database_runs(
    start: Start, separate_postgres: EmbeddedPostgres, workers: int
) -> None:
    separate_postgres.stop()
    gateway = start(DATABASE_URL=separate_postgres.dsn, WORKERS=workers)
    gateway.event("database_unreachable")
    separate_postgres.start()
    assert healthy(gateway.address)
    assert gateway.stop() == 0


def test_gateway_gives_up_after_the_wait_and_logs_each_reason_once(start: Start) -> None:
    port = free_port()
    gateway = start(DATABASE_URL=f"postgresql://accord:s3cret@127.0.0.1:{port}/accord", DB_START_WAIT="4s")
    gateway.event("database_unreachable")
    with recording_server(port) as (_, clients):
        eventually(lambda: len(clients) > 2 or None, gateway)
    assert gateway.process.wait(30) == 1
    refused, closed = reasons(gateway)
    assert "Connection refused" in refused
    assert "closed the connection" in closed
    assert "accord: Cannot connect to the database: connection failed" in gateway.output
    assert "s3cret" not in gateway.output
    assert "Traceback" not in gateway.output


def test_without_a_wait_the_first_attempt_is_the_last(start: Start) -> None:
    with recording_server() as (port, clients):
        gateway = start(DATABASE_URL=f"postgresql://accord@127.0.0.1:{port}/accord", DB_START_WAIT="0s")
        assert gateway.process.wait(30) == 1
    assert len(clients) == 1
    assert reasons(gateway) == []


@dataclass
class Unreachable:
    """Settings with an unreachable database, and whether a gateway waits for it."""

    settings: dict[str, str]
    is_awaited: Callable[[GatewayProcess], object]


@contextmanager
def refused(_: Path) -> Iterator[Unreachable]:
    yield Unreachable({"DATABASE_URL": f"postgresql://accord@127.0.0.1:{free_port()}/accord"}, reasons)


@contextmanager
def silent(_: Path) -> Iterator[Unreachable]:
    """A server that accepts connections and never responds, like a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"postgresql://accord@127.0.0.1:{listening.getsockname()[1]}/accord"
        yield Unreachable({"DATABASE_URL": url}, lambda _: select.select([listening], [], [], 0)[0])


@contextmanager
def unresolved(folder: Path) -> Iterator[Unreachable]:
    (folder / "sitecustomize.py").write_text(RESOLVER_THAT_HANGS)
    settings = {"DATABASE_URL": "postgresql://accord@db.example.com/accord", "PYTHONPATH": str(folder)}
    yield Unreachable(settings, lambda gateway: "resolving" in gateway.output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("database", [refused, silent, unresolved])
def test_signal_ends_the_wait_at_once(start: Start, tmp_path: Path, database: Database, number: signal.Signals) -> None:
    with database(tmp_path) as unreachable:
        gateway = start(**unreachable.settings, DB_START_WAIT="1h")
        eventually(lambda: unreachable.is_awaited(gateway) or None, gateway)
        since = time.monotonic()
        assert gateway.stop(number) == 130
        assert time.monotonic() - since < 5
    assert "Traceback" not in gateway.output
    assert not gateway.processes()


def command(name: str, folder: Path, **settings: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "accord_gateway", name],
        cwd=folder,
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_migrate_waits_for_the_database(tmp_path: Path, separate_postgres: EmbeddedPostgres) -> None:
    separate_postgres.stop()
    migrate = command("migrate", tmp_path, DATABASE_URL=separate_postgres.dsn)
    assert migrate.stdout is not None
    assert "database_unreachable" in migrate.stdout.readline()
    separate_postgres.start()
    assert "The database is at the last migration." in migrate.communicate(timeout=60)[0]
    assert migrate.returncode == 0


def test_doctor_does_not_wait_for_the_database(tmp_path: Path) -> None:
    doctor = command("doctor", tmp_path, DATABASE_URL="postgresql://accord@127.0.0.1:1/accord", DB_START_WAIT="1h")
    output, _ = doctor.communicate(timeout=60)
    assert "cannot connect to the database" in output
    assert "database_unreachable" not in output
    assert doctor.returncode == 1
