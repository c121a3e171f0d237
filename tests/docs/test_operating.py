"""What docs/operating.md says of names, roles and the retry policy is so."""

import json
import re
from collections.abc import Iterator
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
from accord_gateway.settings import Settings
from accord_postgres import EmbeddedPostgres
from accord_rpc.pipeline.telemetry import call_metrics
from tests.factories import signed_in_person
from tests.gateway.test_restarts import SERVICE_CONFIG

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/operating.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
SQL = [block for language, block in BLOCKS if language == "sql"]

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
    assert named - settings - codes - LIBPQ == {"NOT_SERVING"}
    assert len(named & settings) > 10


def test_settings_of_the_example_are_all_there_are() -> None:
    explained = set(re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    assert explained == {name.upper() for name in Settings.model_fields}


def test_figures_are_those_that_are_served() -> None:
    counted = [
        metric
        for some in (call_metrics(), metrics(), clean_up_metrics(), mail_metrics())
        for metric in vars(some).values()
    ]
    served = {
        family.name: family.type for metric in counted if hasattr(metric, "collect") for family in metric.collect()
    }
    named = set(re.findall(r"^\| `(\w+)", PAGE, flags=re.MULTILINE))
    assert named == {f"{name}_total" if kind == "counter" else name for name, kind in served.items()}


def test_retry_policy_is_the_one_that_is_tested() -> None:
    [shown] = [block for _, block in BLOCKS if "retryPolicy" in block]
    assert json.loads(shown) == SERVICE_CONFIG


@pytest.fixture
def server() -> Iterator[str]:
    """One on which roles may be made."""
    with TemporaryDirectory(prefix="accord-") as folder, EmbeddedPostgres(Path(folder), sync=False) as server:
        superuser = make_conninfo(server.dsn, dbname="postgres")
        run(superuser, "DROP DATABASE accord")
        yield superuser


def run(dsn: str, statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in filter(str.strip, statements.split(";")):
            connection.execute(statement.encode())


@pytest.mark.parametrize("role", [GATEWAY_ROLE, None])
async def test_role_of_the_gateway_may_do_what_it_needs_and_may_not_change_tables(
    server: str, role: str | None
) -> None:
    roles, rights = SQL
    # Here the superuser has the name that the page gives to whoever gateways log in as.
    run(server, roles.replace("ROLE accord LOGIN", "ROLE accord_login LOGIN"))
    run(make_conninfo(server, dbname="accord"), rights.replace("TO accord;", "TO accord_login;"))
    owner, gateway = (make_conninfo(server, dbname="accord", user=role) for role in ("accord_owner", "accord_login"))
    migrate.apply(owner)
    assert migrate.is_current(gateway)
    # As itself is how it acts behind a pooler.
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


def test_one_role_for_everything_makes_the_gateways_role_if_it_may_and_is_told_what_to_run_if_not(server: str) -> None:
    run(server, "CREATE ROLE nobody LOGIN; CREATE ROLE maker LOGIN CREATEROLE")
    run(server, "CREATE DATABASE first OWNER nobody; CREATE DATABASE second OWNER maker")
    nobody, maker = (
        make_conninfo(server, dbname=name, user=user) for name, user in (("first", "nobody"), ("second", "maker"))
    )
    with pytest.raises(migrate.MigrationError) as caught:
        migrate.apply(nobody)
    assert "CREATE ROLE accord_gateway NOLOGIN; GRANT accord_gateway TO" in str(caught.value)
    migrate.apply(maker)
    assert role_problem(maker, GATEWAY_ROLE) is None
    migrate.apply(nobody)  # now that it is there
    fault = role_problem(nobody, GATEWAY_ROLE)
    assert fault is not None
    assert fault.remedy == 'Have a superuser run: GRANT accord_gateway TO "nobody";'
    run(server, fault.remedy.partition(": ")[2])
    assert role_problem(nobody, GATEWAY_ROLE) is None
