"""The client calls gateways in the same process, gateways in other processes, and a scripted server."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import grpc
import pytest

import accord_client
import accord_client.aio
from accord_client import SessionToken
from accord_db.engine.database import Database
from tests.api.conftest import _contract_read_once, gateway, gateway_settings, listener, log, probe
from tests.client.scripted import Scripted
from tests.factories import Person, signed_in_person
from tests.gateway.conftest import database_url, start

__all__ = ["_contract_read_once", "database_url", "gateway", "gateway_settings", "listener", "log", "probe", "start"]


@dataclass(frozen=True)
class Calling:
    """A signed-in person, with a blocking and an asyncio channel to the gateway."""

    person: Person
    threads: grpc.Channel
    aio: grpc.aio.Channel


@pytest.fixture
async def calling(gateway: tuple[object, str], database: Database) -> AsyncIterator[Calling]:
    person = await signed_in_person(database)
    credentials = SessionToken(person.token)
    with accord_client.open_channel(gateway[1], credentials=credentials, tls=None) as threads:
        async with accord_client.aio.open_channel(gateway[1], credentials=credentials, tls=None) as aio:
            yield Calling(person, threads, aio)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted() as server:
        yield server
