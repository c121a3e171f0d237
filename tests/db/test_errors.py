"""Errors are mapped by SQLSTATE, and do not contain values of the caller."""

from collections.abc import Callable

import psycopg
import pytest
from sqlalchemy import Text, bindparam, func, insert, select

from accord_db.engine.database import Database
from accord_db.engine.errors import (
    AlreadyExists,
    Conflict,
    DatabaseError,
    ForeignKeyMissing,
    InvalidValue,
    StatementCancelled,
    Unavailable,
    translate,
)
from accord_db.engine.ids import uuid7
from accord_db.schema import Account, SecondFactor

Fail = Callable[[str], None]
FAIL = select(func.fail(bindparam("sqlstate", type_=Text)))


@pytest.fixture
def failing(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("""
            CREATE FUNCTION fail(code text) RETURNS void LANGUAGE plpgsql
            AS $$ BEGIN RAISE EXCEPTION 'made to fail' USING ERRCODE = code, DETAIL = 'secret'; END $$
        """)


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("23505", AlreadyExists),
        ("23503", ForeignKeyMissing),
        ("23502", InvalidValue),
        ("23514", InvalidValue),
        ("22001", InvalidValue),
        ("22P02", InvalidValue),
        ("22021", InvalidValue),
        ("40001", Conflict),
        ("40P01", Conflict),
        ("57014", StatementCancelled),
        ("08006", Unavailable),
        ("53300", Unavailable),
        ("57P01", Unavailable),
        ("57P03", Unavailable),
        ("25P03", Unavailable),
        ("25006", Unavailable),
        ("53100", Unavailable),
        ("55P03", Unavailable),
        ("58030", Unavailable),
        ("55000", DatabaseError),
        ("58P01", DatabaseError),
        ("XX001", DatabaseError),
        ("42P01", DatabaseError),
        ("XX000", DatabaseError),
    ],
)
@pytest.mark.usefixtures("failing")
async def test_sqlstate_determines_the_error_class(
    database: Database, sqlstate: str, kind: type[DatabaseError]
) -> None:
    with pytest.raises(DatabaseError) as caught:
        await database.fetch_one(FAIL, sqlstate=sqlstate)
    assert type(caught.value) is kind
    assert caught.value.sqlstate == sqlstate
    assert sqlstate in str(caught.value)


# Classes: 08 connection, 28 log-in of a pooler, 53 resources, 57 shutdown and startup. Others: read-only server (25006), sessions
# ended by the server (25P03, 25P04), database of a pooler (3D000), lock_timeout (55P03), operating system and disk (58000, 58030).
UNAVAILABLE = {
    *("08000", "08001", "08003", "08004", "08006", "08007", "08P01"),
    *("25006", "25P03", "25P04"),
    *("28000", "28P01", "3D000"),
    *("53000", "53100", "53200", "53300", "53400"),
    *("55P03", "57P01", "57P02", "57P03", "57P04", "57P05", "58000", "58030"),
}


def test_exactly_the_temporary_states_are_unavailable() -> None:
    classes = [each for each in vars(psycopg.errors).values() if isinstance(each, type)]
    known = {each.sqlstate: each for each in classes if issubclass(each, psycopg.Error) and each.sqlstate}
    assert len(known) > 200
    unavailable = {sqlstate for sqlstate, error in known.items() if isinstance(translate(error()), Unavailable)}
    assert unavailable == UNAVAILABLE


NEW_ACCOUNT = insert(Account).values(
    id=bindparam("id"), email=bindparam("email"), display_name="Ada", password_hash="none"
)


async def test_unique_violation_names_the_constraint_and_not_the_key(database: Database) -> None:
    await database.execute(NEW_ACCOUNT, id=uuid7(), email="lovelace@example.com")
    with pytest.raises(AlreadyExists) as caught:
        await database.execute(NEW_ACCOUNT, id=uuid7(), email="lovelace@example.com")
    assert caught.value.table == "accounts"
    assert caught.value.constraint is not None
    assert "email" in caught.value.constraint
    assert "lovelace" not in str(caught.value)


async def test_error_for_too_long_text_does_not_quote_it(database: Database) -> None:
    with pytest.raises(InvalidValue) as caught:
        await database.execute(NEW_ACCOUNT, id=uuid7(), email="secret" * 100)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_foreign_key_violation_names_the_constraint(database: Database) -> None:
    new_factor = insert(SecondFactor).values(id=bindparam("id"), account_id=bindparam("account_id"), secret=b"x")
    with pytest.raises(ForeignKeyMissing) as caught:
        await database.execute(new_factor, id=uuid7(), account_id=uuid7())
    assert caught.value.constraint == "fk_second_factors_account_id_accounts"


async def test_missing_value_names_the_column(database: Database) -> None:
    with pytest.raises(InvalidValue) as caught:
        await database.execute(NEW_ACCOUNT, id=uuid7(), email=None)
    assert caught.value.column == "email"
