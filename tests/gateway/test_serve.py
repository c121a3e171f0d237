"""`accord serve` as a process: how it starts, what it prints, how it ends, and that it leaves nothing running."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator

import grpc
import pytest

from accord_db.migrate.revisions import read_revisions
from accord_gateway.cli.banner import banner
from accord_gateway.settings import Settings
from accord_postgres import EmbeddedPostgres
from tests.conftest import temporary_database
from tests.gateway.conftest import GatewayProcess, Start, eventually, gateways, healthy, url


def open_call(channel: grpc.Channel) -> grpc.RpcContext:
    """A call that lasts until its client ends it."""

    def requests() -> Iterator[bytes]:
        yield b"\x3a\x00"  # ServerReflectionRequest(list_services="")
        ended.wait()

    ended = threading.Event()
    reflect: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    )
    call = reflect(requests())
    call.add_callback(ended.set)
    next(call)
    return call


def test_serves_on_the_embedded_postgres_and_leaves_nothing_running_after_an_interrupt(start: Start) -> None:
    gateway = start()
    assert healthy(gateway.address)
    assert gateway.event("migrated")["to"] == read_revisions().head
    assert "alembic" not in gateway.output
    assert any("postgres" in command for command in gateway.processes().values())
    assert gateway.stop(signal.SIGINT) == 0
    assert not gateway.processes()
    assert "Traceback" not in gateway.output


@pytest.fixture(scope="module")
def shown(postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway whose banner has been printed."""
    folder = tmp_path_factory.mktemp("banner")
    with temporary_database(postgres, template=template) as dsn, gateways(folder) as start:
        gateway = start(DATABASE_URL=url(dsn), SERVER="accord")
        eventually(lambda: gateway.output.partition("grpcurl -plaintext")[2] or None)
        yield gateway


def test_the_calls_of_the_banner_work(shown: GatewayProcess) -> None:
    calls = [line for line in shown.output.splitlines() if re.match(r"(TOKEN=\$\()?(curl|\S*/buf curl) ", line)]
    assert len(calls) == 5
    done = subprocess.run(["sh", "-ec", "\n".join(calls)], cwd=shown.folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    sign_up, create, listed, with_grpc = done.stdout.split("\n", 3)
    assert json.loads(sign_up) == {}
    assert json.loads(listed)["tasks"] == [json.loads(create)["task"]]
    assert [task["title"] for task in json.loads(with_grpc)["tasks"]] == ["Try Accord"]


def test_the_banner_leads_to_the_api_reference(shown: GatewayProcess) -> None:
    [address] = re.findall(r"http://\S+/docs$", shown.output, flags=re.MULTILINE)
    with urllib.request.urlopen(address, timeout=10) as page:
        assert "swagger-ui" in page.read().decode()


def test_the_banner_has_the_same_call_for_grpcurl_and_buf(shown: GatewayProcess) -> None:
    [buf] = [line for line in shown.output.splitlines() if "buf curl" in line]
    [grpcurl] = [line for line in shown.output.splitlines() if line.startswith("grpcurl ")]
    assert re.findall(r"-[Hd] .*'", buf) == re.findall(r"-[Hd] .*'", grpcurl)
    assert buf.rpartition("/accord.")[2] == grpcurl.rpartition(" accord.")[2]


def test_a_server_without_rest_shows_how_to_sign_in_with_grpc() -> None:
    lines = list(banner(Settings(server="grpcio"), 50051))
    methods = [re.findall(r"Service/(\w+)", line) for line in lines if "buf curl" in line]
    assert methods == [["SignUp"], ["SignIn"], ["ListTasks"]]
    assert not [line for line in lines if "/docs" in line or line.startswith("curl")]


def test_a_second_interrupt_does_not_wait_for_running_calls(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url, DRAIN_SECONDS=60)
    with grpc.insecure_channel(gateway.address) as channel:
        call = open_call(channel)
        gateway.process.send_signal(signal.SIGINT)
        gateway.event("stopping")
        time.sleep(1)
        assert gateway.process.poll() is None
        since = time.monotonic()
        assert gateway.stop(signal.SIGINT) == 0
        assert time.monotonic() - since < 5
        call.cancel()


def test_a_shutdown_waits_for_running_calls(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url, DRAIN_SECONDS=30)
    with grpc.insecure_channel(gateway.address) as channel:
        call = open_call(channel)
        gateway.process.send_signal(signal.SIGTERM)
        gateway.event("stopping")
        time.sleep(1)
        assert gateway.process.poll() is None
        call.cancel()
        assert gateway.process.wait(10) == 0


def test_a_shutdown_writes_the_log_line_of_every_call(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url)
    with grpc.insecure_channel(gateway.address) as channel:
        get_task: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/accord.tasks.v1.TaskService/GetTask"
        )
        codes = [call.code() for call in [get_task.future(b"") for _ in range(300)]]
        gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(10) == 0
    assert codes == [grpc.StatusCode.UNAUTHENTICATED] * 300
    logged = [event["code"] for event in gateway.events if event["event"] == "call"]
    assert logged == ["UNAUTHENTICATED"] * 300


def test_postgres_ends_with_a_gateway_that_is_killed(start: Start) -> None:
    gateway = start()
    gateway.event("listening")
    gateway.process.kill()
    gateway.process.wait()
    eventually(lambda: not gateway.processes() or None)


def test_a_shutdown_during_startup_leaves_nothing_running(start: Start) -> None:
    gateway = start()
    gateway.event("starting_postgres")
    assert gateway.stop() == 130
    eventually(lambda: not gateway.processes() or None)
    assert "Traceback" not in gateway.output


def test_a_shutdown_ends_the_process_that_creates_the_data_folder(start: Start) -> None:
    gateway = start()
    creating = eventually(
        lambda: next((pid for pid, command in gateway.processes().items() if " --single " in command), None)
    )
    os.kill(creating, signal.SIGSTOP)  # so that it does not end by itself
    assert gateway.stop() == 130
    eventually(lambda: not gateway.processes() or None)


def test_does_not_start_as_a_role_that_bypasses_row_level_security(start: Start, database_url: str) -> None:
    """With a pooler, gateways act as their login role: here a superuser."""
    gateway = start(DATABASE_URL=database_url, DATABASE_DIRECT_URL=database_url, DB_POOLER="true")
    assert gateway.process.wait(30) == 1
    assert "The database does not separate tenants" in gateway.output
    assert "docs/operating.md" in gateway.output
    assert "Traceback" not in gateway.output


def test_serves_on_ipv6(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url, HOST="::1")
    assert gateway.address.startswith("[::1]:")
    assert healthy(gateway.address)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_state_folder_that_is_not_writable_is_reported(start: Start, database_url: str, workers: int) -> None:
    gateway = start(DATABASE_URL=database_url, STATE_FOLDER="/dev/null/nowhere", WORKERS=workers)
    assert gateway.process.wait(30) == 1
    assert "STATE_FOLDER" in gateway.output
    assert "Traceback" not in gateway.output


def test_a_port_in_use_is_reported_with_its_process(start: Start, database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = start(DATABASE_URL=database_url, PORT=port)
        assert gateway.process.wait(30) == 1
    assert f"Port {port} is in use by process {os.getpid()}" in gateway.output
    assert "PORT" in gateway.output
    assert "Traceback" not in gateway.output


def test_a_port_that_another_program_shares_is_in_use(start: Start, database_url: str) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        gateway = start(DATABASE_URL=database_url, PORT=taken.getsockname()[1], WORKERS=2)
        assert gateway.process.wait(30) == 1
    assert "is in use" in gateway.output


def test_all_invalid_settings_are_reported_and_nothing_is_started(start: Start) -> None:
    gateway = start(PORT="many", WORKERS=0, ACCORD_ENV="production")
    assert gateway.process.wait(30) == 2
    for name in ("PORT", "WORKERS", "DATABASE_URL", "SECRET_KEY", "ENCRYPTION_KEYS", "SMTP_URL"):
        assert f"  {name} " in gateway.output
    assert "Traceback" not in gateway.output


def test_an_unreachable_database_is_reported_without_its_password(start: Start) -> None:
    gateway = start(DATABASE_URL="postgresql://accord:s3cret@127.0.0.1:1/accord", DB_START_WAIT="0s")
    assert gateway.process.wait(30) == 1
    assert "Cannot connect to the database: " in gateway.output
    assert "s3cret" not in gateway.output
    assert "Traceback" not in gateway.output


def test_a_database_that_is_not_migrated_is_refused_if_the_start_does_not_migrate(start: Start, postgres: str) -> None:
    with temporary_database(postgres) as empty:
        gateway = start(DATABASE_URL=url(empty), MIGRATE_ON_START="false")
        assert gateway.process.wait(30) == 1
    assert "Run `accord migrate`" in gateway.output


def test_production_serves_with_the_required_settings(start: Start, separate_postgres: EmbeddedPostgres) -> None:
    key = "0123456789abcdef-0123456789abcdef"
    gateway = start(
        ACCORD_ENV="production",
        DATABASE_URL=separate_postgres.dsn,
        SECRET_KEY=key,
        ENCRYPTION_KEYS=f"1:{b64encode(bytes(range(32))).decode()}",
        SMTP_URL="smtps://smtp.example.com",
        MAIL_FROM="accounts@example.com",
        APP_URL="https://app.example.com",
        MIGRATE_ON_START="true",
        WORKERS=1,
    )
    assert healthy(gateway.address)
    assert "or with buf" not in gateway.output
    assert gateway.stop() == 0


FROZEN = """
import gc
from accord_gateway.process.garbage_collector import keep_what_started

started = []
keep_what_started()
since = []
print([any(each is one for each in gc.get_objects()) for one in (started, since)])
"""


def test_garbage_collections_pass_over_what_existed_at_the_start() -> None:
    """Otherwise each full one stops all calls for as long as it looks through every imported module."""
    done = subprocess.run([sys.executable, "-c", FROZEN], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[False, True]"
