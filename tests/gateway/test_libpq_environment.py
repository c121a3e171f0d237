"""The environment and service files of libpq cannot redirect a gateway to another server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from accord_postgres import EmbeddedPostgres
from tests.db.programs import hostile_environment, recording_server
from tests.gateway.conftest import Start, environment, healthy

# Read by libpq, but not parameters of a connection.
SESSION = {"PGTZ": "nonsense", "PGDATESTYLE": "nonsense", "PGGEQO": "nonsense", "PGREQUIRESSL": "1"}

REDIRECTING = {
    *("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE", "PGOPTIONS", "PGTARGETSESSIONATTRS"),
    *("PGLOADBALANCEHOSTS", "PGCLIENTENCODING"),
}

Elsewhere = tuple[dict[str, str], list[str]]


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """Values of all variables, and the clients that they led to another server."""
    with recording_server() as (port, clients):
        yield hostile_environment(tmp_path_factory.mktemp("services"), port) | SESSION, clients


def accord(command: str, folder: Path, settings: dict[str, str]) -> str:
    program = [sys.executable, "-m", "accord_gateway", command]
    done = subprocess.run(
        program, cwd=folder, env=environment(dict(settings)), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tables(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(("service", "workers"), [("elsewhere", 1), ("undefined", 2)])
def test_embedded_server_is_used_with_any_environment(
    start: Start, tmp_path: Path, elsewhere: Elsewhere, service: str, workers: int
) -> None:
    variables, clients = elsewhere
    variables = variables | {"PGSERVICE": service}
    gateway = start(**variables, WORKERS=workers)
    assert healthy(gateway.address)
    assert tables(EmbeddedPostgres(tmp_path / ".accord" / "postgres").dsn) > 20
    assert "last migration" in accord("migrate", tmp_path, variables)
    assert "migrated to" in accord("doctor", tmp_path, variables | {"PORT": gateway.address.rpartition(":")[2]})
    assert gateway.stop() == 0
    assert clients == []


def test_database_url_alone_specifies_the_server(
    start: Start, tmp_path: Path, elsewhere: Elsewhere, separate_postgres: EmbeddedPostgres
) -> None:
    """The URL omits port, options and target_session_attrs, which the environment has."""
    variables, clients = elsewhere
    ignored = {
        name: value for name, value in variables.items() if name in REDIRECTING | set(SESSION) - {"PGREQUIRESSL"}
    }
    sockets = quote(str(conninfo_to_dict(separate_postgres.dsn)["host"]))
    settings = ignored | {"DATABASE_URL": f"postgresql://accord@/accord?host={sockets}"}
    gateway = start(**settings, WORKERS=2)
    assert healthy(gateway.address)
    assert tables(separate_postgres.dsn) > 20
    assert set(ignored) == set(gateway.event("environment_ignored")["variables"])  # type: ignore[call-overload]
    assert "last migration" in accord("migrate", tmp_path, settings)
    report = accord("doctor", tmp_path, settings | {"PORT": gateway.address.rpartition(":")[2]})
    assert all(name in report for name in ignored)
    assert gateway.stop() == 0
    assert clients == []


def test_environment_supplies_the_credentials_that_database_url_omits(
    start: Start, separate_postgres: EmbeddedPostgres
) -> None:
    sockets = quote(str(conninfo_to_dict(separate_postgres.dsn)["host"]))
    gateway = start(DATABASE_URL=f"postgresql:///accord?host={sockets}", PGUSER="accord", PGPASSWORD="unused")
    assert healthy(gateway.address)
    assert "environment_ignored" not in gateway.output
