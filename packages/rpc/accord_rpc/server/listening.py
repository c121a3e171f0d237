"""Binds sockets, and holds the server's certificate, whose files are read again when they change."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

BACKLOG: Final = 1024
_ACCEPTED_AT_ONCE: Final = 16  # so that processes that share a socket get connections alike
_PAUSE: Final = 1.0  # seconds


class CertificateError(Exception):
    """A certificate or key is unusable. The message names the file and the reason."""


def bind_tcp(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Binds each address of `host` (`::` includes IPv4), all with the same port, which is free for 0. `shared` lets other processes bind it too
    (SO_REUSEPORT). Raises OSError."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            chosen = bound[0].getsockname()[1] if bound else port
            bound.append(_bound(socket.socket(family, kind, protocol), (address[0], chosen), shared=shared))
    except OSError:
        for sock in bound:
            sock.close()
        raise
    return bound


def _bound(sock: socket.socket, address: tuple[object, int], *, shared: bool) -> socket.socket:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignores connections in TIME_WAIT
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        sock.bind(address)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def bind_unix(path: Path, mode: int = 0o660) -> socket.socket:
    """Replaces a socket that no process listens on. Raises OSError."""
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(mode)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                path.unlink()


class Listener:
    """Listens on a bound socket, which other processes may share, and accepts its connections. Raises OSError.

    asyncio's own servers accept without asking, and report a connection only after its TLS handshake."""

    def __init__(self, sock: socket.socket, accepted: Callable[[socket.socket, object], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._accepted = accepted
        self._resuming: asyncio.TimerHandle | None = None
        sock.listen(BACKLOG)
        sock.setblocking(False)
        self._resume()

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors or memory are left
                structlog.get_logger().error("connections_not_accepted", reason=error.strerror)
                self._loop.remove_reader(self._socket)
                self._resuming = self._loop.call_later(_PAUSE, self._resume)
                return
            sock.setblocking(False)
            self._accepted(sock, address)

    def close(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
        else:
            self._loop.remove_reader(self._socket)
        self._socket.close()


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Clients need a certificate that `client_authority` has issued, unless it is None."""

    certificate: Path
    key: Path
    client_authority: Path | None = None

    def load(self) -> ssl.SSLContext:
        """Raises CertificateError if the key does not match the certificate, or a file has other content."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2", "http/1.1"])
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise CertificateError(
                f"{self.certificate} and {self.key} are not a certificate and its key: {error}"
            ) from None
        try:
            if self.client_authority:
                context.load_verify_locations(self.client_authority)
                context.verify_mode = ssl.CERT_REQUIRED
        except ssl.SSLError as error:
            raise CertificateError(f"{self.client_authority} contains no certificate: {error}") from None
        return context

    def modification_times(self) -> list[int]:
        files = (self.certificate, self.key, self.client_authority)
        return [path.stat().st_mtime_ns for path in files if path]


class Certificates:
    """The TLS context for new connections. Raises CertificateError, OSError."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._times = files.modification_times()
        self.context = files.load()

    def reload_if_changed(self) -> None:
        """Files that are unusable change nothing: the current certificate stays in use."""
        try:
            times = self._files.modification_times()
            if times != self._times:
                self._times = times  # so that each change is tried, and logged, once
                self.context = self._files.load()
        except (CertificateError, OSError) as error:
            structlog.get_logger().warning("certificate_not_taken_up", reason=str(error))


def _no_password() -> str:
    """Otherwise OpenSSL prompts for one on the terminal."""
    raise ValueError("the key is encrypted")
