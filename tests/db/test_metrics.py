import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import Integer, bindparam, func, select, update

from accord_db.engine.database import Database
from accord_db.engine.errors import InvalidValue
from accord_db.engine.metrics import metrics
from accord_db.schema import Account, Task
from tests.conftest import Connect


def sample(name: str, /, *registries: CollectorRegistry, **labels: str) -> float:
    (registry,) = registries or (REGISTRY,)
    return registry.get_sample_value(name, labels) or 0.0


async def test_statement_is_counted_and_timed_by_operation_and_table(database: Database) -> None:
    labels = {"operation": "select", "table": "tasks"}
    counted, timed = sample("db_queries_total", **labels), sample("db_query_duration_seconds_count", **labels)
    await database.fetch_all(select(Task).join(Account, Account.id == Task.created_by))
    assert sample("db_queries_total", **labels) == counted + 1
    assert sample("db_query_duration_seconds_count", **labels) == timed + 1


async def test_statement_of_a_transaction_is_counted(database: Database) -> None:
    labels = {"operation": "update", "table": "tasks"}
    before = sample("db_queries_total", **labels)
    async with database.transaction() as tx:
        await tx.execute(update(Task).values(title="the same"))
    assert sample("db_queries_total", **labels) == before + 1


async def test_subquery_is_counted_for_the_table_it_reads(database: Database) -> None:
    labels = {"operation": "select", "table": "accounts"}
    before = sample("db_queries_total", **labels)
    newest = select(Account.id).limit(1).subquery()
    await database.fetch_all(select(func.count()).select_from(newest))
    assert sample("db_queries_total", **labels) == before + 1


async def test_error_is_counted_by_its_sqlstate(database: Database) -> None:
    before = sample("db_errors_total", sqlstate="22012")
    with pytest.raises(InvalidValue):
        await database.fetch_one(select(1 / bindparam("zero", type_=Integer)), zero=0)
    assert sample("db_errors_total", sqlstate="22012") == before + 1


async def test_pool_size_counts_open_connections(connect: Connect) -> None:
    before = sample("db_connection_pool_size")
    database = await connect()
    assert sample("db_connection_pool_size") > before
    await database.close()
    assert sample("db_connection_pool_size") == before


def test_registry_has_each_metric_once() -> None:
    registry = CollectorRegistry()
    assert metrics(registry) is metrics(registry)
    assert metrics(registry) is not metrics(CollectorRegistry())


WORKER = """
import asyncio, sys
from sqlalchemy import literal, select
from accord_db.engine.database import Database, DatabaseSettings

async def main():
    database = await Database.connect(DatabaseSettings(dsn=sys.argv[1], pool_size=1))
    await database.fetch_one(select(literal(1)))
    print("connected", flush=True)
    sys.stdin.read()
    await database.close()

asyncio.run(main())
"""


def test_metrics_of_workers_are_summed(dsn: str, tmp_path: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, dsn], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"connected\n"
    together = CollectorRegistry()
    MultiProcessCollector(together, path=str(tmp_path))  # type: ignore[no-untyped-call]  # untyped there
    assert sample("db_queries_total", together, operation="select", table="none") == 4  # each connects with one
    assert sample("db_connection_pool_size", together) == 2
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
