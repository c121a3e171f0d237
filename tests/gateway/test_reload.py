"""`accord reload` and SIGHUP: new workers with new code and settings take over, and no call is lost."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

import accord_gateway
from accord_db.engine.database import Database
from tests.factories import signed_in_person
from tests.gateway import test_restarts
from tests.gateway.conftest import (
    ACCORD,
    GatewayProcess,
    Start,
    environment,
    eventually,
    health_of,
    healthy,
    read_metrics,
    run_command,
)
from tests.gateway.http2_caller import Http2Caller, let_all_call
from tests.gateway.test_tls import Files, is_served, trusting
from tests.ports import free_port

RELOADS = 2  # the second replaces workers that a reload has started
PAUSE = 0.01  # seconds after each call, so that clients leave time for the workers that start


def reload(gateway: GatewayProcess, **settings: object) -> "subprocess.CompletedProcess[str]":
    return run_command(["reload"], gateway.folder, settings)


def require_reload(gateway: GatewayProcess) -> None:
    done = reload(gateway)
    assert done.returncode == 0, done.stderr + gateway.output


def count(gateway: GatewayProcess, event: str) -> int:
    return sum(each["event"] == event for each in gateway.events)


@asynccontextmanager
async def http2_callers(address: str, headers: dict[str, str], number: int) -> AsyncIterator[list[Http2Caller]]:
    """They retry nothing. Fails if one has seen an error."""
    callers = [Http2Caller(address, "/v1/tasks", headers, pause=PAUSE) for _ in range(number)]
    for caller in callers:
        caller.start()
    yield callers
    await asyncio.gather(*(caller.stop() for caller in callers))
    assert [error for caller in callers for error in caller.errors] == []


@pytest.mark.parametrize("workers", [1, 2])
async def test_reloads_under_load_lose_no_call(
    start: Start, database_url: str, database: Database, workers: int
) -> None:
    person = await signed_in_person(database)
    gateway = start(SERVER="accord", DATABASE_URL=database_url, WORKERS=workers)
    address = await asyncio.to_thread(lambda: gateway.address)
    with test_restarts.callers(address, person, pause=PAUSE) as retrying:
        async with http2_callers(address, dict(person.headers), 2) as calling:
            for _ in range(RELOADS):
                await let_all_call(calling)
                await asyncio.to_thread(require_reload, gateway)
            await let_all_call(calling)
            await asyncio.to_thread(test_restarts.let_all_call, retrying)
    assert all(caller.connections > RELOADS for caller in calling)
    await asyncio.to_thread(eventually, lambda: len(gateway.workers()) == workers or None, gateway)
    assert await asyncio.to_thread(gateway.stop) == 0
    assert not gateway.processes()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_shutdown_fails_no_call_of_an_open_connection(
    start: Start, database_url: str, database: Database, workers: int
) -> None:
    person = await signed_in_person(database)
    gateway = start(SERVER="accord", DATABASE_URL=database_url, WORKERS=workers)
    address = await asyncio.to_thread(lambda: gateway.address)
    calling = [Http2Caller(address, "/v1/tasks", dict(person.headers), reconnects=False) for _ in range(2)]
    for caller in calling:
        caller.start()
    await let_all_call(calling)
    assert await asyncio.to_thread(gateway.stop) == 0
    await asyncio.gather(*(caller.stop() for caller in calling))
    assert [error for caller in calling for error in caller.errors] == []


def test_a_call_that_runs_during_a_reload_finishes(start: Start, database_url: str) -> None:
    gateway = start(SERVER="accord", DATABASE_URL=database_url)
    reloaded = threading.Event()

    def requests() -> Iterator[ServerReflectionRequest]:
        yield ServerReflectionRequest(list_services="")
        reloaded.wait()
        yield ServerReflectionRequest(file_containing_symbol="accord.tasks.v1.TaskService")

    with grpc.insecure_channel(gateway.address) as channel:
        responses = ServerReflectionStub(channel).ServerReflectionInfo(requests(), timeout=60)
        assert next(responses).HasField("list_services_response")
        require_reload(gateway)
        assert health_of(channel) == HealthCheckResponse.SERVING  # over another connection
        reloaded.set()
        assert next(responses).HasField("file_descriptor_response")
        assert list(responses) == []


def test_new_settings_take_effect(start: Start, database_url: str) -> None:
    gateway = start(SERVER="accord", DATABASE_URL=database_url)
    assert reflects(gateway)
    write_settings(gateway, REFLECTION="off", DRAIN_SECONDS=1)
    require_reload(gateway)
    assert not reflects(gateway)
    write_settings(gateway, REFLECTION="on")
    require_reload(gateway)
    assert reflects(gateway)


def test_the_log_has_the_new_format(start: Start, database_url: str) -> None:
    gateway = start(SERVER="accord", DATABASE_URL=database_url, LOG_FORMAT="")
    eventually(lambda: "listening" in gateway.output or None, gateway)
    assert not gateway.events
    write_settings(gateway, LOG_FORMAT="json")
    require_reload(gateway)
    assert gateway.event("reloaded")


def test_with_invalid_settings_the_former_process_continues(start: Start, database_url: str) -> None:
    gateway = start(SERVER="accord", DATABASE_URL=database_url)
    address, serving = gateway.address, gateway.processes()
    write_settings(gateway, DRAIN_SECONDS="soon")
    done = reload(gateway)
    assert done.returncode == 1
    assert "continues with its former code and settings" in done.stderr
    assert "DRAIN_SECONDS" in done.stderr
    assert "DRAIN_SECONDS" in str(gateway.event("not_reloaded")["reason"])
    eventually(lambda: gateway.processes() == serving or None, gateway)
    assert healthy(address)
    write_settings(gateway)
    require_reload(gateway)
    assert healthy(address)


def test_a_worker_that_cannot_start_leaves_the_former_ones(start: Start, database_url: str, tmp_path: Path) -> None:
    gateway = start(SERVER="accord", DATABASE_URL=database_url, WORKERS=2)
    address, serving = gateway.address, gateway.processes()
    files = Files(trustme.CA(), tmp_path / "server.pem", tmp_path / "server.key")
    files.issue()
    files.key.write_text("not a key")
    write_settings(gateway, **files.settings)
    done = reload(gateway)
    assert done.returncode == 1
    assert "server.key" in done.stderr
    eventually(lambda: gateway.processes() == serving or None, gateway)
    assert healthy(address)
    assert "Traceback" not in gateway.output
    files.issue()
    require_reload(gateway)
    assert is_served(address, trusting(files.authority))


def test_what_only_a_restart_can_change_is_named(start: Start, database_url: str) -> None:
    gateway = start(SERVER="accord")
    assert healthy(gateway.address)
    write_settings(gateway, DATABASE_URL=database_url, UNIX_SOCKET="accord.sock", METRICS_HOST="::1")
    done = reload(gateway)
    assert done.returncode == 1
    changed = "UNIX_SOCKET, METRICS_HOST and DATABASE_URL"
    assert f"{changed} cannot change by a reload. Restart the gateway, or undo the change." in done.stderr
    assert healthy(gateway.address)
    write_settings(gateway)
    require_reload(gateway)  # with the embedded PostgreSQL
    assert healthy(gateway.address)


def test_grpcio_refuses_to_reload(start: Start, database_url: str) -> None:
    gateway = start(SERVER="grpcio", DATABASE_URL=database_url)
    assert healthy(gateway.address)
    done = reload(gateway)
    assert done.returncode == 1
    assert "SERVER=grpcio" in done.stderr
    assert healthy(gateway.address)


def test_without_a_gateway_it_says_so(tmp_path: Path) -> None:
    done = run_command(["reload"], tmp_path, {})
    assert done.returncode == 1
    assert "No gateway runs with the state folder .accord" in done.stderr


def test_after_a_gateway_was_killed_it_says_so(start: Start, database_url: str) -> None:
    gateway = start(SERVER="accord", DATABASE_URL=database_url)
    assert healthy(gateway.address)
    gateway.process.kill()
    gateway.process.wait()
    assert "No gateway runs" in reload(gateway).stderr


def test_a_state_folder_with_a_long_path_works(start: Start, database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    gateway = start(SERVER="accord", DATABASE_URL=database_url, STATE_FOLDER=folder)
    assert healthy(gateway.address)
    done = reload(gateway, STATE_FOLDER=folder)
    assert done.returncode == 0, done.stderr


def test_requests_during_a_reload_share_the_next_one(start: Start, database_url: str) -> None:
    gateway = start(SERVER="accord", DATABASE_URL=database_url)
    assert healthy(gateway.address)
    gateway.process.send_signal(signal.SIGHUP)
    eventually(lambda: gateway.workers() or None, gateway)
    for _ in range(3):
        gateway.process.send_signal(signal.SIGHUP)
        time.sleep(0.02)
    require_reload(gateway)
    assert count(gateway, "reloaded") == 2
    eventually(lambda: len(gateway.workers()) == 1 or None, gateway)
    assert healthy(gateway.address)


def test_a_shutdown_during_a_reload_leaves_no_process(start: Start, database_url: str) -> None:
    gateway = start(SERVER="accord", DATABASE_URL=database_url, WORKERS=2)
    assert healthy(gateway.address)
    before = len(gateway.workers())
    gateway.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(gateway.workers()) > before or None, gateway)
    assert gateway.stop() == 0
    eventually(lambda: not gateway.processes() or None)
    assert "Traceback" not in gateway.output


def test_killing_the_supervisor_during_a_reload_leaves_no_process(start: Start, database_url: str) -> None:
    gateway = start(SERVER="accord", DATABASE_URL=database_url, WORKERS=2)
    assert healthy(gateway.address)
    before = len(gateway.workers())
    gateway.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(gateway.workers()) > before or None, gateway)
    gateway.process.kill()
    gateway.process.wait()
    eventually(lambda: not gateway.processes() or None)


def test_new_code_is_taken_up(start: Start, database_url: str, tmp_path: Path) -> None:
    """The folder of a gateway is the first place where Python looks for modules."""
    package = tmp_path / "accord_gateway"
    shutil.copytree(Path(accord_gateway.__file__).parent, package)
    gateway = start(SERVER="accord", DATABASE_URL=database_url, forked=False)
    assert alive(gateway) == "alive"
    pages = package / "server" / "pages.py"
    pages.write_text(pages.read_text().replace('{"status": "alive"}', '{"status": "renewed"}'))
    require_reload(gateway)
    assert alive(gateway) == "renewed"


def test_metrics_are_those_of_the_workers(start: Start, database_url: str) -> None:
    metrics = free_port()
    gateway = start(SERVER="accord", DATABASE_URL=database_url, METRICS_PORT=metrics, DB_POOL_SIZE=3)
    assert healthy(gateway.address)
    for _ in range(2):
        require_reload(gateway)
        assert healthy(gateway.address)
        eventually(lambda: "db_connection_pool_size 3.0" in read_metrics(metrics) or None, gateway)
    line = 'grpc_server_handled_total{code="OK",method="Check",service="grpc.health.v1.Health"} 2.0'
    assert line in read_metrics(metrics)
    assert eventually(
        lambda: counter_files(gateway) == {f"counter_{gateway.workers()[0]}.db", "counter_ended.db"} or None
    )
    assert gateway.stop() == 0


def counter_files(gateway: GatewayProcess) -> set[str]:
    return {file.name for file in (gateway.folder / ".accord").glob("metrics-*/counter_*")}


def test_closing_the_terminal_still_shuts_it_down(database_url: str, tmp_path: Path) -> None:
    pid, terminal = os.forkpty()
    if pid == 0:
        os.chdir(tmp_path)
        env = environment({"SERVER": "accord", "DATABASE_URL": database_url})
        os.execve(ACCORD[0], (*ACCORD, "serve"), env)  # in the new terminal
    output = b""
    while b'"listening"' not in output:
        output += os.read(terminal, 64 * 1024)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def reflects(gateway: GatewayProcess) -> bool:
    with suppress(urllib.error.HTTPError), urllib.request.urlopen(f"http://{gateway.address}/openapi.json"):
        return True
    return False


def alive(gateway: GatewayProcess) -> object:
    with urllib.request.urlopen(f"http://{gateway.address}/healthz") as response:
        return json.load(response)["status"]


def write_settings(gateway: GatewayProcess, **settings: object) -> None:
    lines = (f"{name}={value}\n" for name, value in settings.items())
    (gateway.folder / ".env").write_text("".join(lines))
