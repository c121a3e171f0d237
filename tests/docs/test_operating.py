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

from accord.errors.v1.errors_pb2 import Reason
from accord_api.pipeline.observe import call_metrics
from accord_db import migrate
from accord_db.database import Database, DatabaseSettings
from accord_db.embedded import EmbeddedPostgres
from accord_db.metrics import metrics
from accord_db.queries import tasks
from accord_db.queries.cleanup import everything_due
from accord_gateway.cleanup import CleanUp, Outcome, clean_up_metrics
from accord_gateway.mail.metrics import mail_metrics
from accord_gateway.settings import Settings
from tests.factories import signed_in_person
from tests.gateway.test_restarts import SERVICE_CONFIG

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/operating.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
SQL = [block for language, block in BLOCKS if language == "sql"]


def test_names_in_capitals_are_settings_codes_or_reasons() -> None:
    settings = {name.upper() for name in Settings.model_fields}
    codes = {code.name for code in grpc.StatusCode} | {
        value.name.removeprefix("REASON_") for value in Reason.DESCRIPTOR.values
    }
    named = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", PAGE))
    assert named - settings - codes == {"NOT_SERVING"}
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


async def test_role_of_the_gateway_may_do_what_it_needs_and_may_not_change_tables(server: str) -> None:
    roles, rights = SQL
    # Here the superuser has the name that the page gives to the gateway's role.
    run(server, roles.replace("ROLE accord LOGIN", "ROLE accord_gateway LOGIN"))
    run(make_conninfo(server, dbname="accord"), rights.replace("TO accord;", "TO accord_gateway;"))
    owner, gateway = (make_conninfo(server, dbname="accord", user=role) for role in ("accord_owner", "accord_gateway"))
    migrate.apply(owner)
    assert migrate.is_current(gateway)
    database = await Database.connect(DatabaseSettings(dsn=gateway, pool_size=1))
    try:
        person = await signed_in_person(database)
        assert await tasks.list_tasks(database, created_by=person.account_id, limit=10) == []
        due = everything_due(deleted_accounts_kept=timedelta(days=30))
        assert await CleanUp(database, due, clean_up_metrics()).run() == Outcome.DONE
    finally:
        await database.close()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run(gateway, "CREATE TABLE mine ()")
