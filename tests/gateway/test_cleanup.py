"""The clean-up of a gateway: at intervals, in one process at a time, and continued after an outage of the database."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import LargeBinary, Text, cast, func, insert, select, text
from structlog.testing import capture_logs

from accord_db import migrate
from accord_db.engine.database import Database, DatabaseSettings
from accord_db.queries.cleanup import expired_rows, try_lock_cleanup
from accord_db.schema import RateLimit
from accord_gateway.process.background_tasks import running
from accord_gateway.process.cleanup import CleanUp, Outcome, clean_up_metrics
from accord_postgres import EmbeddedPostgres
from tests.conftest import WAITING, Connect
from tests.gateway.conftest import Start, eventually, read_metrics
from tests.ports import free_port

_numbers = func.generate_series(1, 1000).table_valued("number", name="numbers").render_derived()
_FILL = insert(RateLimit).from_select(
    ["key", "count", "reset_at"],
    select(
        func.sha256(cast(cast(_numbers.c.number, Text), LargeBinary)), text("1"), text("now() - interval '1 second'")
    ),
)
_LEFT = select(func.count()).select_from(RateLimit)
_KEPT = timedelta(days=30)


def clean_up(database: Database, *, batch: int = 500) -> CleanUp:
    expired = expired_rows(deleted_accounts_kept=_KEPT, deleted_organizations_kept=_KEPT, batch=batch)
    return CleanUp(database, expired, clean_up_metrics())


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"accord_cleanup_{name}_total", labels) or 0.0


async def test_a_run_deletes_batch_after_batch_and_counts_the_rows(database: Database) -> None:
    await database.execute(_FILL)
    rows, runs = counted("deleted", table="rate_limits"), counted("runs", outcome="done")
    assert await clean_up(database, batch=300).run() == Outcome.DONE
    assert await database.fetch_one(_LEFT) == 0
    assert counted("deleted", table="rate_limits") == rows + 1000
    assert counted("runs", outcome="done") == runs + 1


async def test_concurrent_runs_delete_each_row_once(connect: Connect) -> None:
    databases = [await connect() for _ in range(4)]
    await databases[0].execute(_FILL)
    rows = counted("deleted", table="rate_limits")
    outcomes = await asyncio.gather(*(clean_up(database, batch=10).run() for database in databases))
    assert Outcome.DONE in outcomes
    assert set(outcomes) <= {Outcome.DONE, Outcome.ELSEWHERE}
    assert await databases[0].fetch_one(_LEFT) == 0
    assert counted("deleted", table="rate_limits") == rows + 1000


async def test_a_run_deletes_nothing_while_another_process_cleans_up(connect: Connect) -> None:
    one, other = await connect(), await connect()
    await one.execute(_FILL)
    async with other.transaction() as tx:
        assert await try_lock_cleanup(tx)
        assert await clean_up(one).run() == Outcome.ELSEWHERE
    assert await one.fetch_one(_LEFT) == 1000
    assert await clean_up(one).run() == Outcome.DONE


async def test_an_outage_of_the_database_is_logged_once_and_the_clean_up_continues_after_it(
    separate_postgres: EmbeddedPostgres,
) -> None:
    migrate.apply(separate_postgres.dsn)
    database = await Database.connect(DatabaseSettings(dsn=separate_postgres.dsn, pool_size=1, pool_wait=0.2))
    job = clean_up(database)
    with capture_logs() as lines:
        assert await job.run() == Outcome.DONE
        separate_postgres.stop()
        assert [await job.run() for _ in range(3)] == [Outcome.FAILED] * 3
        separate_postgres.start()
        while await job.run() == Outcome.FAILED:
            await asyncio.sleep(0.05)
        await job.run()
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("not_cleaning_up", "error"),
        ("cleaning_up", "info"),
    ]
    await database.close()


async def test_an_unexpected_error_does_not_end_the_clean_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.execute(_FILL)
    job = clean_up(database)
    with monkeypatch.context() as broken, capture_logs():
        broken.setattr(job, "_expired", None)
        async with running(job.repeat(timedelta(milliseconds=1))):
            await asyncio.sleep(0.05)
            broken.undo()
            while await database.fetch_one(_LEFT):
                await asyncio.sleep(0.01)


@pytest.fixture
async def locked_table(dsn: str) -> AsyncIterator[None]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("LOCK TABLE rate_limits")
        yield


async def test_cancellation_ends_a_batch_that_waits_for_a_lock(database: Database, locked_table: None) -> None:
    waiting = select(func.count()).select_from(text(f"{WAITING} AND mode = 'RowShareLock'"))
    async with asyncio.timeout(10):
        async with running(clean_up(database).repeat(timedelta(milliseconds=1))):
            while not await database.fetch_one(waiting):
                await asyncio.sleep(0.01)
        assert await database.fetch_one(select(text("1"))) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_gateway_deletes_an_expired_session_and_counts_it(
    start: Start, database_url: str, dsn: str, workers: int
) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("""
            WITH account AS (
                INSERT INTO accounts (id, email, display_name) VALUES (gen_random_uuid(), 'a@example.com', 'A') RETURNING id
            )
            INSERT INTO sessions (id, account_id, token_hash, expires_at)
            SELECT gen_random_uuid(), id, sha256(kept::text::bytea), now() - kept
            FROM account, unnest('{31 days,29 days}'::interval[]) AS kept
        """)
        port = free_port()
        gateway = start(
            DATABASE_URL=database_url, METRICS_PORT=port, CLEANUP_INTERVAL="200ms", WORKERS=workers, LOG_LEVEL="info"
        )
        gateway.event("listening")
        eventually(lambda: re.search(r'cleanup_deleted_total{table="sessions"} 1\.0', read_metrics(port)), gateway)
        eventually(lambda: re.search(r'cleanup_runs_total{outcome="done"} [1-9]', read_metrics(port)), gateway)
        assert 'accord_cleanup_runs_total{outcome="failed"} 0.0' in read_metrics(port)
        assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
    assert gateway.stop() == 0
    assert "not_cleaning_up" not in gateway.output
