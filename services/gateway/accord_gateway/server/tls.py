"""The server's certificate and the authority of client certificates: files that are read again when they change, so that a
renewed certificate needs no restart."""

from typing import Any

import grpc
import structlog

from accord_gateway.errors import StartupError
from accord_gateway.settings import Settings
from accord_rpc.server.listening import CertificateError, CertificateFiles


class TlsError(StartupError):
    """A certificate or key is unusable. The message names the file and the reason."""


def certificate_files(settings: Settings) -> CertificateFiles | None:
    """None for plaintext."""
    if not (settings.tls_cert_file and settings.tls_key_file):
        return None
    return CertificateFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """For a grpcio server. None for plaintext. Raises TlsError."""
    if (files := certificate_files(settings)) is None:
        return None
    certificates = _GrpcioCertificates(files)
    changed: Any = certificates.read_if_changed  # grpcio's stub does not accept None, which grpcio does
    return grpc.dynamic_ssl_server_credentials(certificates.read(), changed, files.client_authority is not None)


class _GrpcioCertificates:
    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._times = files.modification_times()

    def read(self) -> grpc.ServerCertificateConfiguration:
        files = self._files
        try:
            files.load()
        except CertificateError as error:
            raise TlsError(str(error)) from None
        authority = files.client_authority.read_bytes() if files.client_authority else None
        return grpc.ssl_server_certificate_configuration(
            [(files.key.read_bytes(), files.certificate.read_bytes())], authority
        )

    def read_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """None if the files are unchanged or unusable: the current certificate stays in use. Called by gRPC's threads before
        each handshake."""
        try:
            times = self._files.modification_times()
            if times == self._times:
                return None
            changed = self.read()
        except (TlsError, OSError) as error:
            structlog.get_logger().warning("certificate_not_taken_up", reason=str(error))
            return None
        self._times = times
        return changed
