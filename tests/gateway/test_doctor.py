"""`accord doctor` and `accord migrate`."""

import re
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from accord_auth.encryption import Keyring, Place
from accord_db.engine.ids import uuid7
from tests.clocks import shifted_database
from tests.conftest import change, drop_database, execute, temporary_database
from tests.gateway.conftest import Start, healthy, run_command, url
from tests.gateway.mail_server import Authority, mail_server
from tests.locales import turkish_database, turkish_server
from tests.ports import free_port


def accord(folder: Path, command: str, **settings: object) -> "subprocess.CompletedProcess[str]":
    return run_command([command], folder, free_ports() | settings)


def free_ports() -> dict[str, object]:
    return {"PORT": free_port(), "METRICS_PORT": free_port()}


def doctor(folder: Path, **settings: object) -> tuple[int, str]:
    done = accord(folder, "doctor", **settings)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_working_installation_has_no_problems(database_url: str, tmp_path: Path) -> None:
    done = run_command(["doctor"], tmp_path, free_ports() | {"DATABASE_URL": database_url}, forked=False)
    assert "✗" not in done.stdout
    assert "the generated contract matches proto/" in done.stdout
    assert "migrated to" in done.stdout
    assert "mail is printed" in done.stdout
    assert "No problems found." in done.stdout
    assert done.returncode == 0


def test_before_the_first_start_there_are_no_problems_and_nothing_is_created(tmp_path: Path) -> None:
    status, output = doctor(tmp_path)
    assert "has no data yet" in output
    assert status == 0
    assert list(tmp_path.iterdir()) == []


def test_a_running_gateway_is_not_a_problem_and_its_database_is_checked(start: Start, tmp_path: Path) -> None:
    port = free_port()
    assert healthy(start(PORT=port, forked=False).address)  # doctor recognizes its command line
    status, output = doctor(tmp_path, PORT=port)
    assert f"PORT 127.0.0.1:{port} is served by Accord" in output
    assert "migrated to" in output
    assert status == 0


def test_a_port_of_another_program_is_a_problem(database_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output = doctor(tmp_path, DATABASE_URL=database_url, METRICS_PORT=port)
    assert f"✗ METRICS_PORT 127.0.0.1:{port}" in output
    assert status == 1


LISTENS = """
import socket
taken = socket.create_server(("127.0.0.1", 0))
print(taken.getsockname()[1], flush=True)
input()
"""


def test_a_program_in_a_folder_with_the_name_of_accord_is_another_program(database_url: str, tmp_path: Path) -> None:
    program = tmp_path / "accord" / "program.py"
    program.parent.mkdir()
    program.write_text(LISTENS)
    pipe = subprocess.PIPE
    command = [sys.executable, "accord/program.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        status, output = doctor(tmp_path, DATABASE_URL=database_url, METRICS_PORT=port)
        other.communicate("\n")
    assert f"✗ METRICS_PORT 127.0.0.1:{port}" in output
    assert status == 1


def test_invalid_settings_are_problems(tmp_path: Path) -> None:
    status, output = doctor(tmp_path, PORT="many", WORKERS=0)
    assert "✗ PORT" in output
    assert "✗ WORKERS" in output
    assert "3 problems found." in output
    assert status == 1


def test_an_unreachable_database_is_a_problem(tmp_path: Path) -> None:
    status, output = doctor(tmp_path, DATABASE_URL="postgresql://accord:s3cret@127.0.0.1:1/accord")
    assert "✗ cannot connect to the database" in output
    assert "s3cret" not in output
    assert status == 1


def test_a_mail_server_that_accepts_the_gateway_is_not_a_problem_and_receives_nothing(
    database_url: str, tmp_path: Path
) -> None:
    with mail_server() as server:
        status, output = doctor(tmp_path, DATABASE_URL=database_url, SMTP_URL=f"smtp://127.0.0.1:{server.port}")
    assert f"✓ mail server 127.0.0.1:{server.port} accepts mail from this gateway" in output
    assert server.sessions == set()
    assert status == 0


def test_an_unreachable_or_untrusted_mail_server_is_a_problem(database_url: str, tmp_path: Path) -> None:
    status, output = doctor(tmp_path, DATABASE_URL=database_url, SMTP_URL="smtp://ada:s3cret@127.0.0.1:1")
    assert "✗ mail server 127.0.0.1:1: Connection refused" in output
    assert "check SMTP_URL" in output
    assert "s3cret" not in output
    assert status == 1
    with mail_server(ssl_context=Authority.new(tmp_path).context()) as server:
        status, output = doctor(tmp_path, DATABASE_URL=database_url, SMTP_URL=f"smtps://127.0.0.1:{server.port}")
    assert f"✗ mail server 127.0.0.1:{server.port}: its certificate cannot be trusted" in output
    assert status == 1


def test_a_certificate_without_its_key_is_a_problem(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "server.pem").write_text("not a certificate")
    status, output = doctor(tmp_path, DATABASE_URL=database_url, TLS_CERT_FILE="server.pem", TLS_KEY_FILE="server.pem")
    assert "✗ server.pem and server.pem" in output
    assert status == 1


@pytest.fixture
def latin1(postgres: str) -> Iterator[str]:
    """An empty database with another encoding than UTF-8."""
    name = f"accord_test_{uuid4().hex}"
    create = "CREATE DATABASE {} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc"
    execute(postgres, sql.SQL(create).format(sql.Identifier(name)))
    dsn = make_conninfo(postgres, dbname=name)
    yield dsn
    with psycopg.connect(postgres, autocommit=True) as connection:
        drop_database(connection, name)


def test_database_with_another_encoding_than_utf8_is_a_problem(latin1: str, tmp_path: Path) -> None:
    status, output = doctor(tmp_path, DATABASE_URL=url(latin1))
    assert "✗ the encoding of the database is LATIN1\n    Accord stores text as UTF-8. Create a database with" in output
    assert status == 1


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_no_command_uses_a_database_with_another_encoding_than_utf8(latin1: str, tmp_path: Path, command: str) -> None:
    done = accord(tmp_path, command, DATABASE_URL=url(latin1))
    assert "Accord cannot use the database: the encoding of the database is LATIN1." in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    with psycopg.connect(latin1) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_collation_whose_version_has_changed_is_a_problem(postgres: str, tmp_path: Path) -> None:
    with turkish_server(postgres) as server, turkish_database(server) as dsn:
        status, output = doctor(tmp_path, DATABASE_URL=url(dsn))
        assert "✓ text is UTF-8; searches ignore case by the rules of the locale tr" in output
        assert status == 0
        change(dsn, "UPDATE pg_database SET datcollversion = '1.2' WHERE datname = current_database()")
        status, output = doctor(tmp_path, DATABASE_URL=url(dsn))
        assert "✗ indexes were built with version 1.2 of the collation tr" in output
        assert "REFRESH COLLATION VERSION" in output
        assert status == 1


@pytest.mark.parametrize(
    ("by", "what"),
    [(timedelta(minutes=-11), "66[01] s ahead of"), (timedelta(minutes=90), "(5399|5400) s behind")],
    ids=["ahead", "behind"],
)
def test_clock_that_differs_from_the_clock_of_the_database_is_a_problem(
    postgres: str, tmp_path: Path, by: timedelta, what: str
) -> None:
    with shifted_database(postgres, by) as dsn:
        status, output = doctor(tmp_path, DATABASE_URL=url(dsn))
    assert re.search(f"✗ the clock of this machine is {what} the clock of the database", output)
    assert status == 1


def test_missing_migrations_are_a_problem_if_the_start_does_not_migrate(postgres: str, tmp_path: Path) -> None:
    with temporary_database(postgres) as empty:
        settings: dict[str, Any] = {"DATABASE_URL": url(empty), "MIGRATE_ON_START": "false"}
        status, output = doctor(tmp_path, **settings)
        assert "✗ at migration none" in output
        assert status == 1
        assert accord(tmp_path, "migrate", **settings).returncode == 0
        assert doctor(tmp_path, **settings)[0] == 0


def test_a_missing_key_of_an_encrypted_value_is_a_problem(dsn: str, database_url: str, tmp_path: Path) -> None:
    old, new = bytes(range(32)), bytes(range(32, 64))
    row = uuid7()
    content = Keyring({"2026-05": old}).encrypt(b"a letter", Place("outbox_messages", "content", row))
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO outbox_messages (id, template, content) VALUES (%s, 'verify_email', %s)", (row, content)
        )
    new_key, old_key = f"2026-11:{b64encode(new).decode()}", f"2026-05:{b64encode(old).decode()}"
    status, output = doctor(tmp_path, DATABASE_URL=database_url, ENCRYPTION_KEYS=new_key)
    assert "✗ outbox_messages.content has values encrypted with the key 2026-05, which is not set" in output
    assert status == 1
    status, output = doctor(tmp_path, DATABASE_URL=database_url, ENCRYPTION_KEYS=f"{new_key},{old_key}")
    assert "✓ ENCRYPTION_KEYS has the keys of all encrypted values" in output
    assert status == 0


def test_migrate_works_on_the_embedded_postgres_of_a_running_gateway(start: Start, tmp_path: Path) -> None:
    gateway = start()
    assert healthy(gateway.address)
    done = accord(tmp_path, "migrate")
    assert "at the last migration" in done.stdout
    assert done.returncode == 0
    assert healthy(gateway.address)


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_every_command_reports_invalid_settings(tmp_path: Path, command: str) -> None:
    done = accord(tmp_path, command, PORT="many")
    assert done.returncode == 2
    assert "PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_role_that_bypasses_row_level_security_is_a_problem(database_url: str, tmp_path: Path) -> None:
    """With a pooler, gateways act as their login role: here a superuser."""
    behind_pooler: dict[str, Any] = {
        "DATABASE_URL": database_url,
        "DATABASE_DIRECT_URL": database_url,
        "DB_POOLER": "true",
    }
    status, output = doctor(tmp_path, **behind_pooler)
    assert "bypasses the row-level security of api_keys, invitations, member_roles, members, roles, tasks" in output
    assert status == 1
    status, output = doctor(tmp_path, DATABASE_URL=database_url)
    assert "✓ row-level security restricts gateways to one tenant at a time" in output
    assert status == 0
