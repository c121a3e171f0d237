"""Standard output and standard error that are closed, full, or no longer read: lines are lost, calls and exit codes are not."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest

from tests.conftest import temporary_database
from tests.gateway.conftest import environment, eventually, healthy, url
from tests.ports import free_port

REDIRECTIONS = (
    ">&-",
    "2>&-",
    "<&- >&- 2>&-",
    ">/dev/full",
    "2>/dev/full",
    ">/dev/full 2>&1",
)


@pytest.fixture(scope="module")
def shared_url(postgres: str, template: str) -> Iterator[str]:
    with temporary_database(postgres, template=template) as dsn:
        yield url(dsn)


@contextmanager
def accord(
    folder: Path, command: str, redirections: str = "", **settings: object
) -> Iterator["subprocess.Popen[bytes]"]:
    """A shell replaces itself with the command, so that signals and the status are the command's."""
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$0" -m accord_gateway {command} {redirections}', sys.executable],
        cwd=folder,
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run(folder: Path, command: str, redirections: str = "", **settings: object) -> tuple[int, str]:
    """The exit status, and the output on streams that are not redirected."""
    with accord(folder, command, redirections, **settings) as process:
        output, errors = process.communicate(timeout=60)
        return process.returncode, (output + errors).decode()


def becomes_healthy(process: "subprocess.Popen[bytes]", port: int) -> bool:
    def poll() -> bool | None:
        assert process.poll() is None, "the gateway has ended"
        try:
            return healthy(f"127.0.0.1:{port}")
        except grpc.RpcError:
            return None

    return eventually(poll)


@pytest.mark.parametrize(
    ("redirections", "workers"),
    [*((each, 1) for each in REDIRECTIONS), ("<&- >&- 2>&-", 2), (">/dev/full 2>&1", 2)],
)
def test_gateway_serves_and_stops_if_nothing_can_be_written(
    shared_url: str, tmp_path: Path, redirections: str, workers: int
) -> None:
    port = free_port()
    with accord(tmp_path, "serve", redirections, DATABASE_URL=shared_url, PORT=port, WORKERS=workers) as process:
        assert becomes_healthy(process, port)
        assert becomes_healthy(process, port)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in (text := (output + errors).decode())
    assert "Exception ignored" not in text


def test_gateway_serves_after_its_reader_closes_the_pipe(tmp_path: Path) -> None:
    """Like `accord serve 2>&1 | grep -m1 starting`, with the embedded PostgreSQL."""
    port = free_port()
    with accord(tmp_path, "serve", "2>&1", PORT=port, LOG_FORMAT="console") as process:
        assert process.stdout
        assert b"starting" in process.stdout.readline()
        process.stdout.close()
        assert becomes_healthy(process, port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_gateway_serves_while_its_reader_does_not_read(shared_url: str, tmp_path: Path, log_format: str) -> None:
    """Like a suspended pager: the pipe is full, and its other end stays open."""
    port = free_port()
    with accord(tmp_path, "serve", "2>&1", DATABASE_URL=shared_url, PORT=port, LOG_FORMAT=log_format) as process:
        assert process.stdout
        size = fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        assert becomes_healthy(process, port)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            get_task: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/accord.tasks.v1.TaskService/GetTask"
            )
            for _ in range(size // 50):
                with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                    get_task(b"", timeout=10)
            assert health_pb2_grpc.HealthStub(channel).Check(HealthCheckRequest(), timeout=10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", ">/dev/full 2>&1"])
def test_doctor_returns_its_status_if_nothing_can_be_written(tmp_path: Path, redirections: str) -> None:
    ports = {"PORT": free_port(), "METRICS_PORT": free_port()}
    status, output = run(tmp_path, "doctor", redirections, **ports)
    assert (status, "Error" in output) == (0, False)


def test_doctor_completes_after_its_reader_closes_the_pipe(tmp_path: Path) -> None:
    with accord(tmp_path, "doctor", PORT=free_port(), METRICS_PORT=free_port()) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.parametrize("redirections", REDIRECTIONS)
def test_exit_status_of_invalid_settings_does_not_depend_on_output(tmp_path: Path, redirections: str) -> None:
    assert run(tmp_path, "serve", redirections, PORT="many")[0] == 2


def test_exit_status_of_the_command_line_does_not_depend_on_output(tmp_path: Path) -> None:
    assert run(tmp_path, "--help", ">/dev/full 2>&1")[0] == 0
    assert run(tmp_path, "unknown", ">/dev/full 2>&1")[0] == 2
    assert run(tmp_path, "doctor", ">/dev/full 2>&1", WORKERS="many")[0] == 1


def test_characters_outside_the_encoding_of_the_terminal_are_escaped(tmp_path: Path) -> None:
    ports: dict[str, object] = {"PORT": free_port(), "METRICS_PORT": free_port()}
    status, output = run(tmp_path, "doctor", "", **ports | {"PYTHONIOENCODING": "ascii"})
    assert "\\u2713 settings" in output
    assert status == 0


WRITERS = """
import atexit, logging, sys, warnings
from accord_gateway import output

output.tolerate_failures()
atexit.register(lambda: 1 / 0)
logging.getLogger("library").warning("before logging is configured")
warnings.warn("old")
print("x" * 100_000)
sys.stdout.write("not flushed")
raise SystemExit(3)
"""


@pytest.mark.parametrize("redirections", REDIRECTIONS)
def test_warnings_and_errors_at_exit_do_not_change_the_status(redirections: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirections}', sys.executable, WRITERS], capture_output=True, timeout=60
    )
    assert done.returncode == 3
    assert b"BrokenPipeError" not in done.stderr


def test_output_and_errors_at_exit_are_written() -> None:
    done = subprocess.run([sys.executable, "-c", WRITERS], capture_output=True, text=True, timeout=60)
    assert done.stdout == "x" * 100_000 + "\nnot flushed"
    assert "before logging is configured" in done.stderr
    assert "UserWarning: old" in done.stderr
    assert "ZeroDivisionError" in done.stderr
