"""The pool reconnects after PostgreSQL restarts, crashes or closes connections."""

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
    """A database on a server that the test can restart."""
    database = await Database.connect(DatabaseSettings(dsn=server.dsn, role=None, pool_size=3, pool_wait=3.0))
    await asyncio.gather(*(database.fetch_one(ONE) for _ in range(20)))
    yield database
    await database.close()


async def test_next_query_after_a_restart_succeeds_within_a_second(server: EmbeddedPostgres, pool: Database) -> None:
    server.stop()
    await process_events()
    server.start()
    started = time.monotonic()
    assert await pool.fetch_one(ONE) == 1
    assert time.monotonic() - started < 1.0


async def test_queries_wait_during_a_restart_and_succeed(server: EmbeddedPostgres, pool: Database) -> None:
    server.stop()
    await process_events()
    waiting = [asyncio.create_task(pool.fetch_one(ONE)) for _ in range(10)]
    await asyncio.sleep(0.3)
    server.start()
    assert await asyncio.gather(*waiting) == [1] * 10


async def test_queries_are_unavailable_while_postgresql_is_down(server: EmbeddedPostgres) -> None:
    database = await Database.connect(DatabaseSettings(dsn=server.dsn, role=None, pool_size=1, pool_wait=0.2))
    server.stop()
    await process_events()
    with pytest.raises(Unavailable) as caught:
        await database.fetch_one(ONE)
    assert caught.value.retry_after > 0
    server.start()
    async with asyncio.timeout(5):
        while await outcome(database) == "unavailable":
            await process_events()
    assert await database.fetch_one(ONE) == 1
    await database.close()


async def outcome(database: Database) -> object:
    try:
        return await database.fetch_one(ONE)
    except Unavailable:
        return "unavailable"


async def test_pool_reconnects_after_the_server_is_killed_during_queries(
    server: EmbeddedPostgres, pool: Database
) -> None:
    calls = [asyncio.create_task(pool.fetch_one(select(func.pg_sleep(10)))) for _ in range(3)]
    await asyncio.sleep(0.2)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGQUIT)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    server.stop()
    server.start()
    assert await pool.fetch_one(ONE) == 1


async def test_idle_connections_closed_by_the_server_are_not_used(pool: Database) -> None:
    async with pool.transaction() as tx:
        mine = await tx.fetch_one(BACKEND)
        others = {await asyncio.create_task(pool.fetch_one(BACKEND)) for _ in range(2)}
        for backend in others - {mine}:
            await tx.fetch_one(TERMINATE, backend=backend)
    await process_events()
    assert await asyncio.gather(*(pool.fetch_one(ONE) for _ in range(10))) == [1] * 10


async def process_events() -> None:
    """`server.stop()` blocks the event loop, which sees the closed connections afterwards."""
    await asyncio.sleep(0.1)


async def test_fatal_error_closes_the_connection_before_the_server_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=_serve_fatal_errors, args=[listening])
        server.start()
        port = listening.getsockname()[1]
        settings = DatabaseSettings(dsn=f"postgresql://accord@127.0.0.1:{port}/accord?sslmode=disable", pool_size=1)
        with pytest.raises(Unavailable, match="57P01"):  # connecting reads the clock
            await asyncio.wait_for(Database.connect(settings), 5)
        listening.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(server.join)


def _serve_fatal_errors(listening: socket.socket) -> None:
    """A server without authentication that responds to the first query with a FATAL error and keeps the connection open."""
    with suppress(OSError):
        while True:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.settimeout(2)  # a client that was cancelled while connecting may send nothing
                connection.recv(65536)
                connection.sendall(
                    _message(b"R", b"\0\0\0\0")
                    + _message(b"S", b"client_encoding\0UTF8\0")
                    + _message(b"S", b"default_transaction_read_only\0off\0")
                    + _message(b"S", b"in_hot_standby\0off\0")
                    + _message(b"Z", b"I")
                )
                connection.recv(65536)
                connection.sendall(_message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"))
                while connection.recv(65536):
                    pass


def _message(kind: bytes, content: bytes) -> bytes:
    return kind + (4 + len(content)).to_bytes(4) + content
