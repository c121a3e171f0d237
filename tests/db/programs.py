"""Other people's servers, for the length of a test."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

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
