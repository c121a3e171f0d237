"""Databases in which `lower('I')` is not `i`: Turkish ones."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from accord_postgres import EmbeddedPostgres, launch
from tests.conftest import drop_database, execute

LOCALE = "tr_TR.UTF-8"
_SOURCE = Path("/usr/share/i18n/locales/tr_TR")


@contextmanager
def turkish_server(server: str) -> Iterator[str]:
    """The server itself if it has ICU's collations, or an embedded one that finds the C library's locale."""
    if has_icu(server):
        yield server
        return
    if not _SOURCE.exists():
        pytest.skip("neither ICU nor the source of the locale tr_TR (Debian's package `locales`) is installed")
    with TemporaryDirectory(prefix="accord-") as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder)
        path.chmod(0o755)
        subprocess.run(
            ["localedef", "--no-archive", "-i", "tr_TR", "-f", "UTF-8", str(path / LOCALE)],
            check=True,
            capture_output=True,
        )
        patch.setattr(launch, "TRAMPOLINE", _trampoline(path))
        with EmbeddedPostgres(path / "postgres", sync=False) as embedded:
            yield embedded.dsn


def has_icu(server: str) -> bool:
    with psycopg.connect(server) as connection:
        return connection.execute("SELECT FROM pg_collation WHERE collname = 'tr-x-icu'").rowcount == 1


def create_turkish_database(server: str) -> str:
    """Empty."""
    name = f"accord_test_{uuid4().hex}"
    locale = (
        "LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C'"
        if has_icu(server)
        else f"LOCALE_PROVIDER libc LOCALE '{LOCALE}'"
    )
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' {}")
    execute(server, statement.format(sql.Identifier(name), sql.SQL(locale)))
    return make_conninfo(server, dbname=name)


@contextmanager
def turkish_database(server: str) -> Iterator[str]:
    dsn = create_turkish_database(server)
    try:
        yield dsn
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            drop_database(connection, str(conninfo_to_dict(dsn)["dbname"]))


def _trampoline(locales: Path) -> Path:
    """Starts PostgreSQL as accord_postgres does, in an environment that names the folder of the locale too."""
    environment = '{"LC_ALL": "C"}'
    original = launch.TRAMPOLINE.read_text()
    assert original.count(environment) == 1
    changed = locales / launch.TRAMPOLINE.name
    changed.write_text(original.replace(environment, repr({"LC_ALL": "C", "LOCPATH": str(locales)})))
    return changed
