"""Queries of tasks: owners, lists, filters, pages, updates and soft deletion."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Literal
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import bindparam, create_engine, update

from accord_db.engine.database import Database
from accord_db.engine.errors import AlreadyExists, ForeignKeyMissing, InvalidValue
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Cursor, Page
from accord_db.queries import organizations, tasks
from accord_db.queries.tasks import NewTask
from accord_db.schema import Account, Task

NewTasks = Callable[..., Awaitable[list[Task]]]


@pytest.fixture
def make(database: Database, account: Account) -> NewTasks:
    """Tasks of the account with these titles."""

    async def make(*titles: str) -> list[Task]:
        new = [(uuid7(), NewTask(title=title)) for title in titles]
        return await tasks.insert_tasks(database, new, created_by=account.id)

    return make


_SET_TIME = (
    update(Task).where(Task.id == bindparam("task_id")).values(created_at=bindparam("at"), updated_at=bindparam("at"))
)


async def set_time(database: Database, task: Task, at: datetime) -> None:
    await database.execute(_SET_TIME, task_id=task.id, at=at)


def titles(rows: Iterable[Task]) -> list[str]:
    return [row.title for row in rows]


# --- insert -----------------------------------------------------------------------------------------------------------
async def test_insert_task_returns_the_row_with_database_defaults(database: Database, account: Account) -> None:
    task_id = uuid7()
    task = await tasks.insert_task(
        database, task_id=task_id, created_by=account.id, title="Mow", description="All of it"
    )
    assert (task.id, task.title, task.description, task.created_by) == (task_id, "Mow", "All of it", account.id)
    assert task.completed is False
    assert task.deleted_at is None
    assert task.created_at == task.updated_at
    assert datetime.now(UTC) - task.created_at < timedelta(minutes=1)
    assert isinstance(task.etag, UUID)


async def test_insert_task_without_a_description_has_none(database: Database, account: Account) -> None:
    task = await tasks.insert_task(database, task_id=uuid7(), created_by=account.id, title="Mow")
    assert task.description is None


async def test_insert_task_of_an_unknown_organization_is_a_missing_foreign_key(
    database: Database, account: Account
) -> None:
    with pytest.raises(ForeignKeyMissing):
        await tasks.insert_task(database, task_id=uuid7(), created_by=account.id, organization_id=uuid7(), title="Mow")


async def test_insert_task_of_an_organization_is_owned_by_the_organization(
    database: Database, account: Account
) -> None:
    organization_id = uuid7()
    await organizations.insert_organization(
        database, organization_id=organization_id, name="Gardeners", slug="gardeners"
    )
    new = [(uuid7(), NewTask(title="Rake"))]
    task = await tasks.insert_task(
        database, task_id=uuid7(), created_by=account.id, organization_id=organization_id, title="Mow"
    )
    rows = await tasks.insert_tasks(database, new, created_by=account.id, organization_id=organization_id)
    assert {(row.owner_id, row.organization_id, row.created_by) for row in [task, *rows]} == {
        (organization_id, organization_id, account.id)
    }
    assert await tasks.count_tasks(database, owner_id=organization_id) == 2
    assert await tasks.count_tasks(database, owner_id=account.id) == 0


async def test_insert_task_without_an_organization_is_owned_by_its_creator(
    database: Database, account: Account
) -> None:
    task = await tasks.insert_task(database, task_id=uuid7(), created_by=account.id, title="Mow")
    assert (task.owner_id, task.organization_id) == (account.id, None)


async def test_insert_task_with_a_taken_id_already_exists(database: Database, make: NewTasks) -> None:
    [task] = await make("Mow")
    with pytest.raises(AlreadyExists):
        await tasks.insert_task(database, task_id=task.id, created_by=task.created_by, title="Rake")


@pytest.mark.parametrize(
    ("title", "description"), [("", None), ("x" * 257, None), ("x", "y" * 1001)], ids=["empty", "long", "description"]
)
async def test_insert_task_beyond_the_limits_of_the_contract_is_invalid(
    database: Database, account: Account, title: str, description: str | None
) -> None:
    with pytest.raises(InvalidValue):
        await tasks.insert_task(database, task_id=uuid7(), created_by=account.id, title=title, description=description)


async def test_insert_task_counts_characters_and_not_bytes(database: Database, account: Account) -> None:
    task = await tasks.insert_task(
        database, task_id=uuid7(), created_by=account.id, title="💡" * 256, description="é" * 1000
    )
    assert task.title == "💡" * 256


async def test_insert_tasks_returns_rows_in_the_order_given(database: Database, account: Account) -> None:
    new = [
        (uuid7(), NewTask(title=f"Task {number}", description=None if number % 2 else f"No. {number}"))
        for number in range(100)
    ]
    new.sort(key=lambda task: task[1]["title"])
    rows = await tasks.insert_tasks(database, new, created_by=account.id)
    assert [(row.id, {"title": row.title, "description": row.description}) for row in rows] == new


async def test_insert_tasks_with_an_invalid_task_inserts_none(database: Database, account: Account) -> None:
    with pytest.raises(InvalidValue):
        new = [(uuid7(), NewTask(title=title)) for title in ("Mow", "")]
        await tasks.insert_tasks(database, new, created_by=account.id)
    assert await tasks.count_tasks(database, owner_id=account.id) == 0


async def test_insert_tasks_without_tasks_inserts_nothing(database: Database, account: Account) -> None:
    assert await tasks.insert_tasks(database, created_by=account.id, tasks=[]) == []


# --- get --------------------------------------------------------------------------------------------------------------
async def test_get_task_of_another_owner_is_none(
    database: Database, make: NewTasks, new_account: Callable[[], Awaitable[Account]]
) -> None:
    [task], other = await make("Mow"), await new_account()
    assert await tasks.get_task(database, task_id=task.id, owner_id=other.id) is None
    assert await tasks.get_task(database, task_id=task.id, owner_id=task.owner_id) == task


async def test_get_task_returns_a_deleted_task_only_with_show_deleted(database: Database, make: NewTasks) -> None:
    [task] = await make("Mow")
    deleted = await tasks.delete_task(database, task_id=task.id, owner_id=task.owner_id)
    assert await tasks.get_task(database, task_id=task.id, owner_id=task.owner_id) is None
    shown = await tasks.get_task(database, task_id=task.id, owner_id=task.owner_id, show_deleted=True)
    assert shown == deleted


async def test_get_tasks_returns_tasks_of_the_owner_that_are_not_deleted(
    database: Database, make: NewTasks, new_account: Callable[[], Awaitable[Account]]
) -> None:
    mine, gone = await make("Mine", "Gone")
    other = await new_account()
    theirs = await tasks.insert_task(database, task_id=uuid7(), created_by=other.id, title="Theirs")
    await tasks.delete_task(database, task_id=gone.id, owner_id=gone.owner_id)
    task_ids = [mine.id, gone.id, theirs.id, uuid7()]
    assert await tasks.get_tasks(database, task_ids=task_ids, owner_id=mine.owner_id) == [mine]


# --- list -------------------------------------------------------------------------------------------------------------
async def test_list_tasks_lists_newest_first(database: Database, account: Account, make: NewTasks) -> None:
    now = datetime.now(UTC)
    for age, task in enumerate(await make("new", "older", "oldest")):
        await set_time(database, task, now - timedelta(minutes=age))
    assert titles(await tasks.list_tasks(database, owner_id=account.id, page=Page(10))) == ["new", "older", "oldest"]


async def test_list_tasks_lists_no_task_of_another_owner(
    database: Database, make: NewTasks, new_account: Callable[[], Awaitable[Account]]
) -> None:
    await make("Mow")
    other = await new_account()
    assert await tasks.list_tasks(database, owner_id=other.id, page=Page(10)) == []
    assert await tasks.count_tasks(database, owner_id=other.id, show_deleted=True) == 0


async def test_list_tasks_filters_by_completed(database: Database, account: Account, make: NewTasks) -> None:
    done, _ = await make("done", "open")
    await tasks.update_task(database, task_id=done.id, owner_id=account.id, changes={"completed": True})
    for completed, expected in [(True, {"done"}), (False, {"open"}), (None, {"done", "open"})]:
        rows = await tasks.list_tasks(database, owner_id=account.id, page=Page(10), completed=completed)
        assert set(titles(rows)) == expected
        assert await tasks.count_tasks(database, owner_id=account.id, completed=completed) == len(expected)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("100%", ["100% done"]),
        ("_", ["snake_case"]),
        ("\\", ["back\\slash"]),
        ("\\%", []),
        ("CASE", ["snake_case", "snakeXcase"]),
        ("straße", ["Straße fegen"]),
        ("'; --", ["'; -- drop"]),
        ("a", ["back\\slash", "snake_case", "snakeXcase", "Straße fegen"]),
    ],
)
async def test_list_tasks_matches_title_contains_literally(
    database: Database, account: Account, make: NewTasks, text: str, found: list[str]
) -> None:
    await make("100% done", "1000 done", "snake_case", "snakeXcase", "back\\slash", "Straße fegen", "'; -- drop")
    rows = await tasks.list_tasks(database, owner_id=account.id, page=Page(10), title_contains=text)
    assert sorted(titles(rows), key=str.lower) == found
    assert await tasks.count_tasks(database, owner_id=account.id, title_contains=text) == len(found)


async def test_list_tasks_filters_by_a_half_open_range_of_time(
    database: Database, account: Account, make: NewTasks
) -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    for day, task in enumerate(await make("1st", "2nd", "3rd")):
        await set_time(database, task, first + timedelta(days=day))
    rows = await tasks.list_tasks(
        database,
        owner_id=account.id,
        page=Page(10, descending=False),
        created_from=first,
        created_before=first + timedelta(days=2),
    )
    assert titles(rows) == ["1st", "2nd"]


async def test_list_tasks_combines_all_filters(database: Database, account: Account, make: NewTasks) -> None:
    lawn, *_ = await make("Mow the lawn", "Mow the meadow", "Rake")
    done = await tasks.update_task(database, task_id=lawn.id, owner_id=account.id, changes={"completed": True})
    rows = await tasks.list_tasks(
        database,
        owner_id=account.id,
        page=Page(10),
        completed=True,
        title_contains="mow",
        created_from=lawn.created_at,
        created_before=lawn.created_at + timedelta(microseconds=1),
        show_deleted=True,
    )
    assert rows == [done]


async def test_list_tasks_lists_deleted_tasks_only_with_show_deleted(
    database: Database, account: Account, make: NewTasks
) -> None:
    gone, _ = await make("gone", "here")
    await tasks.delete_task(database, task_id=gone.id, owner_id=account.id)
    assert titles(await tasks.list_tasks(database, owner_id=account.id, page=Page(10))) == ["here"]
    assert await tasks.count_tasks(database, owner_id=account.id) == 1
    shown = await tasks.list_tasks(database, owner_id=account.id, page=Page(10, order_by="title"), show_deleted=True)
    assert titles(shown) == ["here", "gone"]
    assert await tasks.count_tasks(database, owner_id=account.id, show_deleted=True) == 2


@pytest.mark.parametrize("limit", [3, 21], ids=["limit as parameter", "limit in the statement"])
@pytest.mark.parametrize("descending", [True, False], ids=["descending", "ascending"])
@pytest.mark.parametrize("order_by", ["created_at", "updated_at", "title"])
async def test_pages_list_every_task_once_in_order_also_with_equal_values(
    database: Database,
    account: Account,
    make: NewTasks,
    order_by: Literal["created_at", "updated_at", "title"],
    descending: bool,
    limit: int,
) -> None:
    # One statement inserts them, so all have the same time. There are five titles.
    made = await make(*(f"Title {number % 5}" for number in range(50)))
    seen: list[Task] = []
    after: Cursor | None = None
    while page := await tasks.list_tasks(database, owner_id=account.id, page=Page(limit, after, order_by, descending)):
        assert len(page) <= limit
        seen += page
        after = Cursor(getattr(page[-1], order_by), page[-1].id)
    keys = [(getattr(task, order_by), task.id) for task in seen]
    assert {task.id for task in seen} == {task.id for task in made}
    assert all((left > right) if descending else (left < right) for left, right in pairwise(keys))


async def test_new_tasks_do_not_shift_later_pages(database: Database, account: Account, make: NewTasks) -> None:
    now = datetime.now(UTC)
    for age, task in enumerate(await make("1", "2", "3", "4")):
        await set_time(database, task, now - timedelta(minutes=age + 1))
    first = await tasks.list_tasks(database, owner_id=account.id, page=Page(2))
    await make("meanwhile")
    after = Cursor(first[-1].created_at, first[-1].id)
    second = await tasks.list_tasks(database, owner_id=account.id, page=Page(2, after))
    assert titles(first + second) == ["1", "2", "3", "4"]


async def test_default_order_reads_a_page_from_the_index_without_a_sort(dsn: str) -> None:
    plan = page_plan(dsn, "created_at", datetime.now(UTC) - timedelta(minutes=50))
    assert "Index Scan Backward using ix_tasks_owner_id_created_at_id" in plan
    assert "Sort" not in plan


async def test_other_orders_read_only_the_tasks_of_the_owner(dsn: str) -> None:
    plan = page_plan(dsn, "title", "Task 50")
    assert "ix_tasks_owner_id_created_at_id" in plan
    assert "Seq Scan" not in plan


def page_plan(dsn: str, order_by: Literal["created_at", "title"], after: datetime | str) -> str:
    """The plan of a later page of one of 100 owners, with 20,000 tasks in total."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("""
            INSERT INTO accounts (id, email, display_name, password_hash)
            SELECT gen_random_uuid(), n || '@example.com', 'n', '' FROM generate_series(1, 100) n
        """)
        connection.execute("""
            INSERT INTO tasks (id, title, created_by, created_at)
            SELECT gen_random_uuid(), 'Task ' || n, accounts.id, now() - n * interval '1 minute'
            FROM generate_series(1, 200) n, accounts
        """)
        connection.execute("ANALYZE tasks")
        [(owner,)] = connection.execute("SELECT id FROM accounts LIMIT 1")
        page = tasks._LISTING._page(frozenset({"show_deleted"}), order_by, True, True, 21)
        page = page.params(owner_id=owner, after_value=after, after_id=uuid7())
        sql = page.compile(
            dialect=create_engine("postgresql+psycopg://").dialect, compile_kwargs={"literal_binds": True}
        )
        return "\n".join(line for (line,) in connection.execute(f"EXPLAIN (COSTS OFF) {sql}".encode()))


# --- update -----------------------------------------------------------------------------------------------------------
async def test_update_task_changes_the_named_columns_updated_at_and_etag(database: Database, make: NewTasks) -> None:
    [task] = await make("Mow")
    changed = await tasks.update_task(
        database, task_id=task.id, owner_id=task.owner_id, changes={"description": "All of it", "completed": True}
    )
    assert changed is not None
    assert (changed.title, changed.description, changed.completed) == ("Mow", "All of it", True)
    assert changed.created_at == task.created_at
    assert changed.updated_at > task.updated_at
    assert changed.etag != task.etag


async def test_update_task_can_remove_the_description(database: Database, account: Account) -> None:
    task = await tasks.insert_task(database, task_id=uuid7(), created_by=account.id, title="Mow", description="x")
    changed = await tasks.update_task(
        database, task_id=task.id, owner_id=account.id, changes={"description": None}, etag=task.etag
    )
    assert changed is not None
    assert changed.description is None


async def test_update_task_with_a_stale_etag_is_none_and_changes_nothing(database: Database, make: NewTasks) -> None:
    [task] = await make("Mow")
    changed = await tasks.update_task(
        database, task_id=task.id, owner_id=task.owner_id, changes={"title": "Rake"}, etag=task.etag
    )
    again = await tasks.update_task(
        database, task_id=task.id, owner_id=task.owner_id, changes={"title": "Sow"}, etag=task.etag
    )
    assert again is None
    assert await tasks.get_task(database, task_id=task.id, owner_id=task.owner_id) == changed


async def test_update_and_delete_of_a_task_of_another_owner_are_none(
    database: Database, make: NewTasks, new_account: Callable[[], Awaitable[Account]]
) -> None:
    [task], other = await make("Mow"), await new_account()
    assert await tasks.update_task(database, task_id=task.id, owner_id=other.id, changes={"title": "x"}) is None
    assert await tasks.delete_task(database, task_id=task.id, owner_id=other.id, etag=task.etag) is None
    assert await tasks.undelete_task(database, task_id=task.id, owner_id=other.id) is None
    assert await tasks.get_task(database, task_id=task.id, owner_id=task.owner_id) == task


async def test_update_task_beyond_the_limits_is_invalid(database: Database, make: NewTasks) -> None:
    [task] = await make("Mow")
    with pytest.raises(InvalidValue):
        await tasks.update_task(database, task_id=task.id, owner_id=task.owner_id, changes={"title": ""})


async def test_update_task_of_a_deleted_task_is_none(database: Database, make: NewTasks) -> None:
    [task] = await make("Mow")
    await tasks.delete_task(database, task_id=task.id, owner_id=task.owner_id)
    changes = tasks.TaskChanges(title="Rake")
    assert await tasks.update_task(database, task_id=task.id, owner_id=task.owner_id, changes=changes) is None


# --- delete -----------------------------------------------------------------------------------------------------------
async def test_delete_task_sets_deleted_at_and_undelete_task_restores_the_task(
    database: Database, make: NewTasks
) -> None:
    [task] = await make("Mow")
    deleted = await tasks.delete_task(database, task_id=task.id, owner_id=task.owner_id, etag=task.etag)
    assert deleted is not None
    assert deleted.deleted_at == deleted.updated_at
    assert deleted.etag != task.etag
    restored = await tasks.undelete_task(database, task_id=task.id, owner_id=task.owner_id)
    assert restored is not None
    assert restored.deleted_at is None
    assert restored.etag != deleted.etag
    assert await tasks.get_task(database, task_id=task.id, owner_id=task.owner_id) == restored


async def test_delete_task_twice_is_none_the_second_time(database: Database, make: NewTasks) -> None:
    [task] = await make("Mow")
    assert await tasks.delete_task(database, task_id=task.id, owner_id=task.owner_id)
    assert await tasks.delete_task(database, task_id=task.id, owner_id=task.owner_id) is None


async def test_delete_task_with_a_stale_etag_is_none_and_deletes_nothing(database: Database, make: NewTasks) -> None:
    [task] = await make("Mow")
    assert await tasks.delete_task(database, task_id=task.id, owner_id=task.owner_id, etag=uuid7()) is None
    assert await tasks.get_task(database, task_id=task.id, owner_id=task.owner_id) == task


async def test_undelete_task_of_a_task_that_is_not_deleted_is_none(database: Database, make: NewTasks) -> None:
    [task] = await make("Mow")
    assert await tasks.undelete_task(database, task_id=task.id, owner_id=task.owner_id) is None
