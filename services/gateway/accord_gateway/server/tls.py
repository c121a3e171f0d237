"""The server's certificate and the authority of client certificates: files that are read again when they change, so that a
renewed certificate needs no restart."""

import ssl
from pathlib import Path
from typing import Any

import grpc
import structlog

from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings


class TlsError(StartupError):
    """A certificate or key is unusable. The message names the file and the reason."""


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """None for plaintext. Raises TlsError."""
    if not (settings.tls_cert_file and settings.tls_key_file):
        return None
    files = CertificateFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    require_client = settings.tls_client_ca_file is not None
    changed: Any = files.read_if_changed  # grpcio's stub does not accept None, which grpcio does
    return grpc.dynamic_ssl_server_credentials(files.read(), changed, require_client)


class CertificateFiles:
    def __init__(self, certificate: Path, key: Path, client_authority: Path | None) -> None:
        self._certificate, self._key, self._client_authority = certificate, key, client_authority
        self._files = [path for path in (certificate, key, client_authority) if path]
        self._times = self._modification_times()

    def read(self) -> grpc.ServerCertificateConfiguration:
        self.check()
        authority = self._client_authority.read_bytes() if self._client_authority else None
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], authority)

    def read_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """None if the files are unchanged or unusable: the current certificate stays in use. Called by gRPC's threads before
        each handshake."""
        try:
            times = self._modification_times()
            if times == self._times:
                return None
            changed = self.read()
        except (TlsError, OSError) as error:
            structlog.get_logger().warning("certificate_not_taken_up", reason=str(error))
            return None
        self._times = times
        return changed

    def check(self) -> None:
        """Raises TlsError if the key does not match the certificate, or a file has other content."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"{self._certificate} and {self._key} are not a certificate and its key: {error}") from None
        try:
            if self._client_authority:
                context.load_verify_locations(self._client_authority)
        except ssl.SSLError as error:
            raise TlsError(f"{self._client_authority} contains no certificate: {error}") from None

    def _modification_times(self) -> list[int]:
        return [path.stat().st_mtime_ns for path in self._files]


def _no_password() -> str:
    """Otherwise OpenSSL prompts for one on the terminal."""
    raise ValueError("the key is encrypted")
