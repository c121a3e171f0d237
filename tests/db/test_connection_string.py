"""Connection strings: malformed ones are rejected without quoting them, and valid ones are parsed like libpq parses them."""

import traceback
from urllib.parse import quote, unquote

import psycopg
import pytest
from hypothesis import example, given
from hypothesis.strategies import text
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import literal, select

from accord_db.engine.connection_string import has_several_hosts, parse, parse_for_writing, url_problem
from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.errors import InvalidConnectionString, translate
from accord_db.migrate.__main__ import main as migrate
from accord_db.migrate.state import connect
from tests.db.programs import MALFORMED_URLS, PASSWORD

ANYTHING = text(max_size=12)


@pytest.mark.parametrize("url", MALFORMED_URLS)
def test_error_for_a_malformed_url_does_not_quote_the_password(url: str) -> None:
    problem = url_problem(url)
    assert problem is not None
    assert PASSWORD not in problem
    assert "postgresql://user:password@host:5432/database" in problem


@pytest.mark.parametrize("url", MALFORMED_URLS)
async def test_no_connection_function_quotes_a_malformed_url(url: str) -> None:
    with pytest.raises(InvalidConnectionString) as error:
        parse(url)
    assert PASSWORD not in "".join(traceback.format_exception(error.value))
    with pytest.raises(InvalidConnectionString):
        connect(url)
    with pytest.raises(InvalidConnectionString):
        await Database.connect(DatabaseSettings(dsn=url))


def test_migrate_command_does_not_print_the_password_of_a_malformed_url(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for url in MALFORMED_URLS:
        monkeypatch.setattr("sys.argv", ["migrate", "--database-url", url, "apply"])
        assert migrate() == 1
        printed = "".join(capfd.readouterr())
        assert "error: the connection string must look like" in printed
        assert PASSWORD not in printed


@given(password=ANYTHING)
@example(password="a@b")
@example(password="a/b")
@example(password="a?b")
@example(password="a?b=c@d")
@example(password="%41")
@example(password="%zz")
@example(password="a b")
def test_password_with_special_characters_is_read_as_the_password_or_the_url_is_rejected(password: str) -> None:
    url = f"postgresql://ada:{password}@db.example.com:5432/accord"
    if url_problem(url) is None:
        read = parse(url)
        assert (read["user"], read["host"], read["port"], read["dbname"]) == ("ada", "db.example.com", "5432", "accord")
        assert read.get("password", "") == unquote(password)


@given(password=ANYTHING.filter(lambda password: "\0" not in password))
def test_percent_encoded_password_is_accepted(password: str) -> None:
    url = f"postgresql://ada:{quote(password, safe='')}@db.example.com/accord"
    assert url_problem(url) is None
    assert parse(url).get("password", "") == password


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db.example.com/accord",
        "postgres://ada@db.example.com:5432/accord?sslmode=verify-full",
        "postgresql://one:5432,two:5433/accord",
        "postgresql://one,two:5433/accord",
        "postgresql://[2001:db8::1]:5432/accord",
        "postgresql:///accord?host=/run/postgresql",
        "postgresql:///accord?host=@abstract",
        "postgresql://ada:p%40ss@db.example.com/accord?application_name=a@b",
        "postgresql://ada:a:b#c@db.example.com/accord",
    ],
)
def test_valid_url_is_accepted(url: str) -> None:
    assert url_problem(url) is None
    assert parse(url) == conninfo_to_dict(url)


def test_errors_of_the_driver_do_not_quote_its_input() -> None:
    assert "hunter2" not in str(translate(psycopg.ProgrammingError('missing "=" after "hunter2"')))
    assert "hunter2" not in str(translate(psycopg.InterfaceError("hunter2")))


def test_connections_require_a_writable_host_unless_the_url_sets_target_session_attrs() -> None:
    assert parse_for_writing("postgresql://one,two/accord")["target_session_attrs"] == "read-write"
    assert parse_for_writing("postgresql://one/accord?target_session_attrs=any")["target_session_attrs"] == "any"
    assert has_several_hosts(parse("postgresql://one,two/accord"))
    assert not has_several_hosts(parse("postgresql://one/accord"))


async def test_text_is_utf8_whatever_the_url_sets(dsn: str) -> None:
    database = await Database.connect(DatabaseSettings(dsn=make_conninfo(dsn, client_encoding="LATIN1"), pool_size=1))
    assert await database.fetch_one(select(literal("naïve 日本"))) == "naïve 日本"
    await database.close()
