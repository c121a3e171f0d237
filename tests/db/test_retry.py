import asyncio
import time

import pytest
from sqlalchemy import bindparam, select, text, update

from accord_db.engine.database import Database
from accord_db.engine.errors import AlreadyExists, Conflict
from accord_db.engine.ids import uuid7
from accord_db.engine.retry import retry_conflicts
from accord_db.engine.scope import set_deadline
from accord_db.queries import tasks
from accord_db.schema import Account, Task

TITLE = select(Task.title).where(Task.id == bindparam("task_id"))
RENAME = update(Task).where(Task.id == bindparam("task_id")).values(title=bindparam("title"))


class Attempts:
    def __init__(self, *, fail: int, error: type[Exception] = Conflict) -> None:
        self.count = 0
        self._fail = fail
        self._error = error

    async def __call__(self) -> str:
        self.count += 1
        if self.count <= self._fail:
            raise self._error("lost")
        return "done"


async def test_conflict_is_retried() -> None:
    attempts = Attempts(fail=2)
    assert await retry_conflicts(attempts) == "done"
    assert attempts.count == 3


async def test_repeated_conflict_is_raised() -> None:
    attempts = Attempts(fail=1000)
    with pytest.raises(Conflict):
        await retry_conflicts(attempts)
    assert 3 <= attempts.count <= 10


async def test_other_errors_are_not_retried() -> None:
    attempts = Attempts(fail=1, error=AlreadyExists)
    with pytest.raises(AlreadyExists):
        await retry_conflicts(attempts)
    assert attempts.count == 1


async def test_conflict_is_not_retried_after_the_deadline() -> None:
    set_deadline(time.monotonic() - 1)
    attempts = Attempts(fail=1000)
    with pytest.raises(Conflict):
        await retry_conflicts(attempts)
    assert attempts.count == 1


async def test_transaction_with_a_serialization_failure_is_repeated(database: Database, account: Account) -> None:
    counter = await tasks.insert_task(database, task_id=uuid7(), created_by=account.id, title="0")
    both_have_read = asyncio.Barrier(2)
    attempts: list[str] = []

    async def count_one() -> None:
        async with database.transaction() as tx:
            await tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            title = await tx.fetch_one(TITLE, task_id=counter.id)
            assert title is not None
            attempts.append(title)
            if len(attempts) <= 2:
                await both_have_read.wait()
            await tx.execute(RENAME, task_id=counter.id, title=str(int(title) + 1))

    await asyncio.gather(retry_conflicts(count_one), retry_conflicts(count_one))
    assert attempts == ["0", "0", "1"]
    assert await database.fetch_one(TITLE, task_id=counter.id) == "2"
