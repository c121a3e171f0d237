"""Folding of addresses and names, independent of the database's collation."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis.strategies import characters, text
from psycopg.errors import CheckViolation

import accord_db
from accord_db import migrate
from accord_db.engine.database import Database
from accord_db.engine.folding import EmailAddress, fold_email, fold_name
from accord_db.engine.ids import uuid7
from accord_db.migrate import MigrationError
from accord_db.migrate.alembic_commands import downgrade
from accord_db.queries import accounts
from accord_db.schema import metadata
from tests.conftest import count
from tests.locales import turkish_database, turkish_server

BEFORE = "2026_11_21_0200"
FOLDED = "2026_11_30_0000"  # the next one builds the indexes


@pytest.mark.parametrize(
    ("address", "folded"),
    [
        ("INFO@EXAMPLE-I.COM", "info@example-i.com"),
        ("a.B+c@Example.com", "a.b+c@example.com"),
        ("\u212a@example.com", "\u212a@example.com"),  # the Kelvin sign is not folded to k
        ("ſ@example.com", "ſ@example.com"),
        ("İ@example.com", "İ@example.com"),
        ("ı@example.com", "ı@example.com"),
    ],
)
def test_fold_email_changes_only_a_to_z(address: str, folded: str) -> None:
    assert fold_email(address) == folded


@given(text(characters(codec="utf-8")))
def test_fold_email_is_idempotent_and_keeps_other_characters(address: str) -> None:
    folded = fold_email(address)
    assert fold_email(folded) == folded
    assert len(folded) == len(address)
    assert [each for each in folded if not each.isascii()] == [each for each in address if not each.isascii()]


@given(text(characters(codec="utf-8")))
def test_fold_name_is_idempotent(name: str) -> None:
    assert fold_name(fold_name(name)) == fold_name(name)


@pytest.mark.parametrize(
    ("one", "other"), [("Straße", "STRASSE"), ("É", "e\u0301"), ("ΣΑΣ", "σας"), ("TITLE", "title")]
)
def test_names_that_differ_in_case_or_composition_fold_to_the_same(one: str, other: str) -> None:
    assert fold_name(one) == fold_name(other)


def test_dotless_i_folds_to_another_letter() -> None:
    assert fold_name("title") != fold_name("tıtle")


# --- schema and statements --------------------------------------------------------------------------------------------
# Displayed only.
NOT_COMPARED = {"linked_providers.email"}
# For gateways of the release before.
KEPT = {"uq_accounts_email_living"}
# Searches use the database's locale, because no identity depends on them. The others name a collation.
SEARCHES = {
    (
        "accounts.py",
        'Index("ix_accounts_display_name_prefix", func.lower(Account.display_name).collate("C"), Account.id)',
    ),
    ("managed_accounts.py", '"display_name": func.lower(Account.display_name).collate("C"),'),
    ("managed_accounts.py", 'return func.lower(bindparam(parameter, type_=String)).collate("C")'),
    ("keyset.py", "return condition.column.ilike(bindparam(name)) if isinstance(condition, Contains) else condition"),
    ("accounts.py", "func.lower(Account.email),"),  # KEPT
    (
        "roles.py",
        'Index("uq_roles_organization_id_folded_name", Role.organization_id, func.lower(Role.name.collate("C")), unique=True)',
    ),
}
PACKAGE = Path(accord_db.__file__).parent


def test_every_column_with_an_address_folds_it() -> None:
    columns = [column for table in metadata.sorted_tables for column in table.columns if "email" in column.name]
    addresses = {str(column) for column in columns if not column.name.endswith("_at")}
    folded = {str(column) for column in columns if isinstance(column.type, EmailAddress)}
    assert folded == addresses - NOT_COMPARED
    assert len(folded) >= 3


def test_no_index_or_constraint_folds_with_the_collation_of_the_database(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        definitions: dict[str, str] = dict(
            connection.execute(
                "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' UNION ALL "
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
            ).fetchall()
        )
    folding = {name for name, definition in definitions.items() if re.search(r"\b(lower|upper)\(", definition)}
    in_c = {name for name in folding if re.search(r'lower\(+\w+\)::text COLLATE "C"', definitions[name])}
    assert in_c >= {"uq_roles_organization_id_folded_name", "ck_accounts_email_is_folded"}
    assert folding - in_c == KEPT | {"ix_accounts_display_name_prefix"}


def test_statements_fold_with_the_collation_of_the_database_only_for_searches() -> None:
    found = {
        (path.name, line.strip())
        for path in PACKAGE.rglob("*.py")
        if "migrations" not in path.parts
        for line in path.read_text().splitlines()
        if re.search(r"func\.(lower|upper|initcap)\(|ilike\(|citext|regexp_match\(", line)
    }
    assert found == SEARCHES


# --- migration --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def turkish(postgres: str) -> Iterator[str]:
    with turkish_server(postgres) as server:
        yield server


@pytest.fixture
def before(turkish: str) -> Iterator[str]:
    """A database with a Turkish collation and the migrations of the release before."""
    with turkish_database(turkish) as dsn:
        migrate.apply(dsn)
        revert(dsn, to=BEFORE)
        yield dsn


def revert(dsn: str, *, to: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET accord.tenant = 'all'")
        downgrade(connection, to)


# Statements of gateways of the release before.
SIGN_UP = """
    INSERT INTO accounts (id, email, display_name, password_hash) VALUES (%s, lower(%s), 'Ada', 'hash')
    ON CONFLICT (lower(email)) WHERE deleted_at IS NULL DO NOTHING
"""
LOOK_UP = "SELECT id FROM accounts WHERE lower(email) = lower(%s) AND deleted_at IS NULL"


def sign_up_before(dsn: str, email: str, **columns: str) -> UUID:
    account_id = uuid7()
    with psycopg.connect(dsn) as connection:
        assert connection.execute(SIGN_UP, [account_id, email]).rowcount == 1
        for column, value in columns.items():
            connection.execute(f"UPDATE accounts SET {column} = %s WHERE id = %s".encode(), [value, account_id])
    return account_id


def row(dsn: str, columns: str, account_id: UUID) -> tuple[object, ...]:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(f"SELECT {columns} FROM accounts WHERE id = %s".encode(), [account_id]).fetchone()
    assert found is not None
    return found


async def test_migration_repairs_addresses_and_resets_their_verification(before: str) -> None:
    wrong = sign_up_before(before, "INFO@EXAMPLE.COM", email_verified_at="now")
    right = sign_up_before(before, "ada@example.com", email_verified_at="now")
    assert row(before, "email", wrong) == ("ınfo@example.com",)
    with psycopg.connect(before) as connection:
        for email in ("ınfo@example.com", "ada@example.com"):
            connection.execute(
                "INSERT INTO account_tokens (id, account_id, purpose, token_hash, email, expires_at) "
                "SELECT %s, id, 'verify_email', sha256(%s), email, now() + interval '1 day' FROM accounts WHERE email = %s",
                [uuid7(), email.encode(), email],
            )
    assert migrate.apply(before)
    assert row(before, "email, email_verified_at IS NULL", wrong) == ("info@example.com", True)
    assert row(before, "email, email_verified_at IS NULL", right) == ("ada@example.com", False)
    assert count(before, "account_tokens") == 1
    assert count(before, "account_tokens WHERE email = 'ada@example.com'") == 1


async def test_migration_cancels_invitations_that_were_mailed_to_another_address(before: str) -> None:
    inviter = sign_up_before(before, "ada@example.com")
    with psycopg.connect(before) as connection:
        connection.execute("SET accord.tenant = 'all'")
        connection.execute("INSERT INTO organizations (id, name, slug) VALUES (%s, 'x', 'x')", [inviter])
        for email in ("INGRID@EXAMPLE.COM", "BOB@EXAMPLE.COM"):
            connection.execute(
                "INSERT INTO invitations (id, organization_id, email, role_ids, token_hash, created_by, expires_at) "
                "VALUES (%s, %s, lower(%s), '{}', sha256(%s), %s, now() + interval '1 day')",
                [uuid7(), inviter, email, email.encode(), inviter],
            )
    migrate.apply(before)
    with psycopg.connect(before) as connection:
        connection.execute("SET accord.tenant = 'all'")
        found = connection.execute("SELECT email, outcome FROM invitations ORDER BY id").fetchall()
    assert found == [("ingrid@example.com", "cancelled"), ("bob@example.com", None)]


def test_migration_lists_accounts_with_the_same_address_and_a_remedy(before: str) -> None:
    first, second = sign_up_before(before, "INFO@EXAMPLE.COM"), sign_up_before(before, "info@example.com")
    with pytest.raises(MigrationError) as refused:
        migrate.apply(before)
    assert f"{first}, {second}" in str(refused.value)
    assert "Keep one of each group: change the address of the others, or set their deleted_at" in str(refused.value)
    assert "example.com" not in str(refused.value)
    assert migrate.current_and_head(before)[0] == BEFORE
    assert row(before, "email", first) == ("ınfo@example.com",)
    with psycopg.connect(before) as connection:
        connection.execute("UPDATE accounts SET deleted_at = now() WHERE id = %s", [first])
    assert migrate.apply(before)


def test_migration_lists_roles_with_the_same_name_and_a_remedy(before: str) -> None:
    organization = uuid7()
    with psycopg.connect(before) as connection:
        connection.execute("SET accord.tenant = 'all'")
        connection.execute("INSERT INTO organizations (id, name, slug) VALUES (%s, 'x', 'x')", [organization])
        for name in ("TITLE", "title"):
            connection.execute(
                "INSERT INTO roles (id, organization_id, name, permissions) VALUES (%s, %s, %s, '{}')",
                [uuid7(), organization, name],
            )
    with pytest.raises(MigrationError, match="Rename all but one of each group"):
        migrate.apply(before)


async def test_gateway_of_the_release_before_works_with_the_migrated_database(dsn: str, database: Database) -> None:
    account_id = sign_up_before(dsn, "Ada@Example.com")
    found = await accounts.get_account_by_email(database, email="ADA@EXAMPLE.COM")
    assert found is not None
    assert found.id == account_id
    with psycopg.connect(dsn) as connection:
        assert connection.execute(SIGN_UP, [uuid7(), "ADA@example.com"]).rowcount == 0
        assert connection.execute(LOOK_UP, ["aDa@example.com"]).fetchall() == [(account_id,)]


def test_unfolded_address_cannot_be_stored(dsn: str) -> None:
    statement = "INSERT INTO accounts (id, email, display_name) VALUES (%s, 'Ada@example.com', 'Ada')"
    with psycopg.connect(dsn) as connection, pytest.raises(CheckViolation):
        connection.execute(statement, [uuid7()])


def test_indexes_of_folded_addresses_and_names_are_built_without_blocking_writes(before: str) -> None:
    """A transaction that writes is open from before the indexes are created until after they wait for it."""
    migrate.apply(before)
    revert(before, to=FOLDED)
    with (
        ThreadPoolExecutor() as threads,
        psycopg.connect(before, autocommit=True) as looking,
        psycopg.connect(before) as writing,
    ):
        writing.execute(SIGN_UP, [uuid7(), "ada@example.com"])
        migration = threads.submit(migrate.apply, before)
        while looking.execute(BUILDING).rowcount == 0:
            assert not migration.done(), migration.result()
            time.sleep(0.002)
        sign_up_before(before, "bob@example.com")
        writing.commit()
        assert migration.result(timeout=60)
    assert count(before, "accounts") == 2


BUILDING = """
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE '%% CONCURRENTLY %%' AND wait_event_type = 'Lock'
"""
