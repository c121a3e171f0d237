"""Checks the certificate, and that the ports are free or served by Accord."""

from collections.abc import Iterator

from accord_gateway.cli.doctor.finding import Finding
from accord_gateway.errors import StartupError
from accord_gateway.server import ports
from accord_gateway.server.tls import certificate_files
from accord_gateway.settings import Settings
from accord_rpc.server.listening import CertificateError, CertificateFiles


def findings(settings: Settings) -> Iterator[Finding]:
    if files := certificate_files(settings):
        yield _certificate(files)
    if not settings.unix_socket:
        yield _port(settings.host, settings.port, "PORT")
    if settings.metrics_port:
        yield _port(settings.metrics_host, settings.metrics_port, "METRICS_PORT")


def _certificate(files: CertificateFiles) -> Finding:
    try:
        files.load()
    except CertificateError as error:
        return Finding(str(error), "Correct TLS_CERT_FILE, TLS_KEY_FILE and TLS_CLIENT_CA_FILE.")
    return Finding("the certificate and its key match")


def _port(host: str, port: int, setting: str) -> Finding:
    place = f"{setting} {ports.format_address(host, port)}"
    try:
        ports.require_free(host, port, setting)
    except StartupError as error:
        if (process := ports.listening_process(port)) and process.is_gateway:
            return Finding(f"{place} is served by Accord: {process}")
        return Finding(f"{place}: {error}", f"Inspect it: lsof -i :{port}")
    return Finding(f"{place} is free")
