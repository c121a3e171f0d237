"""Other people's servers, for the length of a test."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import pq

from accord_postgres.account import choose_account, hand_over
from accord_postgres.launch import launch


@contextmanager
def running(program: Sequence[str | Path], folder: Path) -> Iterator[None]:
    """As a user that is not root, which none of them wants to be; it owns the folder, and its output is kept there."""
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


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def wait_until_ready(dsn: str, *, patience: float = 10.0) -> None:
    give_up = time.monotonic() + patience
    while True:
        try:
            psycopg.connect(dsn).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


@contextmanager
def recording_server() -> Iterator[tuple[int, list[str]]]:
    """A port of 127.0.0.1 on which nothing is served, and the list of clients that have connected to it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
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
    """A value for every variable of libpq. Those that can lead elsewhere lead to `port`, the others are malformed."""
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
