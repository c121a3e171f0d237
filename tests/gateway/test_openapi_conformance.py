"""Schemathesis, an independent implementation of OpenAPI, calls every operation and compares the responses with the document."""

import asyncio
import re
import subprocess
import sysconfig
from pathlib import Path

import httpx2
import pytest

from accord_db.engine.database import Database
from accord_db.queries import accounts
from tests.factories import Person, activate, organization_of, signed_in_person
from tests.gateway.conftest import Start

PROGRAM = Path(sysconfig.get_path("scripts"), "schemathesis")
# Of the responses. Whether a request is accepted depends on more than its schema.
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance"),
)
# They end the session or the membership that the other operations need.
LEFT_OUT = (
    *("AccountService_DeleteAccount", "AccountService_SignOut", "SessionService_RevokeSession"),
    *("SessionService_RevokeOtherSessions", "AdminService_RevokeAccountSessions", "AdminService_BanAccount"),
    *("AdminService_SetAccountRole", "AdminService_DeleteAccount", "AdminService_RevokeAccountSession"),
    "OrganizationService_DeleteOrganization",
    *("OrganizationService_SetActiveOrganization", "MemberService_UpdateMember", "MemberService_RemoveMember"),
    *("MemberService_LeaveOrganization", "MemberService_TransferOwnership"),
)

pytestmark = [pytest.mark.every_feature, pytest.mark.slow]


async def administrator(database: Database) -> Person:
    """Also the owner of the active organization, so that most operations reach their handlers."""
    person = await signed_in_person(database)
    await accounts.update_role(database, account_id=person.account_id, role="administrator")
    await activate(database, person, await organization_of(database, person))
    return person


async def test_every_response_is_documented(
    database: Database, database_url: str, start: Start, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    mode = "all" if pytestconfig.getoption("--hostile") >= 1000 else "positive"  # all: invalid requests too
    person = await administrator(database)
    url = f"http://{start(DATABASE_URL=database_url, SERVER='accord').address}"
    call = [
        *(str(PROGRAM), "run", f"{url}/openapi.json", "--checks", ",".join(CHECKS), "--no-color"),
        *("--phases", "examples,coverage", "--mode", mode, "--header", f"Authorization: Bearer {person.token}"),
        *(f"--exclude-operation-id={name}" for name in LEFT_OUT),
    ]
    done = await asyncio.to_thread(subprocess.run, call, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = re.search(r"(\d+) generated", done.stdout)
    assert cases is not None
    assert int(cases[1]) > 300
    session = httpx2.get(f"{url}/v1/session", headers=dict(person.headers), trust_env=False)
    assert session.status_code == 200  # until the end
