"""The certificate that the gateway shows, and the authority it asks clients' certificates from: files, read again
when they change, so that renewing a certificate takes no restart."""

import ssl
from pathlib import Path
from typing import Any

import grpc
import structlog

from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings


class TlsFault(StartupError):
    """A certificate or key cannot be used; the message says which and why."""


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """None means plain text. Raises TlsFault."""
    if not (settings.tls_cert_file and settings.tls_key_file):
        return None
    files = CertificateFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    require_client = settings.tls_client_ca_file is not None
    changed: Any = files.read_if_changed  # may answer None, which its stub does not know
    return grpc.dynamic_ssl_server_credentials(files.read(), changed, require_client)


class CertificateFiles:
    def __init__(self, certificate: Path, key: Path, client_authority: Path | None) -> None:
        self._certificate, self._key, self._client_authority = certificate, key, client_authority
        self._files = [path for path in (certificate, key, client_authority) if path]
        self._seen = self._times()

    def read(self) -> grpc.ServerCertificateConfiguration:
        self.check()
        authority = self._client_authority.read_bytes() if self._client_authority else None
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], authority)

    def read_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """None if nothing changed, or if what is there now is no good: the old certificate serves on. Asked by
        gRPC's threads before every handshake."""
        try:
            times = self._times()
            if times == self._seen:
                return None
            changed = self.read()
        except (TlsFault, OSError) as error:
            structlog.get_logger().warning("certificate_not_taken_up", reason=str(error))
            return None
        self._seen = times
        return changed

    def check(self) -> None:
        """Raises TlsFault if the key does not fit the certificate, or one of the files is not what it should be."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise TlsFault(f"{self._certificate} and {self._key} are no certificate and its key: {error}") from None
        try:
            if self._client_authority:
                context.load_verify_locations(self._client_authority)
        except ssl.SSLError as error:
            raise TlsFault(f"{self._client_authority} holds no certificate: {error}") from None

    def _times(self) -> list[int]:
        return [path.stat().st_mtime_ns for path in self._files]


def _no_password() -> str:
    raise ValueError("the key is encrypted")
