"""Lists of all accounts, for administrators of the installation."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from accord_db.engine.database import Database
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Cursor, Page
from accord_db.queries import accounts, managed_accounts
from accord_db.queries.managed_accounts import AccountFilters, Search, Searched
from accord_db.schema import Account
from tests.db.plans import filled_database, generic_plan

LATER = datetime(2100, 1, 1, tzinfo=UTC)


async def insert(database: Database, email: str, name: str = "Ada") -> UUID:
    account = await accounts.insert_account(
        database, account_id=uuid7(), email=email, display_name=name, password_hash=None
    )
    assert account is not None
    return account.id


async def listed(database: Database, search: Search | None = None, **filters: object) -> list[str]:
    rows = await managed_accounts.list_accounts(
        database,
        page=Page(100),
        search=search,
        filters=AccountFilters(**filters),  # type: ignore[arg-type]  # tests pass the right types
    )
    return [row.email.partition("@")[0] for row in rows]


async def test_accounts_are_listed_newest_first(database: Database) -> None:
    for name in ("first", "second", "third"):
        await insert(database, f"{name}@example.com")
    assert await listed(database) == ["third", "second", "first"]


async def test_search_by_address_finds_prefixes_in_the_order_of_addresses(database: Database) -> None:
    for name in ("b.zoe", "B.ada", "ab", "b", "c"):
        await insert(database, f"{name}@example.com")
    assert await listed(database, Search("email", "B")) == ["b.ada", "b.zoe", "b"]
    assert await listed(database, Search("email", "b@")) == ["b"]


async def test_search_by_name_finds_prefixes_ignoring_case(database: Database) -> None:
    for number, name in enumerate(("Émile Zola", "émilie", "Emil", "Zoë Émile")):
        await insert(database, f"{number}@example.com", name)
    assert await listed(database, Search("display_name", "éMIL")) == ["0", "1"]


@pytest.mark.parametrize("prefix", ["%", "_", "\\", "a%"])
async def test_search_has_no_wildcards(database: Database, prefix: str) -> None:
    await insert(database, "ada@example.com")
    assert await listed(database, Search("email", prefix)) == []


async def test_filters_select_by_role_ban_and_deletion(database: Database) -> None:
    ids = {name: await insert(database, f"{name}@example.com") for name in ("root", "banned", "soon", "was", "gone")}
    await accounts.update_role(database, account_id=ids["root"], role="administrator")
    await accounts.ban_account(database, account_id=ids["banned"])
    await accounts.ban_account(database, account_id=ids["soon"], until=LATER)
    await accounts.ban_account(database, account_id=ids["was"], until=datetime.now(UTC) - timedelta(seconds=1))
    await accounts.delete_account(database, account_id=ids["gone"])
    assert await listed(database) == ["was", "soon", "banned", "root"]
    assert await listed(database, role="administrator") == ["root"]
    assert await listed(database, role="person") == ["was", "soon", "banned"]
    assert await listed(database, banned=True) == ["soon", "banned"]
    assert await listed(database, banned=False) == ["was", "root"]
    assert await listed(database, show_deleted=True) == ["gone", "was", "soon", "banned", "root"]
    assert await listed(database, role="administrator", banned=True) == []
    assert await listed(database, Search("email", "b"), banned=True) == ["banned"]


@pytest.mark.parametrize("search", [None, Search("email", "a"), Search("display_name", "A")], ids=str)
async def test_pages_are_contiguous_and_do_not_overlap(database: Database, search: Search | None) -> None:
    for number in range(5):
        await insert(database, f"a{number % 2}{number}@example.com", "Ada" if number % 2 else "ADA")
    whole = await managed_accounts.list_accounts(database, page=Page(100), search=search)
    paged: list[Account] = []
    while len(paged) < len(whole):
        last = paged[-1] if paged else None
        after = Cursor(getattr(last, search.by) if search else "", last.id) if last else None
        page = await managed_accounts.list_accounts(database, page=Page(2, after), search=search)
        assert page
        paged += page
    assert paged == whole


_MANY = """
INSERT INTO accounts (id, email, display_name, role, banned_at)
SELECT gen_random_uuid(), n || '@example.com', 'Name ' || n,
       CASE WHEN n % 1000 = 0 THEN 'administrator' ELSE 'person' END,
       CASE WHEN n % 100 = 0 THEN now() END
FROM generate_series(1, 20000) n
"""


@pytest.fixture(scope="module")
def many(postgres: str, template: str) -> Iterator[str]:
    with filled_database(postgres, template, _MANY) as dsn:
        yield dsn


@pytest.mark.server
@pytest.mark.parametrize(
    ("by", "filters", "index"),
    [
        (None, AccountFilters(), "pk_accounts"),
        ("email", AccountFilters(), "ix_accounts_folded_email_id"),
        ("display_name", AccountFilters(banned=False), "ix_accounts_display_name_prefix"),
        (None, AccountFilters(role="administrator"), "ix_accounts_administrators"),
        (None, AccountFilters(banned=True), "ix_accounts_banned"),
    ],
)
@pytest.mark.parametrize("later_page", [False, True])
def test_listing_accounts_uses_an_index(
    many: str, by: Searched | None, filters: AccountFilters, index: str, later_page: bool
) -> None:
    statement = managed_accounts._list(by, filters, later_page)
    with psycopg.connect(many) as connection:
        plan = generic_plan(connection, statement, "accounts")
    assert index in plan, plan
    assert "Seq Scan" not in plan
