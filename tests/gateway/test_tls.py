"""TLS and mutual TLS from files."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx2
import pytest
import trustme

from tests.gateway.conftest import Start, eventually, health_of


@dataclass(frozen=True)
class Files:
    """An authority, and the files with a server certificate that it issued and its key."""

    authority: trustme.CA
    certificate: Path
    key: Path

    def issue(self, name: str = "localhost") -> None:
        issued = self.authority.issue_cert(name)
        issued.private_key_pem.write_to_path(self.key)
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    @property
    def settings(self) -> dict[str, object]:
        return {"TLS_CERT_FILE": self.certificate, "TLS_KEY_FILE": self.key}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(trustme.CA(), tmp_path / "server.pem", tmp_path / "server.key")
    files.issue()
    return files


def trusting(authority: trustme.CA, client: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
    key = client.private_key_pem.bytes() if client else None
    chain = client.cert_chain_pems[0].bytes() if client else None
    return grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)


def is_served(address: str, credentials: grpc.ChannelCredentials, name: str = "localhost") -> bool:
    options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=3)
        except grpc.FutureTimeoutError:
            return False
        return health_of(channel) > 0


def test_a_gateway_serves_with_the_configured_certificate(start: Start, database_url: str, files: Files) -> None:
    gateway = start(DATABASE_URL=database_url, **files.settings)
    assert is_served(gateway.address, trusting(files.authority))
    assert not is_served(gateway.address, trusting(trustme.CA()))


@pytest.mark.parametrize(
    ("hsts", "sent"),
    [("off", None), ("host", "max-age=31536000"), ("subdomains", "max-age=31536000; includeSubDomains")],
)
def test_responses_over_tls_tell_browsers_to_use_it(
    start: Start, database_url: str, files: Files, hsts: str, sent: str | None
) -> None:
    gateway = start(DATABASE_URL=database_url, HSTS=hsts, **files.settings)
    context = ssl.create_default_context()
    files.authority.configure_trust(context)
    url = f"https://localhost:{gateway.address.rpartition(':')[2]}"
    for http2 in (False, True):
        with httpx2.Client(http1=not http2, http2=http2, verify=context, trust_env=False) as client:
            for path in ("/healthz", "/v1/nothing"):
                assert client.get(url + path).headers.get("strict-transport-security") == sent


def test_responses_without_tls_do_not_ask_for_it(start: Start, database_url: str) -> None:
    gateway = start(DATABASE_URL=database_url, HSTS="host")
    assert "strict-transport-security" not in httpx2.get(f"http://{gateway.address}/healthz", trust_env=False).headers


def test_a_renewed_certificate_is_used_without_a_restart(start: Start, database_url: str, files: Files) -> None:
    gateway = start(DATABASE_URL=database_url, **files.settings)
    assert is_served(gateway.address, trusting(files.authority))
    files.issue("renewed.example.com")
    eventually(lambda: is_served(gateway.address, trusting(files.authority), "renewed.example.com") or None, gateway)


def test_after_an_invalid_change_the_previous_certificate_stays_in_use(
    start: Start, database_url: str, files: Files
) -> None:
    gateway = start(DATABASE_URL=database_url, **files.settings)
    assert is_served(gateway.address, trusting(files.authority))
    files.key.write_text("not a key")
    assert is_served(gateway.address, trusting(files.authority))
    assert gateway.event("certificate_not_taken_up")


def test_mutual_tls_rejects_clients_without_a_certificate_of_the_authority(
    start: Start, database_url: str, files: Files, tmp_path: Path
) -> None:
    clients = trustme.CA()
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    gateway = start(DATABASE_URL=database_url, **files.settings, TLS_CLIENT_CA_FILE=tmp_path / "clients.pem")
    assert is_served(gateway.address, trusting(files.authority, clients.issue_cert("client")))
    assert not is_served(gateway.address, trusting(files.authority))
    assert not is_served(gateway.address, trusting(files.authority, trustme.CA().issue_cert("client")))


@pytest.mark.parametrize("invalid", ["certificate", "key"])
def test_a_file_without_a_certificate_or_key_is_reported(
    start: Start, database_url: str, files: Files, invalid: str
) -> None:
    getattr(files, invalid).write_text("neither certificate nor key")
    gateway = start(DATABASE_URL=database_url, **files.settings)
    assert gateway.process.wait(30) == 1
    assert "server.pem" in gateway.output
    assert "Traceback" not in gateway.output
