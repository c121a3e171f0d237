"""`accord serve` as a process: how it starts, what it says, how it ends, and that nothing is left of it."""

import os
import signal
import socket
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterator

import grpc
import pytest

from accord_postgres import EmbeddedPostgres
from tests.conftest import temporary_database
from tests.gateway.conftest import Running, Start, eventually, healthy, url


def open_call(channel: grpc.Channel) -> grpc.RpcContext:
    """One that lasts for as long as its client likes."""

    def requests() -> Iterator[bytes]:
        yield b"\x3a\x00"  # what services are there?
        ended.wait()

    ended = threading.Event()
    ask: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    )
    call = ask(requests())
    call.add_callback(ended.set)
    next(call)
    return call


def test_serves_on_its_own_postgres_and_leaves_nothing_behind_when_interrupted(start: Start) -> None:
    gateway = start()
    assert healthy(gateway.address)
    assert any("postgres" in command for command in gateway.processes().values())
    assert gateway.stop(signal.SIGINT) == 0
    assert not gateway.processes()
    assert "Traceback" not in gateway.said


def test_what_it_says_to_type_next_works_when_typed(gateway: Running) -> None:
    last = eventually(lambda: gateway.said.partition("or with buf")[2] or None)
    typed = "\n".join(line for line in last.splitlines() if "buf curl" in line)
    assert len(typed.splitlines()) == 4
    done = subprocess.run(["sh", "-ec", typed], cwd=gateway.folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Try Accord" in done.stdout.rpartition("{}")[2].partition('"tasks"')[2]


def test_grpcurl_is_told_the_same_calls_as_buf(gateway: Running) -> None:
    said = eventually(lambda: gateway.said if "or with buf" in gateway.said else None)
    grpcurl = [line for line in said.splitlines() if "grpcurl -plaintext" in line]
    assert [line.rstrip().split("/")[1].split()[0] for line in grpcurl] == [
        "SignUp",
        "SignIn",
        "CreateTask",
        "ListTasks",
    ]


def test_a_second_interrupt_does_not_wait_for_calls_under_way(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url, DRAIN_SECONDS=60)
    with grpc.insecure_channel(gateway.address) as channel:
        call = open_call(channel)
        gateway.process.send_signal(signal.SIGINT)
        gateway.event("stopping")
        time.sleep(1)
        assert gateway.process.poll() is None
        asked = time.monotonic()
        assert gateway.stop(signal.SIGINT) == 0
        assert time.monotonic() - asked < 5
        call.cancel()


def test_calls_under_way_may_end_when_it_is_told_to_stop(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url, DRAIN_SECONDS=30)
    with grpc.insecure_channel(gateway.address) as channel:
        call = open_call(channel)
        gateway.process.send_signal(signal.SIGTERM)
        gateway.event("stopping")
        time.sleep(1)
        assert gateway.process.poll() is None
        call.cancel()
        assert gateway.process.wait(10) == 0


def test_killed_it_takes_its_postgres_along(start: Start) -> None:
    gateway = start()
    gateway.event("listening")
    gateway.process.kill()
    gateway.process.wait()
    eventually(lambda: not gateway.processes() or None)


def test_told_to_stop_while_it_starts_it_leaves_nothing_behind(start: Start) -> None:
    gateway = start()
    gateway.event("starting_postgres")
    assert gateway.stop() == 130
    eventually(lambda: not gateway.processes() or None)
    assert "Traceback" not in gateway.said


def test_told_to_stop_it_takes_what_makes_its_data_folder_along(start: Start) -> None:
    gateway = start()
    making = eventually(lambda: next((pid for pid, said in gateway.processes().items() if " --single " in said), None))
    os.kill(making, signal.SIGSTOP)  # or it would end by itself, sooner or later
    assert gateway.stop() == 130
    eventually(lambda: not gateway.processes() or None)


def test_a_terminal_that_is_closed_stops_it_gently(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url)
    assert healthy(gateway.address)
    assert gateway.stop(signal.SIGHUP) == 0


def test_does_not_start_as_a_role_that_row_level_security_does_not_hold(start: Start, database_url: str) -> None:
    """Behind a pooler it acts as whom it logs in as: here as a superuser."""
    gateway = start(DATABASE_URL=database_url, DATABASE_DIRECT_URL=database_url, DB_POOLER="true")
    assert gateway.process.wait(30) == 1
    assert "The database would not keep tenants apart" in gateway.said
    assert "docs/operating.md" in gateway.said
    assert "Traceback" not in gateway.said


def test_serves_on_ipv6(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url, HOST="::1")
    assert gateway.address.startswith("[::1]:")
    assert healthy(gateway.address)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_that_cannot_be_written_is_named(start: Start, database_url: str, workers: int) -> None:
    gateway = start(DATABASE_URL=database_url, STATE_FOLDER="/dev/null/nowhere", WORKERS=workers)
    assert gateway.process.wait(30) == 1
    assert "STATE_FOLDER" in gateway.said
    assert "Traceback" not in gateway.said


def test_a_port_in_use_is_named_with_who_has_it(start: Start, database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = start(DATABASE_URL=database_url, PORT=port)
        assert gateway.process.wait(30) == 1
    assert f"Port {port} is in use by process {os.getpid()}" in gateway.said
    assert "PORT" in gateway.said
    assert "Traceback" not in gateway.said


def test_a_shared_port_in_use_is_found_too(start: Start, database_url: str) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        gateway = start(DATABASE_URL=database_url, PORT=taken.getsockname()[1], WORKERS=2)
        assert gateway.process.wait(30) == 1
    assert "is in use" in gateway.said


def test_wrong_settings_are_all_named_and_nothing_is_started(start: Start) -> None:
    gateway = start(PORT="many", WORKERS=0, ACCORD_ENV="production")
    assert gateway.process.wait(30) == 2
    for name in ("PORT", "WORKERS", "DATABASE_URL", "SECRET_KEY", "ENCRYPTION_KEYS", "SMTP_URL"):
        assert f"  {name} " in gateway.said
    assert "Traceback" not in gateway.said


def test_unreachable_database_is_reported_without_its_password(start: Start) -> None:
    gateway = start(DATABASE_URL="postgresql://accord:s3cret@127.0.0.1:1/accord", DB_START_WAIT="0s")
    assert gateway.process.wait(30) == 1
    assert "Cannot connect to the database" in gateway.said
    assert "s3cret" not in gateway.said
    assert "Traceback" not in gateway.said


def test_a_database_that_is_not_migrated_is_refused_where_starting_may_not_migrate(start: Start, postgres: str) -> None:
    with temporary_database(postgres) as empty:
        gateway = start(DATABASE_URL=url(empty), MIGRATE_ON_START="false")
        assert gateway.process.wait(30) == 1
    assert "Run `accord migrate`" in gateway.said


def test_production_serves_with_what_production_needs(start: Start, own_postgres: EmbeddedPostgres) -> None:
    key = "0123456789abcdef-0123456789abcdef"
    gateway = start(
        ACCORD_ENV="production",
        DATABASE_URL=own_postgres.dsn,
        SECRET_KEY=key,
        ENCRYPTION_KEYS=f"1:{b64encode(bytes(range(32))).decode()}",
        SMTP_URL="smtps://smtp.example.com",
        MAIL_FROM="accounts@example.com",
        APP_URL="https://app.example.com",
        MIGRATE_ON_START="true",
        WORKERS=1,
    )
    assert healthy(gateway.address)
    assert "What to type next" not in gateway.said
    assert gateway.stop() == 0
