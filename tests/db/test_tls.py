"""TLS: over a network, PostgreSQL must prove its identity."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Boolean, Float, String, bindparam, column, func, select, text

from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.errors import Unavailable
from accord_db.engine.tls import require_verified_tls
from tests.db.programs import run, running, wait_until_ready
from tests.ports import free_port

IS_ENCRYPTED = select(column("ssl", Boolean)).select_from(text("pg_stat_ssl")).where(text("pid = pg_backend_pid()"))
SLEEP = select(func.pg_sleep(bindparam("seconds", type_=Float)))


@dataclass(frozen=True)
class Server:
    port: int
    ca: Path
    foreign_ca: Path

    def dsn(self, *, host: str = "localhost", ca: Path | None = None, mode: str = "verify-full") -> str:
        return (
            f"postgresql://accord@{host}:{self.port}/postgres?hostaddr=127.0.0.1"
            f"&sslmode={mode}&sslrootcert={ca or self.ca}"
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An installed PostgreSQL with a certificate for `localhost`. The embedded one is built without TLS."""
    programs = installed_postgresql()
    if programs is None or shutil.which("openssl") is None:
        pytest.skip("PostgreSQL with TLS (the embedded one has none) and OpenSSL are not both installed")
    folder = tmp_path_factory.mktemp("tls")
    ca, foreign_ca = make_ca(folder, "ca"), make_ca(folder, "foreign")
    make_certificate(folder, ca, host="localhost")
    data = folder / "data"
    run([programs / "initdb", f"--pgdata={data}", "--username=accord", "--auth=trust", "--no-sync"], folder)
    server = Server(free_port(), ca, foreign_ca)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(server.port),
        "unix_socket_directories": "",
        "fsync": "off",
        "ssl": "on",
        "ssl_cert_file": str(folder / "server.crt"),
        "ssl_key_file": str(folder / "server.key"),
    }
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    with running([programs / "postgres", "-D", data, *arguments], folder):
        wait_until_ready(server.dsn())
        yield server


def installed_postgresql() -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return versions[-1].parent if versions else None


def make_ca(folder: Path, name: str) -> Path:
    certificate = folder / f"{name}.crt"
    openssl(folder, f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.crt")
    return certificate


def make_certificate(folder: Path, ca: Path, *, host: str) -> None:
    (folder / "names").write_text(f"subjectAltName=DNS:{host}")
    openssl(folder, f"req -newkey rsa:2048 -nodes -subj /CN={host} -keyout server.key -out server.csr")
    openssl(
        folder,
        f"x509 -req -in server.csr -days 2 -extfile names -CA {ca} -CAkey {ca.with_suffix('.key')} -out server.crt",
    )
    (folder / "server.key").chmod(0o600)


def openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


async def test_connection_to_a_server_with_a_valid_certificate_is_encrypted(server: Server) -> None:
    database = await Database.connect(DatabaseSettings(dsn=server.dsn(), role=None, pool_size=1))
    assert await database.fetch_one(IS_ENCRYPTED) is True
    async with database.transaction() as tx:
        assert await tx.fetch_one(IS_ENCRYPTED) is True
    await database.close()


async def test_large_values_are_sent_and_received_over_tls(server: Server) -> None:
    database = await Database.connect(DatabaseSettings(dsn=server.dsn(), role=None, pool_size=1))
    large = "ü" * 2_000_000
    assert await database.fetch_one(select(bindparam("large", type_=String)), large=large) == large
    await database.close()


async def test_statement_is_cancelled_over_tls(server: Server) -> None:
    database = await Database.connect(DatabaseSettings(dsn=server.dsn(), role=None, pool_size=1, pool_wait=5))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(database.fetch_one(SLEEP, seconds=30), 0.1)
    assert await database.fetch_one(IS_ENCRYPTED) is True
    await database.close()


async def test_certificate_of_another_host_is_rejected(server: Server) -> None:
    with pytest.raises(Unavailable):
        await Database.connect(DatabaseSettings(dsn=server.dsn(host="database.example.com"), role=None, pool_size=1))


async def test_certificate_of_another_authority_is_rejected(server: Server) -> None:
    with pytest.raises(Unavailable):
        await Database.connect(DatabaseSettings(dsn=server.dsn(ca=server.foreign_ca), role=None, pool_size=1))


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://db.example.com/accord?sslmode=verify-full",
        "postgresql://db.example.com/accord?sslmode=verify-ca&sslrootcert=/etc/ca.crt",
        "postgresql:///accord?host=/run/postgresql",
        "postgresql:///accord?host=@abstract",
        "host=/run/postgresql dbname=accord",
        "host=a.example.com,b.example.com sslmode=verify-full",
    ],
)
def test_connection_string_that_verifies_the_server_is_accepted(dsn: str) -> None:
    assert require_verified_tls(dsn) is None


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://db.example.com/accord",
        "postgresql:///accord",
        "postgresql://localhost/accord?sslmode=disable",
        "postgresql://db.example.com/accord?sslmode=prefer",
        "postgresql://db.example.com/accord?sslmode=require",
        "host=/run/postgresql,db.example.com",
        "host=/run/postgresql hostaddr=192.0.2.1",
        "nonsense",
    ],
)
def test_connection_string_that_does_not_verify_the_server_is_a_problem(dsn: str) -> None:
    assert require_verified_tls(dsn)
