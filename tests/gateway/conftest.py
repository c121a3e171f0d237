"""Gateways as processes, started with the command `accord serve` in an empty folder."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TypeVar
from urllib.parse import quote, urlencode

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from psycopg.conninfo import conninfo_to_dict

from accord_gateway.event_loop import EventLoop
from accord_gateway.settings import Settings
from accord_postgres import EmbeddedPostgres
from tests.conftest import temporary_database
from tests.gateway.launcher import Command, Launcher

TIMEOUT = 60.0  # seconds
ACCORD = (sys.executable, "-m", "accord_gateway")

T = TypeVar("T")


@dataclass
class GatewayProcess:
    """`log` is a file with standard output and standard error."""

    process: "subprocess.Popen[bytes] | Command"
    folder: Path
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]

    @property
    def address(self) -> str:
        return str(self.event("listening")["address"])

    def event(self, name: str) -> dict[str, object]:
        """Waits until the gateway logs this event."""
        return eventually(lambda: next((event for event in self.events if event["event"] == name), None), self)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def processes(self) -> dict[int, str]:
        """Commands by process id, for all processes in the gateway's folder: itself, its workers, its PostgreSQL."""
        return dict(_commands_in(self.folder))

    def workers(self) -> list[int]:
        return [pid for pid, command in self.processes().items() if "accord_gateway worker" in command]


Start = Callable[..., GatewayProcess]


def pytest_asyncio_loop_factories() -> dict[str, type[EventLoop]]:
    """Tests run on the event loop of gateways, whose errors and TLS differ from asyncio's."""
    return {"gateway": EventLoop}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a gateway with settings by name. Without DATABASE_URL it runs the embedded PostgreSQL."""
    with gateways(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def gateway(postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Shared by tests that do not change it."""
    folder = tmp_path_factory.mktemp("gateway")
    with temporary_database(postgres, template=template) as dsn, gateways(folder) as start:
        yield start(DATABASE_URL=url(dsn))


@contextmanager
def gateways(folder: Path) -> Iterator[Start]:
    started: list[GatewayProcess] = []

    def start(*, forked: bool = True, **settings: object) -> GatewayProcess:
        log = folder / f"log-{len(started)}"
        with log.open("wb") as output:
            process = start_command(["serve"], folder, settings, output, forked=forked)
        started.append(GatewayProcess(process, folder, log))
        return started[-1]

    yield start
    for gateway in started:
        with suppress(ProcessLookupError):
            os.killpg(gateway.process.pid, signal.SIGKILL)
        gateway.process.wait()


@cache
def launcher() -> Launcher:
    """One for all tests of this process."""
    return Launcher()


@pytest.fixture(scope="session", autouse=True)
def _launcher_ends() -> Iterator[None]:
    yield
    if launcher.cache_info().currsize:
        launcher().close()
        launcher.cache_clear()


def start_command(
    args: Sequence[str], folder: Path, settings: Mapping[str, object], output: IO[bytes], *, forked: bool = True
) -> "subprocess.Popen[bytes] | Command":
    env = environment(settings)
    if forked and may_be_forked(settings):
        return launcher().start(args, folder, env, output, output)
    return subprocess.Popen([*ACCORD, *args], cwd=folder, env=env, stdout=output, stderr=output, start_new_session=True)


def run_command(
    args: Sequence[str], folder: Path, settings: Mapping[str, object], *, forked: bool = True
) -> "subprocess.CompletedProcess[str]":
    env = environment(settings)
    if forked and may_be_forked(settings):
        return launcher().run(args, folder, env)
    return subprocess.run([*ACCORD, *args], cwd=folder, env=env, capture_output=True, text=True, timeout=TIMEOUT)


def may_be_forked(settings: Mapping[str, object]) -> bool:
    """Libraries read other variables than settings when they are imported."""
    return all(name.lower() in Settings.model_fields for name in settings)


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """The environment of the tests, without variables that are settings."""
    others = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    defaults = {"PORT": 0, "METRICS_PORT": 0, "LOG_FORMAT": "json", "SERVER": Settings().server}
    return others | {name: str(value) for name, value in (defaults | dict(settings)).items()}


@pytest.fixture
def database_url(dsn: str) -> str:
    return url(dsn)


def url(dsn: str) -> str:
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    return f"postgresql:///{quote(parts.pop('dbname'))}?{urlencode(parts)}"


@pytest.fixture
def separate_postgres() -> Iterator[EmbeddedPostgres]:
    """A running server, on a Unix socket, that the test may stop and start."""
    with TemporaryDirectory(prefix="accord-") as folder, EmbeddedPostgres(Path(folder), sync=False) as server:
        yield server


def read_metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        return str(response.read().decode())


def healthy(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        return health_of(channel) == int(HealthCheckResponse.SERVING)


def health_of(channel: grpc.Channel, service: str = "") -> int:
    check = health_pb2_grpc.HealthStub(channel).Check
    return int(check(HealthCheckRequest(service=service), timeout=10, wait_for_ready=True).status)


def eventually(poll: Callable[[], T | None], gateway: GatewayProcess | None = None) -> T:
    """Polls until the result is not None. Fails if the gateway ends, or after a minute."""
    deadline = time.monotonic() + TIMEOUT
    while (result := poll()) is None:
        output = f"; its output:\n{gateway.output}" if gateway else ""
        assert gateway is None or gateway.process.poll() is None, f"the gateway has ended{output}"
        assert time.monotonic() < deadline, f"no result within {TIMEOUT} s{output}"
        time.sleep(0.02)
    return result


def _commands_in(folder: Path) -> Iterator[tuple[int, str]]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(folder):
                yield int(process.name), (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
