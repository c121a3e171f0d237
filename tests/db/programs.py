"""Servers of other projects, run for a test; servers that record their clients or reject writes; malformed URLs."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import pq

from accord_postgres import EmbeddedPostgres
from accord_postgres.account import choose_account, hand_over
from accord_postgres.launch import launch


@contextmanager
def running(program: Sequence[str | Path], folder: Path) -> Iterator[None]:
    """Runs the program as a user other than root, which owns the folder. Its output goes to output.log."""
    account = choose_account(folder)
    hand_over(folder, account.owner)
    with (folder / "output.log").open("wb") as output:
        process = launch(program, identity=account.identity, folder=folder, output=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def run(program: Sequence[str | Path], folder: Path) -> None:
    account = choose_account(folder)
    hand_over(folder, account.owner)
    with (folder / "output.log").open("wb") as output:
        process = launch(program, identity=account.identity, folder=folder, output=output)
    assert process.wait() == 0, (folder / "output.log").read_text()


def wait_until_ready(dsn: str, *, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            psycopg.connect(dsn).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def recording_server(port: int = 0) -> Iterator[tuple[int, list[str]]]:
    """A port of 127.0.0.1 that closes every connection, and the list of clients that have connected to it."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        clients: list[str] = []
        thread = threading.Thread(target=_record, args=[listening, clients])
        thread.start()
        try:
            yield int(listening.getsockname()[1]), clients
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _record(listening: socket.socket, clients: list[str]) -> None:
    with suppress(OSError):
        while True:
            connection, address = listening.accept()
            clients.append(str(address))
            connection.close()


def hostile_environment(folder: Path, port: int) -> dict[str, str]:
    """A value for every variable of libpq. Those that can change the server point to `port`; the others are malformed."""
    options = {option.keyword.decode(): option.envvar for option in pq.Conninfo.get_defaults()}
    elsewhere = {
        "host": "127.0.0.1",
        "hostaddr": "127.0.0.1",
        "port": str(port),
        "dbname": "elsewhere",
        "user": "elsewhere",
        "options": "-c default_transaction_read_only=on",
        "target_session_attrs": "standby",
        "replication": "database",
    }
    service_file = folder / "pg_service.conf"
    service_file.write_text("[elsewhere]\n" + "".join(f"{name}={value}\n" for name, value in elsewhere.items()))
    values = {name.decode(): elsewhere.get(keyword, "nonsense") for keyword, name in options.items() if name}
    return values | {"PGSERVICE": "elsewhere", "PGSERVICEFILE": str(service_file)}


READ_ONLY = ("standby.signal", "default_transaction_read_only")
"""Causes of a read-only server: it was demoted to a standby, or an operator has configured it."""


def is_read_only(server: EmbeddedPostgres, cause: str) -> bool:
    if cause == "standby.signal":
        return _standby_signal(server).exists()
    with psycopg.connect(server.dsn, target_session_attrs="any") as connection:
        return connection.execute("SHOW default_transaction_read_only").fetchone() == ("on",)


def make_read_only(server: EmbeddedPostgres, cause: str) -> None:
    if cause == "standby.signal":
        _restart(server, _standby_signal(server).touch)
    else:
        _reconfigure(server, "ALTER SYSTEM SET default_transaction_read_only = on")


def make_writable(server: EmbeddedPostgres, cause: str) -> None:
    if cause == "standby.signal":
        _restart(server, _standby_signal(server).unlink)
    else:
        _reconfigure(server, "ALTER SYSTEM RESET default_transaction_read_only")


def _standby_signal(server: EmbeddedPostgres) -> Path:
    return server.log_file.parent / "data" / "standby.signal"


def _restart(server: EmbeddedPostgres, change: Callable[[], None]) -> None:
    server.stop()
    change()
    server.start()


def _reconfigure(server: EmbeddedPostgres, statement: LiteralString) -> None:
    with psycopg.connect(server.dsn, autocommit=True, target_session_attrs="any") as connection:
        before = connection.execute("SHOW default_transaction_read_only").fetchone()
        connection.execute(statement)
        connection.execute("SELECT pg_reload_conf()")
        while connection.execute("SHOW default_transaction_read_only").fetchone() == before:
            time.sleep(0.01)


PASSWORD = "SECRET"

# libpq reads a part of the password as a host, port, user, database or parameter, or quotes the whole string.
MALFORMED_URLS = [
    f" postgresql://ada:{PASSWORD}@127.0.0.1:1/accord",
    f"\tpostgresql://ada:{PASSWORD}@127.0.0.1:1/accord",
    f"\ufeffpostgresql://ada:{PASSWORD}@127.0.0.1:1/accord",
    f'"postgresql://ada:{PASSWORD}@127.0.0.1:1/accord"',
    f"POSTGRESQL://ada:{PASSWORD}@127.0.0.1:1/accord",
    f"Postgres://ada:{PASSWORD}@127.0.0.1:1/accord",
    f"postgresql:/ada:{PASSWORD}@127.0.0.1:1/accord",
    f"postgresql//ada:{PASSWORD}@127.0.0.1:1/accord",
    f"postgresql:ada:{PASSWORD}@127.0.0.1:1/accord",
    f"ada:{PASSWORD}@127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD}%zzPW@127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD}%@127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD}%4@127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD}%00@127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD}%ff@127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD}@{PASSWORD}@127.0.0.1:1/accord",
    f"postgresql://ada@example:{PASSWORD}@127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD}/{PASSWORD}@127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD}?{PASSWORD}@127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD}?host={PASSWORD}@127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD} {PASSWORD}@127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD}\n@127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD} @127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD}\uff20@127.0.0.1:x/accord",
    f"postgresql://ada:{PASSWORD}@[127.0.0.1:1/accord",
    f"postgresql://ada:{PASSWORD}@127.0.0.1:1accord",
    f"postgresql://ada:{PASSWORD}/accord",
    f"postgresql://ada:{PASSWORD}%40127.0.0.1:1/accord",
    f"postgresql://ada%3A{PASSWORD}@127.0.0.1:1/accord",
    f"postgresql://ada@127.0.0.1:1/accord?pasword={PASSWORD}",
    f"postgresql://ada@127.0.0.1:1/accord?password={PASSWORD}&{PASSWORD}",
    f"postgresql://ada@127.0.0.1:1/accord?password={PASSWORD}%zz",
    f"postgresql://ada@127.0.0.1:1/accord?{PASSWORD}",
    f"host=127.0.0.1 port=1 user=ada password={PASSWORD} {PASSWORD}",
    f"host=127.0.0.1 port=1 user=ada password='{PASSWORD}",
    PASSWORD,
]
