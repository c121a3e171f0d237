"""Whether the gateway could listen: its certificate and its ports."""

from collections.abc import Iterator

from accord_gateway.cli.doctor.finding import Finding
from accord_gateway.errors import StartupError
from accord_gateway.server import ports
from accord_gateway.server.tls import CertificateFiles, TlsFault
from accord_gateway.settings import Settings


def findings(settings: Settings) -> Iterator[Finding]:
    if settings.tls_cert_file and settings.tls_key_file:
        yield _certificate(CertificateFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file))
    yield _port(settings.host, settings.port, "PORT")
    if settings.metrics_port:
        yield _port(settings.metrics_host, settings.metrics_port, "METRICS_PORT")


def _certificate(files: CertificateFiles) -> Finding:
    try:
        files.check()
    except TlsFault as fault:
        return Finding(str(fault), "Correct TLS_CERT_FILE, TLS_KEY_FILE and TLS_CLIENT_CA_FILE.")
    return Finding("the certificate and its key belong together")


def _port(host: str, port: int, setting: str) -> Finding:
    place = f"{setting} {ports.address(host, port)}"
    try:
        ports.require_free(host, port, setting)
    except StartupError as refused:
        if "accord" in (owner := ports.listener(port) or ""):
            return Finding(f"{place} is served by Accord: {owner}")
        return Finding(f"{place}: {refused}", f"See what it is: lsof -i :{port}")
    return Finding(f"{place} is free")
