"""The owner restarts a killed server, and no commit is lost."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from accord_postgres import EmbeddedPostgres, Ended, Restarted, RestartFailed

LONG_QUERY = "SELECT count(*) FROM generate_series(1, 5000000) AS number WHERE md5(number::text) = ''"

Events = AsyncGenerator[Ended | Restarted | RestartFailed, None]


@pytest.fixture(scope="module")
def shared_server() -> Iterator[EmbeddedPostgres]:
    with TemporaryDirectory(prefix="accord-") as folder, EmbeddedPostgres(Path(folder)) as server:
        with psycopg.connect(server.dsn) as connection:
            connection.execute("CREATE TABLE numbers (number int)")
        yield server


@pytest.fixture
def server(shared_server: EmbeddedPostgres) -> EmbeddedPostgres:
    shared_server.start()
    with psycopg.connect(shared_server.dsn) as connection:
        connection.execute("TRUNCATE numbers")
    return shared_server


@pytest.fixture
async def events(server: EmbeddedPostgres) -> AsyncIterator[Events]:
    async with aclosing(server.supervise()) as events:
        yield events


async def next_event(events: Events) -> Ended | Restarted | RestartFailed:
    async with asyncio.timeout(60):
        return await anext(events)


def kill(server: EmbeddedPostgres) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)


def numbers(server: EmbeddedPostgres) -> set[int]:
    with psycopg.connect(server.dsn) as connection:
        return {number for (number,) in connection.execute("SELECT number FROM numbers")}


async def write_until_cut_off(server: EmbeddedPostgres, first: int) -> list[int]:
    """The numbers whose commit PostgreSQL acknowledged."""
    committed: list[int] = []
    with suppress(psycopg.OperationalError):
        async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as connection:
            for number in range(first, first + 1_000_000):
                await connection.execute("INSERT INTO numbers VALUES (%s)", [number])
                committed.append(number)
    return committed


async def test_killed_server_is_restarted_with_everything_that_was_committed(
    server: EmbeddedPostgres, events: Events
) -> None:
    writers = [asyncio.create_task(write_until_cut_off(server, writer * 1_000_000)) for writer in range(4)]
    await asyncio.sleep(0.5)
    kill(server)
    assert await next_event(events) == Ended(-signal.SIGKILL)
    assert isinstance(await next_event(events), Restarted)
    committed = {number for numbers in await asyncio.gather(*writers) for number in numbers}
    assert len(committed) > 20
    assert committed <= numbers(server)


async def test_server_is_restarted_each_time(server: EmbeddedPostgres, events: Events) -> None:
    for _ in range(3):
        kill(server)
        assert isinstance(await next_event(events), Ended)
        assert isinstance(await next_event(events), Restarted)
    assert numbers(server) == set()


async def test_restart_waits_for_the_processes_of_the_killed_server(server: EmbeddedPostgres, events: Events) -> None:
    """Otherwise two servers would write to one folder."""
    connection = await psycopg.AsyncConnection.connect(server.dsn, autocommit=True)
    backend, query = connection.info.backend_pid, asyncio.create_task(connection.execute(LONG_QUERY))
    await asyncio.sleep(0.2)
    kill(server)
    assert isinstance(await next_event(events), Ended)
    assert is_running(backend)
    assert isinstance(await next_event(events), Restarted)
    assert not is_running(backend)
    await asyncio.gather(query, return_exceptions=True)
    await connection.close()


def is_running(pid: int) -> bool:
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


async def test_failed_restart_is_reported_with_its_reason_and_repeated(
    server: EmbeddedPostgres, events: Events
) -> None:
    configuration = server.log_file.parent / "data" / "postgresql.auto.conf"
    before = configuration.read_text()
    configuration.write_text("no_such_setting = 1\n")
    kill(server)
    assert isinstance(await next_event(events), Ended)
    first, second = await next_event(events), await next_event(events)
    assert isinstance(first, RestartFailed)
    assert isinstance(second, RestartFailed)
    assert "no_such_setting" in first.reason
    assert second.retry_in > first.retry_in
    configuration.write_text(before)
    assert isinstance(await next_event(events), Restarted)
    assert numbers(server) == set()


async def test_stopped_server_is_not_restarted(server: EmbeddedPostgres, events: Events) -> None:
    server.stop()
    with pytest.raises(StopAsyncIteration):
        await next_event(events)


async def test_stop_ends_a_restarted_server_and_releases_its_folder(server: EmbeddedPostgres, events: Events) -> None:
    kill(server)
    await next_event(events)
    await next_event(events)
    server.stop()
    assert server.pid is None
    with EmbeddedPostgres(server.log_file.parent) as successor:
        assert numbers(successor) == set()


async def test_cancelled_restart_leaves_nothing_running(server: EmbeddedPostgres) -> None:
    async def supervise() -> None:
        async for _ in server.supervise():
            pass

    supervision = asyncio.create_task(supervise())
    killed = server.pid
    kill(server)
    async with asyncio.timeout(60):
        while (restarted := server.pid) in (killed, None):
            await asyncio.sleep(0)
    supervision.cancel()
    await asyncio.wait([supervision])
    server.stop()
    assert restarted is not None
    assert not is_running(restarted)
