"""The client verifies the server's certificate, and can present a certificate of its own."""

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
class TlsGateway:
    """A gateway with a certificate. `authorities` is the file with the authority that issued it."""

    gateway: GatewayProcess
    folder: Path
    authorities: Path
    client_authority: trustme.CA | None = None  # issues the client certificates that the gateway requires

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
def client_authority() -> trustme.CA:
    """The authority that issues client certificates."""
    return trustme.CA()


@pytest.fixture
def tls_gateway(start: Start, database_url: str, tmp_path: Path) -> TlsGateway:
    authority = trustme.CA()
    certificate, key = issue(tmp_path / "server", authority)
    gateway = start(DATABASE_URL=database_url, TLS_CERT_FILE=certificate, TLS_KEY_FILE=key)
    return TlsGateway(gateway, tmp_path, trust(tmp_path / "authority.pem", authority))


@pytest.fixture
def mutual_tls_gateway(start: Start, database_url: str, tmp_path: Path, client_authority: trustme.CA) -> TlsGateway:
    """A gateway that requires a client certificate of `client_authority`."""
    authority = trustme.CA()
    certificate, key = issue(tmp_path / "server", authority)
    authority_file = trust(tmp_path / "clients.pem", client_authority)
    gateway = start(
        DATABASE_URL=database_url, TLS_CERT_FILE=certificate, TLS_KEY_FILE=key, TLS_CLIENT_CA_FILE=authority_file
    )
    return TlsGateway(gateway, tmp_path, trust(tmp_path / "authority.pem", authority), client_authority)


@pytest.fixture
async def person(database: Database) -> Person:
    return await signed_in_person(database)


def list_tasks(channel: grpc.Channel) -> None:
    TaskServiceStub(channel).ListTasks(ListTasksRequest())


def connection_error(channel: grpc.Channel) -> CallFailed:
    """The error of a method that is not retried, so that it fails on the first connection error."""
    with pytest.raises(errors.Unavailable) as failed:
        TaskServiceStub(channel).UpdateTask(UpdateTaskRequest())
    return failed.value


async def test_certificate_of_a_trusted_authority_is_accepted(tls_gateway: TlsGateway, person: Person) -> None:
    tls, credentials = Tls(authorities=tls_gateway.authorities), SessionToken(person.token)
    with accord_client.open_channel(tls_gateway.address, credentials=credentials, tls=tls) as channel:
        list_tasks(channel)
    async with accord_client.aio.open_channel(tls_gateway.address, credentials=credentials, tls=tls) as aio:
        await TaskServiceStub(aio).ListTasks(ListTasksRequest())


async def test_certificate_of_another_authority_is_rejected(tls_gateway: TlsGateway, person: Person) -> None:
    other_authority = trust(tls_gateway.folder / "others.pem", trustme.CA())
    credentials = SessionToken(person.token)
    for tls in (Tls(authorities=other_authority), Tls()):
        with accord_client.open_channel(tls_gateway.address, credentials=credentials, tls=tls) as channel:
            assert "CERTIFICATE_VERIFY_FAILED" in connection_error(channel).message
        async with accord_client.aio.open_channel(tls_gateway.address, credentials=credentials, tls=tls) as aio:
            with pytest.raises(errors.Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
                await TaskServiceStub(aio).UpdateTask(UpdateTaskRequest())
    assert [event for event in tls_gateway.gateway.events if event["event"] == "call"] == []


def test_certificate_of_another_name_is_rejected(tls_gateway: TlsGateway) -> None:
    tls = Tls(authorities=tls_gateway.authorities, server_name="gateway.example.com")
    with accord_client.open_channel(tls_gateway.address, tls=tls) as channel:
        assert "Hostname Verification Check failed" in connection_error(channel).message


def test_server_name_of_the_certificate_can_be_set(start: Start, database_url: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate, key = issue(tmp_path / "server", authority, "gateway.example.com")
    gateway = start(DATABASE_URL=database_url, TLS_CERT_FILE=certificate, TLS_KEY_FILE=key)
    tls = Tls(authorities=trust(tmp_path / "authority.pem", authority), server_name="gateway.example.com")
    with accord_client.open_channel(gateway.address, tls=tls) as channel, pytest.raises(errors.InvalidMessage):
        AccountServiceStub(channel).SignIn(SignInRequest())


async def test_client_with_a_certificate_is_accepted(
    mutual_tls_gateway: TlsGateway, person: Person, client_authority: trustme.CA
) -> None:
    certificate, key = mutual_tls_gateway.issue("client", client_authority)
    tls = Tls(authorities=mutual_tls_gateway.authorities, certificate=certificate, key=key)
    with accord_client.open_channel(
        mutual_tls_gateway.address, credentials=SessionToken(person.token), tls=tls
    ) as channel:
        list_tasks(channel)


async def test_client_without_a_certificate_or_with_one_of_another_authority_is_rejected(
    mutual_tls_gateway: TlsGateway, person: Person
) -> None:
    certificate, key = mutual_tls_gateway.issue("client", trustme.CA())
    credentials = SessionToken(person.token)
    for tls in (Tls(mutual_tls_gateway.authorities), Tls(mutual_tls_gateway.authorities, certificate, key)):
        with accord_client.open_channel(mutual_tls_gateway.address, credentials=credentials, tls=tls) as channel:
            connection_error(channel)
    assert [event for event in mutual_tls_gateway.gateway.events if event["event"] == "call"] == []


def test_certificate_without_a_key_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Set both"):
        Tls(certificate=tmp_path / "client.pem")


def test_error_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        accord_client.open_channel("localhost:1", tls=Tls(authorities=tmp_path / "nowhere.pem"))
