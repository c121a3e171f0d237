"""Several workers on one port, and their supervisor."""

import os
import signal
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from accord_rpc.server.listening import bind_unix
from tests.gateway.conftest import Start, eventually, healthy, read_metrics, run_command
from tests.ports import free_port


def checks_counted(port: int) -> int:
    line = 'grpc_server_handled_total{code="OK",method="Check",service="grpc.health.v1.Health"}'
    values = [text.partition(line)[2] for text in read_metrics(port).splitlines() if text.startswith(line)]
    return int(float(values[0])) if values else 0


def test_calls_are_distributed_over_workers_and_counted_together(start: Start, database_url: str) -> None:
    metrics = free_port()
    gateway = start(DATABASE_URL=database_url, WORKERS=2, METRICS_PORT=metrics)
    for _ in range(30):
        assert healthy(gateway.address)
    assert checks_counted(metrics) == 30
    folder = gateway.folder / ".accord" / f"metrics-{gateway.address.rpartition(':')[2]}"
    assert {file.stem.rpartition("_")[2] for file in folder.glob("counter_*.db")} == set(map(str, gateway.workers()))
    assert "db_connection_pool_size 20.0" in read_metrics(metrics)
    assert gateway.stop() == 0
    assert not gateway.processes()


def test_a_worker_that_dies_is_replaced_and_its_counts_remain(start: Start, database_url: str) -> None:
    metrics = free_port()
    gateway = start(DATABASE_URL=database_url, WORKERS=2, METRICS_PORT=metrics, DB_POOL_SIZE=3)
    for _ in range(10):
        assert healthy(gateway.address)
    dead = gateway.workers()[0]
    os.kill(dead, signal.SIGKILL)
    assert gateway.event("worker_died")["pid"] == dead
    eventually(lambda: "db_connection_pool_size 6.0" in read_metrics(metrics) or None, gateway)
    assert len(gateway.workers()) == 2
    assert healthy(gateway.address)
    assert checks_counted(metrics) == 11
    assert gateway.stop() == 0


def test_workers_end_with_a_supervisor_that_is_killed(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url, WORKERS=2)
    assert healthy(gateway.address)
    gateway.process.kill()
    gateway.process.wait()
    eventually(lambda: not gateway.processes() or None)


def test_workers_and_postgres_end_with_a_supervisor_that_is_killed_while_they_start(start: Start) -> None:
    gateway = start(WORKERS=2)
    eventually(lambda: gateway.workers() or None, gateway)
    gateway.process.kill()
    gateway.process.wait()
    eventually(lambda: not gateway.processes() or None)


def test_an_interrupt_from_the_terminal_shuts_workers_down(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url, WORKERS=2)
    assert healthy(gateway.address)
    os.killpg(gateway.process.pid, signal.SIGINT)
    assert gateway.process.wait(30) == 0
    assert not gateway.processes()
    assert Counter(event["event"] for event in gateway.events)["stopping"] == 2
    assert "Traceback" not in gateway.output


def test_an_error_that_keeps_workers_from_starting_is_printed_once(
    start: Start, database_url: str, tmp_path: Path
) -> None:
    invalid = tmp_path / "server.pem"
    invalid.write_text("not a certificate")
    gateway = start(DATABASE_URL=database_url, WORKERS=2, TLS_CERT_FILE=invalid, TLS_KEY_FILE=invalid)
    assert gateway.process.wait(30) == 1
    assert gateway.output.count("server.pem and") == 1
    assert "A worker did not start" in gateway.output
    assert "Traceback" not in gateway.output
    assert not gateway.processes()


@pytest.mark.parametrize("server", ["accord", "grpcio"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_unix_socket_takes_the_place_of_the_port(
    start: Start, database_url: str, tmp_path: Path, workers: int, server: str
) -> None:
    path = tmp_path / "accord.sock"
    gateway = start(DATABASE_URL=database_url, UNIX_SOCKET=path, WORKERS=workers, SERVER=server)
    if (workers, server) == (2, "grpcio"):
        assert gateway.process.wait(30) == 2
        assert "WORKERS" in gateway.output
        return
    assert gateway.address == f"unix:{path}"
    path.chmod(0o666)
    assert all(healthy(gateway.address) for _ in range(5))
    if server == "accord":  # the new workers share the socket
        assert run_command(["reload"], gateway.folder, {}).returncode == 0
        assert all(healthy(gateway.address) for _ in range(5))
    assert gateway.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize(("proxies", "peer"), [("unix", "203.0.113.9"), ("", "unix:")])
def test_a_proxy_at_the_unix_socket_forwards_addresses_if_it_is_trusted(
    start: Start, database_url: str, tmp_path: Path, proxies: str, peer: str
) -> None:
    path = tmp_path / "accord.sock"
    gateway = start(DATABASE_URL=database_url, UNIX_SOCKET=path, TRUSTED_PROXIES=proxies, LOG_FORMAT="json")
    assert gateway.address == f"unix:{path}"
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://localhost") as proxy:
        proxy.get("/v1/tasks", headers={"x-forwarded-for": "203.0.113.9"})
    assert gateway.event("call")["peer"] == peer


def test_a_unix_socket_of_another_gateway_is_not_removed(start: Start, database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "accord.sock"
    gateway = start(DATABASE_URL=database_url, UNIX_SOCKET=path)
    assert gateway.address == f"unix:{path}"
    path.unlink()
    with bind_unix(path) as other:
        other.listen()
        assert gateway.stop() == 0
        assert path.is_socket()
