"""Names, roles and the retry policy of docs/operating.md match the code."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from accord.errors.v1.errors_pb2 import Reason
from accord_db import migrate
from accord_db.engine.database import Database, DatabaseSettings
from accord_db.engine.ids import uuid7
from accord_db.engine.keyset import Page
from accord_db.engine.libpq_environment import ignored_variables
from accord_db.engine.metrics import metrics
from accord_db.engine.row_level_security import GATEWAY_ROLE
from accord_db.engine.scope import acting_for
from accord_db.migrate.gateway_role import role_problem
from accord_db.queries import tasks
from accord_db.queries.cleanup import expired_rows
from accord_gateway.mail.metrics import mail_metrics
from accord_gateway.process.cleanup import CleanUp, Outcome, clean_up_metrics
from accord_gateway.process.configuration import unchangeable
from accord_gateway.server.servers import connection_limits
from accord_gateway.settings import Settings
from accord_postgres import EmbeddedPostgres
from accord_rpc.pipeline.repeated_limits import MOST_ITEMS
from accord_rpc.pipeline.telemetry import call_metrics
from accord_rpc.protocols.compression import COMPRESS_FROM
from accord_rpc.protocols.framing import MOST_INCOMPLETE_BYTES, MOST_MESSAGE_BYTES
from accord_rpc.protocols.json_codec.document import MAX_DEPTH, MAX_VALUES, MAX_VIOLATIONS
from accord_rpc.protocols.refused import refused_metrics
from accord_rpc.protocols.rest.calls import HEARTBEAT_SECONDS
from accord_rpc.server.limits import ConnectionLimits
from tests.factories import signed_in_person
from tests.gateway.retrying_caller import SERVICE_CONFIG

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/operating.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
SQL = [block for language, block in BLOCKS if language == "sql"]

CONSTANTS = {
    "MOST_MESSAGE_BYTES": MOST_MESSAGE_BYTES,
    "MOST_INCOMPLETE_BYTES": MOST_INCOMPLETE_BYTES,
    "MOST_ITEMS": MOST_ITEMS,
    "MAX_DEPTH": MAX_DEPTH,
    "MAX_VALUES": MAX_VALUES,
    "MAX_VIOLATIONS": MAX_VIOLATIONS,
    "COMPRESS_FROM": COMPRESS_FROM,
    "HEARTBEAT_SECONDS": HEARTBEAT_SECONDS,
}
LIBPQ = {option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar}


def test_libpq_variables_are_used_and_ignored_as_the_page_states() -> None:
    used, ignored = re.findall(
        r"libpq's environment variables(.*?)All others are ignored,(.*?)among them", PAGE, re.DOTALL
    )[0]
    assert set(re.findall(r"`(PG\w+)`", used)) <= LIBPQ - set(ignored_variables(embedded=False))
    assert set(re.findall(r"`(PG\w+)`", ignored)) <= set(ignored_variables(embedded=False))
    assert set(ignored_variables(embedded=True)) >= LIBPQ


def test_names_in_capitals_are_settings_codes_or_reasons() -> None:
    settings = {name.upper() for name in Settings.model_fields}
    codes = {code.name for code in grpc.StatusCode} | {
        value.name.removeprefix("REASON_") for value in Reason.DESCRIPTOR.values
    }
    named = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", PAGE))
    http2 = {"ENHANCE_YOUR_CALM", "REFUSED_STREAM"}
    assert named - settings - codes - LIBPQ - CONSTANTS.keys() - http2 == {"NOT_SERVING"}
    assert len(named & settings) > 10


def test_example_lists_every_setting() -> None:
    listed = set(re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    assert listed == {name.upper() for name in Settings.model_fields}


def test_page_lists_the_settings_that_need_a_restart() -> None:
    listed = re.findall(r"\*\*These settings need a restart\*\*: (.*?)\.", PAGE, flags=re.DOTALL)[0]
    assert set(re.findall(r"`(\w+)`", listed)) == unchangeable(Settings()).keys()


def test_page_lists_every_metric() -> None:
    declared = [
        metric
        for group in (call_metrics(), metrics(), clean_up_metrics(), mail_metrics(), refused_metrics())
        for metric in vars(group).values()
    ]
    served = {
        family.name: family.type for metric in declared if hasattr(metric, "collect") for family in metric.collect()
    }
    named = {name for name, _, _ in table("Metrics")}
    assert named == {f"{name}_total" if kind == "counter" else name for name, kind in served.items()}


def table(heading: str) -> list[tuple[str, str, str]]:
    """The rows of a section's table: the first word in code, what else is in its cell, and the next cell."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)[^`]*`([^|]*) \| ([^|]*) \|", section, flags=re.MULTILINE)


def test_page_lists_every_limit_of_connections() -> None:
    limits = ConnectionLimits()
    listed = table("Limits of connections")
    assert {name: amount(value) for name, _, value in listed} == asdict(limits)
    settings = {name: re.findall(r"`(\w+)`", more) for name, more, _ in listed if more}
    assert settings == {"connections": ["MAX_CONNECTIONS"], "connections_per_address": ["MAX_CONNECTIONS_PER_ADDRESS"]}
    assert connection_limits(Settings()) == limits


def test_limits_of_calls_equal_those_of_the_code() -> None:
    listed = {name: value for name, _, value in table("Limits of calls")}
    assert {name: amount(listed[name]) for name in CONSTANTS} == CONSTANTS
    assert amount(listed["MAX_CONCURRENT_CALLS"]) == Settings().max_concurrent_calls


def amount(text: str) -> float:
    """`16 KiB` in bytes, `2 min` in seconds, `1,000` as a number."""
    number, _, unit = text.replace(",", "").partition(" ")
    return int(number) * {"": 1, "bytes": 1, "KiB": 1024, "MiB": 1024**2, "s": 1, "min": 60}[unit]


def test_retry_policy_equals_the_tested_one() -> None:
    [shown] = [block for _, block in BLOCKS if "retryPolicy" in block]
    assert json.loads(shown) == SERVICE_CONFIG


@pytest.fixture
def server() -> Iterator[str]:
    """The DSN of a server on which the test may create roles."""
    with TemporaryDirectory(prefix="accord-") as folder, EmbeddedPostgres(Path(folder), sync=False) as server:
        superuser = make_conninfo(server.dsn, dbname="postgres")
        run(superuser, "DROP DATABASE accord")
        yield superuser


def run(dsn: str, statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in filter(str.strip, statements.split(";")):
            connection.execute(statement.encode())


@pytest.mark.parametrize("role", [GATEWAY_ROLE, None])
async def test_role_of_the_gateway_can_read_and_write_rows_and_cannot_create_tables(
    server: str, role: str | None
) -> None:
    roles, rights = SQL
    # Embedded PostgreSQL's superuser already has the name of the page's login role.
    run(server, roles.replace("ROLE accord LOGIN", "ROLE accord_login LOGIN"))
    run(make_conninfo(server, dbname="accord"), rights.replace("TO accord;", "TO accord_login;"))
    owner, gateway = (make_conninfo(server, dbname="accord", user=role) for role in ("accord_owner", "accord_login"))
    migrate.apply(owner)
    assert migrate.is_current(gateway)
    # Behind a pooler, the gateway does not switch to GATEWAY_ROLE.
    assert role_problem(gateway, GATEWAY_ROLE) is role_problem(gateway, None) is None
    assert role_problem(owner, None) is not None
    database = await Database.connect(DatabaseSettings(dsn=gateway, pool_size=1, role=role))
    try:
        person = await signed_in_person(database)
        with acting_for(person.account_id):
            task = await tasks.insert_task(database, task_id=uuid7(), created_by=person.account_id, title="Mow")
            assert await tasks.list_tasks(database, owner_id=person.account_id, page=Page(10)) == [task]
        due = expired_rows(deleted_accounts_kept=timedelta(days=30), deleted_organizations_kept=timedelta(days=30))
        assert await CleanUp(database, due, clean_up_metrics()).run() == Outcome.DONE
    finally:
        await database.close()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run(gateway, "CREATE TABLE mine ()")


def test_migration_creates_the_gateways_role_or_reports_the_statement_that_does(server: str) -> None:
    run(server, "CREATE ROLE plain LOGIN; CREATE ROLE creator LOGIN CREATEROLE")
    run(server, "CREATE DATABASE first OWNER plain; CREATE DATABASE second OWNER creator")
    plain, creator = (
        make_conninfo(server, dbname=name, user=user) for name, user in (("first", "plain"), ("second", "creator"))
    )
    with pytest.raises(migrate.MigrationError) as caught:
        migrate.apply(plain)
    assert "CREATE ROLE accord_gateway NOLOGIN; GRANT accord_gateway TO" in str(caught.value)
    migrate.apply(creator)
    assert role_problem(creator, GATEWAY_ROLE) is None
    migrate.apply(plain)  # the role exists now
    problem = role_problem(plain, GATEWAY_ROLE)
    assert problem is not None
    assert problem.remedy == 'Have a superuser run: GRANT accord_gateway TO "plain";'
    run(server, problem.remedy.partition(": ")[2])
    assert role_problem(plain, GATEWAY_ROLE) is None
