"""The code of docs/client.md runs unchanged against gateways with an account, an API key and a service account."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

import accord_client
from accord.accounts.v1.accounts_pb2 import SignUpRequest
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord_client import CallFailed, Credentials
from accord_db.engine.database import Database
from tests.api.services import new_service
from tests.client.conftest import database_url, start
from tests.client.test_tls import TlsGateway, client_authority, mutual_tls_gateway
from tests.factories import api_key_of, organization_of, signed_in_person
from tests.gateway.conftest import Start

__all__ = ["client_authority", "database_url", "mutual_tls_gateway", "start"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/client.md").read_text()
CODE = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


async def test_code_of_the_page_runs(
    start: Start,
    database_url: str,
    database: Database,
    mutual_tls_gateway: TlsGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The blocks run in their order and share their variables."""
    gateway = start(DATABASE_URL=database_url)
    await asyncio.to_thread(sign_up, gateway.address)
    variables: dict[str, Any] = await secrets(database)
    assert mutual_tls_gateway.client_authority
    mutual_tls_gateway.issue("service", mutual_tls_gateway.client_authority)
    monkeypatch.chdir(tmp_path)
    for block in CODE:
        code = block.replace("127.0.0.1:50051", gateway.address).replace(
            "gateway.example.com:443", mutual_tls_gateway.address
        )
        await asyncio.to_thread(exec, compile(code, "client.md", "exec"), variables)
    assert len(CODE) == 7


def sign_up(address: str) -> None:
    """Creates the account that the page signs in to."""
    with accord_client.open_channel(address, tls=None) as channel:
        AccountServiceStub(channel).SignUp(
            SignUpRequest(email="ada@example.com", password="a sentence that only I know", display_name="Ada")
        )


async def secrets(database: Database) -> dict[str, Any]:
    """The secrets that the page reads from settings."""
    person = await signed_in_person(database)
    key = await api_key_of(database, person, await organization_of(database, person))
    service = await new_service(database)
    return {"api_key": key.key, "client_id": str(service.id), "client_secret": service.secret}


def test_page_lists_every_kind_of_credential() -> None:
    shown = re.findall(r"^\| `(\w+)\(([\w, ]+)\)` \|", PAGE, flags=re.MULTILINE)
    assert {name: fields.split(", ") for name, fields in shown} == {
        kind.__name__: list(kind.__dataclass_fields__) for kind in Credentials.__args__
    }


def test_page_lists_every_attribute_of_an_error() -> None:
    shown = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert set(shown) == {*vars(CallFailed("")), "reason", "code", "error_id"}
