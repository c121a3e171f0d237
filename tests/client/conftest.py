"""The client calls gateways in the same process, gateways in other processes, and a scripted server."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import grpc
import pytest

import accord_client
import accord_client.aio
from accord_client import SessionToken
from accord_db.engine.database import Database
from tests.api.conftest import _contract_read_once, called_through, gateway, gateway_settings, listener, log, probe
from tests.client.scripted import ScriptedServer
from tests.factories import Person, signed_in_person
from tests.gateway.conftest import database_url, start

__all__ = [
    "_contract_read_once",
    "called_through",
    "database_url",
    "gateway",
    "gateway_settings",
    "listener",
    "log",
    "probe",
    "start",
]


@dataclass(frozen=True)
class Channels:
    """A blocking and an asyncio channel to the gateway, with the credentials of a signed-in user."""

    person: Person
    threads: grpc.Channel
    aio: grpc.aio.Channel


@pytest.fixture
async def channels(gateway: tuple[object, str], database: Database) -> AsyncIterator[Channels]:
    person = await signed_in_person(database)
    credentials = SessionToken(person.token)
    with accord_client.open_channel(gateway[1], credentials=credentials, tls=None) as threads:
        async with accord_client.aio.open_channel(gateway[1], credentials=credentials, tls=None) as aio:
            yield Channels(person, threads, aio)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server
