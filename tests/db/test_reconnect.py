"""PostgreSQL goes away and comes back: the service does not have to be told."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import Integer, bindparam, func, literal, select

from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.errors import Unavailable
from accord_postgres import EmbeddedPostgres

ONE = select(literal(1))
BACKEND = select(func.pg_backend_pid())
TERMINATE = select(func.pg_terminate_backend(bindparam("backend", type_=Integer)))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path, sync=False) as server:
        yield server


@pytest.fixture
async def pool(server: EmbeddedPostgres) -> AsyncIterator[Database]:
    """A database that really can be restarted."""
    database = await Database.connect(DatabaseSettings(dsn=server.dsn, role=None, pool_size=3, pool_wait=3.0))
    await asyncio.gather(*(database.fetch_one(ONE) for _ in range(20)))
    yield database
    await database.close()


async def test_after_a_restart_of_postgresql_the_next_call_finds_it_within_a_second(
    server: EmbeddedPostgres, pool: Database
) -> None:
    server.stop()
    await noticed()
    server.start()
    started = time.monotonic()
    assert await pool.fetch_one(ONE) == 1
    assert time.monotonic() - started < 1.0


async def test_while_postgresql_is_away_calls_wait_and_then_succeed(server: EmbeddedPostgres, pool: Database) -> None:
    server.stop()
    await noticed()
    waiting = [asyncio.create_task(pool.fetch_one(ONE)) for _ in range(10)]
    await asyncio.sleep(0.3)
    server.start()
    assert await asyncio.gather(*waiting) == [1] * 10


async def test_while_postgresql_stays_away_calls_are_unavailable(server: EmbeddedPostgres) -> None:
    database = await Database.connect(DatabaseSettings(dsn=server.dsn, role=None, pool_size=1, pool_wait=0.2))
    server.stop()
    await noticed()
    with pytest.raises(Unavailable) as caught:
        await database.fetch_one(ONE)
    assert caught.value.retry_after > 0
    server.start()
    async with asyncio.timeout(5):
        while await outcome(database) == "unavailable":
            await noticed()
    assert await database.fetch_one(ONE) == 1
    await database.close()


async def outcome(database: Database) -> object:
    try:
        return await database.fetch_one(ONE)
    except Unavailable:
        return "unavailable"


async def test_a_server_killed_in_the_middle_of_calls_is_found_again(server: EmbeddedPostgres, pool: Database) -> None:
    calls = [asyncio.create_task(pool.fetch_one(select(func.pg_sleep(10)))) for _ in range(3)]
    await asyncio.sleep(0.2)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGQUIT)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    server.stop()
    server.start()
    assert await pool.fetch_one(ONE) == 1


async def test_connections_that_were_ended_while_idle_are_not_lent(pool: Database) -> None:
    async with pool.transaction() as tx:
        mine = await tx.fetch_one(BACKEND)
        others = {await asyncio.create_task(pool.fetch_one(BACKEND)) for _ in range(2)}
        for backend in others - {mine}:
            await tx.fetch_one(TERMINATE, backend=backend)
    await noticed()
    assert await asyncio.gather(*(pool.fetch_one(ONE) for _ in range(10))) == [1] * 10


async def noticed() -> None:
    """Stopping the server here stops the event loop too, which hears of it afterwards."""
    await asyncio.sleep(0.1)


async def test_a_server_that_says_it_ends_the_connection_is_believed_before_it_hangs_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=_say_goodbye, args=[listening])
        server.start()
        port = listening.getsockname()[1]
        settings = DatabaseSettings(dsn=f"postgresql://accord@127.0.0.1:{port}/accord?sslmode=disable", pool_size=1)
        database = await Database.connect(settings)
        with pytest.raises(Unavailable, match="57P01"):
            await asyncio.wait_for(database.fetch_one(ONE), 5)
        await database.close()
        listening.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(server.join)


def _say_goodbye(listening: socket.socket) -> None:
    """A PostgreSQL that lets anybody in, and is shut down when it is asked something. It never hangs up first."""
    with suppress(OSError):
        while True:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.settimeout(
                    2
                )  # one that its client has given up as it was made may stay open, and never speak
                connection.recv(65536)
                connection.sendall(
                    _said(b"R", b"\0\0\0\0")
                    + _said(b"S", b"client_encoding\0UTF8\0")
                    + _said(b"S", b"default_transaction_read_only\0off\0")
                    + _said(b"S", b"in_hot_standby\0off\0")
                    + _said(b"Z", b"I")
                )
                connection.recv(65536)
                connection.sendall(_said(b"E", b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"))
                while connection.recv(65536):
                    pass


def _said(kind: bytes, what: bytes) -> bytes:
    return kind + (4 + len(what)).to_bytes(4) + what
