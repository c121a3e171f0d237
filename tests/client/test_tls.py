"""The client knows whom it talks to, and can prove who it is."""

from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme

import accord_client
import accord_client.aio
from accord.accounts.v1.accounts_pb2 import SignInRequest
from accord.accounts.v1.accounts_pb2_grpc import AccountServiceStub
from accord.tasks.v1.tasks_pb2 import ListTasksRequest, UpdateTaskRequest
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_client import CallFailed, SessionToken, Tls, errors
from accord_db.engine.database import Database
from tests.factories import Person, signed_in_person
from tests.gateway.conftest import GatewayProcess, Start


@dataclass(frozen=True)
class Served:
    """A gateway with a certificate, and what a client needs to know of it."""

    gateway: GatewayProcess
    folder: Path
    authorities: Path
    clients: trustme.CA | None = None  # who issues the certificates that it asks of clients

    @property
    def address(self) -> str:
        return self.gateway.address.replace("127.0.0.1", "localhost")

    def issue(self, name: str, authority: trustme.CA) -> tuple[Path, Path]:
        return issue(self.folder / name, authority)


def issue(path: Path, authority: trustme.CA, name: str = "localhost") -> tuple[Path, Path]:
    issued = authority.issue_cert(name)
    certificate, key = path.with_suffix(".pem"), path.with_suffix(".key")
    issued.private_key_pem.write_to_path(key)
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    return certificate, key


def trust(path: Path, authority: trustme.CA) -> Path:
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def clients() -> trustme.CA:
    """The authority that issues certificates to clients."""
    return trustme.CA()


@pytest.fixture
def served(start: Start, database_url: str, tmp_path: Path) -> Served:
    authority = trustme.CA()
    certificate, key = issue(tmp_path / "server", authority)
    gateway = start(DATABASE_URL=database_url, TLS_CERT_FILE=certificate, TLS_KEY_FILE=key)
    return Served(gateway, tmp_path, trust(tmp_path / "authority.pem", authority))


@pytest.fixture
def mutual(start: Start, database_url: str, tmp_path: Path, clients: trustme.CA) -> Served:
    """It talks to nobody without a certificate of `clients`."""
    authority = trustme.CA()
    certificate, key = issue(tmp_path / "server", authority)
    authority_file = trust(tmp_path / "clients.pem", clients)
    gateway = start(
        DATABASE_URL=database_url, TLS_CERT_FILE=certificate, TLS_KEY_FILE=key, TLS_CLIENT_CA_FILE=authority_file
    )
    return Served(gateway, tmp_path, trust(tmp_path / "authority.pem", authority), clients)


@pytest.fixture
async def person(database: Database) -> Person:
    return await signed_in_person(database)


def list_tasks(channel: grpc.Channel) -> None:
    TaskServiceStub(channel).ListTasks(ListTasksRequest())


def refused(channel: grpc.Channel) -> CallFailed:
    """What comes of a call that is not repeated, and so is told at once that there is no connection."""
    with pytest.raises(errors.Unavailable) as failed:
        TaskServiceStub(channel).UpdateTask(UpdateTaskRequest())
    return failed.value


async def test_server_with_a_certificate_of_the_authority_is_called(served: Served, person: Person) -> None:
    tls, credentials = Tls(authorities=served.authorities), SessionToken(person.token)
    with accord_client.open_channel(served.address, credentials=credentials, tls=tls) as channel:
        list_tasks(channel)
    async with accord_client.aio.open_channel(served.address, credentials=credentials, tls=tls) as aio:
        await TaskServiceStub(aio).ListTasks(ListTasksRequest())


async def test_server_with_a_certificate_of_another_authority_is_not(served: Served, person: Person) -> None:
    others = trust(served.folder / "others.pem", trustme.CA())
    credentials = SessionToken(person.token)
    for tls in (Tls(authorities=others), Tls()):
        with accord_client.open_channel(served.address, credentials=credentials, tls=tls) as channel:
            assert "CERTIFICATE_VERIFY_FAILED" in refused(channel).message
        async with accord_client.aio.open_channel(served.address, credentials=credentials, tls=tls) as aio:
            with pytest.raises(errors.Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
                await TaskServiceStub(aio).UpdateTask(UpdateTaskRequest())
    assert [event for event in served.gateway.events if event["event"] == "call"] == []


def test_server_with_a_certificate_of_another_name_is_not(served: Served) -> None:
    tls = Tls(authorities=served.authorities, server_name="gateway.example.com")
    with accord_client.open_channel(served.address, tls=tls) as channel:
        assert "Hostname Verification Check failed" in refused(channel).message


def test_name_that_is_not_in_the_address_can_be_told(start: Start, database_url: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate, key = issue(tmp_path / "server", authority, "gateway.example.com")
    gateway = start(DATABASE_URL=database_url, TLS_CERT_FILE=certificate, TLS_KEY_FILE=key)
    tls = Tls(authorities=trust(tmp_path / "authority.pem", authority), server_name="gateway.example.com")
    with accord_client.open_channel(gateway.address, tls=tls) as channel, pytest.raises(errors.InvalidMessage):
        AccountServiceStub(channel).SignIn(SignInRequest())


async def test_certificate_of_the_client_lets_it_in(mutual: Served, person: Person, clients: trustme.CA) -> None:
    certificate, key = mutual.issue("client", clients)
    tls = Tls(authorities=mutual.authorities, certificate=certificate, key=key)
    with accord_client.open_channel(mutual.address, credentials=SessionToken(person.token), tls=tls) as channel:
        list_tasks(channel)


async def test_without_it_or_with_another_nobody_gets_in(mutual: Served, person: Person) -> None:
    certificate, key = mutual.issue("client", trustme.CA())
    credentials = SessionToken(person.token)
    for tls in (Tls(mutual.authorities), Tls(mutual.authorities, certificate, key)):
        with accord_client.open_channel(mutual.address, credentials=credentials, tls=tls) as channel:
            refused(channel)
    assert [event for event in mutual.gateway.events if event["event"] == "call"] == []


def test_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Set both"):
        Tls(certificate=tmp_path / "client.pem")


def test_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        accord_client.open_channel("localhost:1", tls=Tls(authorities=tmp_path / "nowhere.pem"))
