"""The database behind PgBouncer with transaction pooling."""

import asyncio
import shutil
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Float, Integer, bindparam, func, literal, select, text

from accord_db.engine.database import Database
from accord_db.engine.errors import Unavailable
from accord_db.engine.ids import uuid7
from accord_db.engine.scope import acting_for
from accord_db.queries import tasks
from accord_db.schema import Account, Task
from tests.conftest import Connect, execute
from tests.db.conftest import NewAccount
from tests.db.programs import running, wait_until_ready
from tests.ports import free_port

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
CONNECTIONS = 3
# In production gateways log in as a role that acts as accord_gateway.
ROLE = {"connect_query": "SET ROLE accord_gateway"}

ECHO = select(bindparam("value", type_=Integer))
SLEEP = select(func.pg_sleep(bindparam("seconds", type_=Float)))
SLEEPING = (
    select(func.count())
    .select_from(text("pg_stat_activity"))
    .where(
        text(
            "datname = current_database() AND state = 'active' AND query LIKE '%pg_sleep(%' AND pid <> pg_backend_pid()"
        )
    )
)


@pytest.fixture
def pooler(dsn: str, tmp_path: Path) -> Iterator[str]:
    """A DSN of the same database through PgBouncer, which opens fewer connections than the pool."""
    if PGBOUNCER is None:
        pytest.skip("PgBouncer is not installed")
    port = free_port()
    configuration = tmp_path / "pgbouncer.ini"
    configuration.write_text(configured(dsn, port))
    with running([PGBOUNCER, configuration], tmp_path):
        pooled = f"postgresql://anyone@127.0.0.1:{port}/pooled"
        wait_until_ready(pooled)
        yield pooled


def configured(dsn: str, port: int) -> str:
    with psycopg.connect(dsn) as connection:
        info = connection.info
        server = {"host": info.host, "port": info.port, "dbname": info.dbname, "user": info.user}
        password = {"password": info.password} if info.password else {}
    return "\n".join(
        [
            "[databases]",
            "pooled = " + " ".join(f"{name}='{value}'" for name, value in (server | password | ROLE).items()),
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {port}",
            "auth_type = any",
            "pool_mode = transaction",
            f"default_pool_size = {CONNECTIONS}",
        ]
    )


@pytest.fixture
async def pooled(pooler: str, connect: Connect) -> Database:
    return await connect(dsn=pooler, prepare=False, pool_size=12, pool_wait=10)


async def test_no_query_fails_behind_a_pooler(pooled: Database, account: Account) -> None:
    async def work(number: int) -> None:
        for value in range(20):
            assert await pooled.fetch_one(ECHO, value=value) == value
            async with pooled.transaction() as tx:
                title = f"{number}.{value}"
                task = await tasks.insert_task(tx, task_id=uuid7(), created_by=account.id, title=title)
                found = await tasks.get_task(tx, task_id=task.id, owner_id=account.id)
                assert found == task

    await asyncio.gather(*(work(number) for number in range(20)))
    assert await pooled.fetch_one(select(func.count()).select_from(Task)) == 400


async def test_cancelled_call_cancels_its_statement_through_a_pooler(pooled: Database, database: Database) -> None:
    call = asyncio.create_task(sleep(pooled))
    await until(database, sleeping=1)
    call.cancel()
    async with asyncio.timeout(2):
        await until(database, sleeping=0)
    results = await asyncio.gather(*(pooled.fetch_one(ECHO, value=value) for value in range(40)))
    assert results == list(range(40))


async def test_statement_timeout_of_a_transaction_does_not_stay_on_the_connection(pooled: Database) -> None:
    limit = select(func.current_setting("statement_timeout"))
    async with pooled.transaction() as tx:
        assert await tx.fetch_one(limit) == "30s"
    assert set(await asyncio.gather(*(pooled.fetch_one(limit) for _ in range(20)))) == {"0"}


async def test_tenant_of_a_transaction_does_not_stay_on_the_connection(
    pooled: Database, new_account: NewAccount
) -> None:
    setting = select(func.current_setting("accord.tenant", literal(True)))
    owners = select(Task.owner_id)  # no predicate for the tenant

    async def work(owner_id: UUID) -> None:
        with acting_for(owner_id):
            for _ in range(20):
                await tasks.insert_task(pooled, task_id=uuid7(), created_by=owner_id, title="Mow")
                assert set(await pooled.fetch_all(owners)) == {owner_id}
                assert not await pooled.fetch_one(setting)
                async with pooled.transaction() as tx:
                    assert set(await tx.fetch_all(owners)) == {owner_id}

    await asyncio.gather(*[work((await new_account()).id) for _ in range(10)])
    assert not any(await asyncio.gather(*(pooled.fetch_one(setting) for _ in range(20))))


async def test_ping_fails_while_the_server_of_the_pooler_is_read_only(dsn: str, pooled: Database) -> None:
    await pooled.ping()
    name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
    execute(dsn, sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name), END_OTHERS)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await pooled.ping()
    writable = make_conninfo(dsn, target_session_attrs="any", options="-c default_transaction_read_only=off")
    execute(writable, sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name), END_OTHERS)
    async with asyncio.timeout(10):
        while not await works(pooled.ping()):
            await asyncio.sleep(0.05)


END_OTHERS = sql.SQL(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def works(ping: Awaitable[None]) -> bool:
    with suppress(Unavailable):
        await ping
        return True
    return False


async def sleep(db: Database) -> None:
    await db.fetch_one(SLEEP, seconds=10)


async def until(db: Database, *, sleeping: int) -> None:
    while await db.fetch_one(SLEEPING) != sleeping:
        await asyncio.sleep(0.01)
