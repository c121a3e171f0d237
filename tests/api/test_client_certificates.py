"""Services that authenticate with a client certificate (mutual TLS)."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import psycopg
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from accord.tasks.v1.tasks_pb2 import ListTasksRequest
from accord.tasks.v1.tasks_pb2_grpc import TaskServiceStub
from accord_db.engine.database import Database
from accord_db.queries import services
from accord_gateway.server.gateway import Gateway
from accord_gateway.settings import Settings
from tests.api.conftest import outcome, refusal
from tests.api.services import Service, exchanged, new_service
from tests.factories import Person, bearer, signed_in_person

NAME = "spiffe://example.com/billing"
UNMAPPED = "spiffe://example.com/unmapped"

Connect = Callable[..., "grpc.aio.Channel"]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Issues the certificates of the gateway and of its clients."""
    return trustme.CA()


@pytest.fixture
def gateway_settings(authority: trustme.CA, tmp_path: Path) -> Settings:
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "clients.pem")
    return Settings(
        port=0,
        metrics_port=0,
        tls_cert_file=tmp_path / "server.pem",
        tls_key_file=tmp_path / "server.key",
        tls_client_ca_file=tmp_path / "clients.pem",
        service_identities={NAME: "billing", "spiffe://example.com/gone": "gone"},
    )


def certificate(
    authority: trustme.CA, names: Sequence[x509.GeneralName], common_name: str = "common name"
) -> tuple[bytes, bytes]:
    """A key and its certificate. trustme cannot issue certificates with a URI."""
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    signing = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, builder.sign(signing, hashes.SHA256()).public_bytes(pem)


def uri(name: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(name)


@pytest.fixture
def connect(gateway: tuple[Gateway, str], authority: trustme.CA) -> Connect:
    """Opens a channel with a client certificate that has these names."""

    def connect(*names: x509.GeneralName, common_name: str = "common name") -> grpc.aio.Channel:
        key, chain = certificate(authority, names, common_name)
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)
        options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(gateway[1], credentials, options)

    return connect


@pytest.fixture
async def billing(database: Database) -> Service:
    return await new_service(database, name="billing")


@pytest.fixture
async def person(database: Database) -> Person:
    return await signed_in_person(database)


async def as_itself(channel: grpc.aio.Channel, person: Person) -> str:
    """The result of a method for services, called without headers."""
    return await outcome(exchanged(channel, (), person.token))


async def test_uri_of_a_certificate_identifies_the_service(
    connect: Connect, billing: Service, person: Person, dsn: str
) -> None:
    async with connect(uri(NAME)) as channel:
        assert await as_itself(channel, person) == "OK"
    with psycopg.connect(dsn) as connection:
        [row] = connection.execute("SELECT account_id, service_account_id, credential FROM audit_events").fetchall()
    assert row[:2] == (person.account_id, billing.id)
    assert "certificate" in row[2].lower()


async def test_certificate_may_have_other_names_in_addition_to_the_uri(
    connect: Connect, billing: Service, person: Person
) -> None:
    async with connect(uri(NAME), x509.DNSName("billing.example.com")) as channel:
        assert await as_itself(channel, person) == "OK"


@pytest.mark.parametrize(
    ("names", "common_name"),
    [
        ([uri(UNMAPPED)], "common name"),
        ([uri(NAME + "/")], "common name"),
        ([uri(NAME.upper())], "common name"),
        ([uri(NAME), uri(UNMAPPED)], "common name"),
        ([uri(UNMAPPED), uri(NAME)], "common name"),
        ([x509.DNSName(NAME)], "common name"),
        ([x509.RFC822Name(NAME)], "common name"),
        ([], NAME),
        ([x509.DNSName("billing")], NAME),
        ([uri("billing")], "common name"),
        ([uri("spiffe://example.com/gone")], "common name"),
    ],
    ids=str,
)
async def test_certificate_without_exactly_one_mapped_uri_identifies_no_service(
    connect: Connect, billing: Service, person: Person, names: list[x509.GeneralName], common_name: str
) -> None:
    async with connect(*names, common_name=common_name) as channel:
        refused = await refusal(exchanged(channel, (), person.token))
    assert refused.code == grpc.StatusCode.UNAUTHENTICATED
    assert refused.reason in ("CREDENTIAL_MISSING", "CREDENTIAL_INVALID")


async def test_certificate_of_a_disabled_service_is_invalid(
    connect: Connect, billing: Service, person: Person, database: Database
) -> None:
    async with connect(uri(NAME)) as channel:
        assert await as_itself(channel, person) == "OK"
        await services.disable_service_account(database, service_account_id=billing.id)
        async with asyncio.timeout(2):  # a notification takes milliseconds; the lifetime of the cache is longer
            while await as_itself(channel, person) != "CREDENTIAL_INVALID":
                pass


async def test_credential_in_a_header_takes_precedence_over_the_certificate(
    connect: Connect, billing: Service, person: Person
) -> None:
    """A service can forward the credential of a user. An invalid credential is not replaced by the certificate."""
    async with connect(uri(NAME)) as channel:
        assert await outcome(exchanged(channel, person.headers, person.token)) == "PERMISSION_DENIED"
        assert await outcome(exchanged(channel, bearer("nothing"), person.token)) == "CREDENTIAL_INVALID"
        assert await outcome(exchanged(channel, bearer(NAME), person.token)) == "CREDENTIAL_INVALID"


async def test_service_with_a_certificate_acts_for_users_only_with_an_exchanged_token(
    connect: Connect, billing: Service, person: Person
) -> None:
    async with connect(uri(NAME)) as channel:
        tasks = TaskServiceStub(channel)
        assert await outcome(tasks.ListTasks(ListTasksRequest())) == "PERMISSION_DENIED"
        token = await exchanged(channel, (), person.token)
        assert await outcome(tasks.ListTasks(ListTasksRequest(), metadata=bearer(token))) == "OK"


async def test_name_of_a_certificate_is_not_a_valid_token(connect: Connect, billing: Service, person: Person) -> None:
    """Certificates and tokens share one cache."""
    async with connect(uri(NAME)) as channel, connect(x509.DNSName("x.example.com")) as other:
        assert await as_itself(channel, person) == "OK"
        for header in (bearer(NAME), (("x-api-key", NAME),), bearer(f"certificate {NAME}")):
            assert await outcome(exchanged(other, header, person.token)) == "CREDENTIAL_INVALID"
