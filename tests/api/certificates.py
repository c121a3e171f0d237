"""An authority that names those it certifies by URIs, as it is done within a cluster (SPIFFE)."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.api.faces import Ends
from tests.api.web import Http

_HOST: Final = "localhost"


@dataclass(frozen=True)
class Pair:
    """In PEM, both of them."""

    certificate: bytes
    key: bytes


class Authority:
    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of the tests")])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        self.pem = self._signed(self._builder(self._name, self._key.public_key()).add_extension(basic, critical=True))

    def issue(self, *uris: str) -> Pair:
        """Also for the server of this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(_HOST), *map(x509.UniformResourceIdentifier, uris)]
        builder = self._builder(x509.Name([]), key.public_key())
        certificate = self._signed(builder.add_extension(x509.SubjectAlternativeName(names), critical=True))
        return Pair(certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


@dataclass(frozen=True)
class Files:
    """The certificate and the key of a gateway, and the CA of its clients' certificates."""

    authority: Authority
    folder: Path

    def write(self) -> dict[str, Path]:
        """Writes the files. Returns their paths by the names of the settings."""
        pair = self.authority.issue()
        files = {
            "tls_cert_file": pair.certificate,
            "tls_key_file": pair.key,
            "tls_client_ca_file": self.authority.pem,
        }
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        return {name: self.folder / name for name in files}

    @asynccontextmanager
    async def channel(self, address: str, *uris: str) -> AsyncIterator[grpc.aio.Channel]:
        """A channel with a client certificate that has these URIs."""
        pair = self.authority.issue(*uris)
        credentials = grpc.ssl_channel_credentials(self.authority.pem, pair.key, pair.certificate)
        options = [("grpc.ssl_target_name_override", _HOST), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(address, credentials, options) as channel:
            yield channel

    @asynccontextmanager
    async def ends(self, address: str, *uris: str) -> AsyncIterator[Ends]:
        """Ways to the gateway with a client certificate that has these URIs."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        pair, file = self.authority.issue(*uris), self.folder / f"client-{uuid4().hex}.pem"
        file.write_bytes(pair.certificate + pair.key)
        context.load_cert_chain(file)
        http = Http(address, context, name=_HOST)
        async with self.channel(address, *uris) as channel:
            yield Ends(channel, http)
        await http.close()
