"""The two servers that can carry the calls: Accord's own and grpcio's. SERVER chooses one; both serve the same routes."""

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence

import grpc

from accord_gateway.errors import StartupError
from accord_gateway.server.ports import PortUnavailable, bind_unix_socket, format_address
from accord_gateway.server.tls import TlsError, certificate_files, server_credentials
from accord_gateway.setting_values import is_loopback
from accord_gateway.settings import Settings
from accord_rpc.client_address import ClientAddresses, is_within
from accord_rpc.pipeline import Routes
from accord_rpc.protocols.compression import may_compress
from accord_rpc.protocols.connect.protocol import ConnectProtocol
from accord_rpc.protocols.cors import Cors
from accord_rpc.protocols.dispatch import Dispatcher
from accord_rpc.protocols.grpc import GrpcProtocol, QuickRefusals
from accord_rpc.protocols.grpc_web import GrpcWebProtocol
from accord_rpc.protocols.pages import Pages
from accord_rpc.protocols.rest.protocol import RestProtocol
from accord_rpc.server.exchange import Application, Headers
from accord_rpc.server.limits import ConnectionLimits
from accord_rpc.server.listening import CertificateError, Certificates, bind_tcp
from accord_rpc.server.server import Server

DRAIN_NOTICE_SECONDS = 0.3
KIB, MIB = 1024, 1024 * 1024
SECOND, MINUTE = 1000, 60_000  # in milliseconds, the unit of gRPC's options


class GatewayServer(ABC):
    """A server with its routes."""

    @abstractmethod
    def listen(self, sockets: Sequence[socket.socket] = ()) -> int:
        """Returns the port: PORT, or a free one if PORT is 0; 0 for a unix socket. Bound `sockets` take the place of PORT.
        Raises PortUnavailable, TlsError."""

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def stop(self, grace: float | None) -> None:
        """Ends after `grace` seconds, or when no call is left. None cancels the calls."""


class AccordServer(GatewayServer):
    """Every protocol, on one port."""

    def __init__(self, routes: Routes, settings: Settings, pages: Pages) -> None:
        self._settings = settings
        compressed = _compressed(routes, settings)
        dispatcher = Dispatcher(
            [
                GrpcProtocol(routes, compressed),
                GrpcWebProtocol(routes, compressed),
                ConnectProtocol(routes, routes.methods),
                pages,
                RestProtocol(routes, routes.methods.values()),
            ],
            client_addresses(settings),
        )
        self._application = _with_cors(dispatcher, settings)
        self._refusals = QuickRefusals(routes.refusals)
        self._sockets: Sequence[socket.socket] = ()
        self._server: Server | None = None

    def listen(self, sockets: Sequence[socket.socket] = ()) -> int:
        settings = self._settings
        certificates = _certificates(settings)
        self._sockets = sockets or _bound(settings)
        self._server = Server(
            self._application,
            limits=connection_limits(settings),
            headers=own_headers(settings),
            certificates=certificates,
            refuse=self._refusals.refuse,
            exempt=lambda address: is_within(address, settings.proxy_networks) or is_loopback(address),
        )
        name = self._sockets[0].getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    async def start(self) -> None:
        assert self._server is not None
        try:
            await self._server.start(self._sockets)
        except OSError as error:  # another process bound the same port at the same time, and listened first
            raise _unavailable(self._settings, error) from None

    async def stop(self, grace: float | None) -> None:
        if self._server is not None:
            await self._server.stop(grace)


class GrpcioServer(GatewayServer):
    """gRPC alone, over grpc-core's transport, whose `stop` cancels calls that arrive later: callers cannot know whether these took
    effect. UNAVAILABLE before it can safely be retried."""

    def __init__(self, routes: Routes, settings: Settings) -> None:
        self._settings = settings
        self._routes = routes
        self._server = grpc.aio.server(options=channel_options(settings))
        self._server.add_generic_rpc_handlers((routes,))

    def listen(self, sockets: Sequence[socket.socket] = ()) -> int:
        if sockets:
            raise StartupError("SERVER=grpcio cannot take over sockets. Set SERVER=accord.")
        settings = self._settings
        address = (
            f"unix:{settings.unix_socket}" if settings.unix_socket else format_address(settings.host, settings.port)
        )
        credentials, server = server_credentials(settings), self._server
        try:
            return server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        except RuntimeError as error:  # grpcio raises nothing more specific
            raise PortUnavailable(f"Cannot listen on {address}: {error}") from None

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float | None) -> None:
        if grace is not None:
            self._routes.draining = True
            await asyncio.sleep(DRAIN_NOTICE_SECONDS)
        await self._server.stop(grace)


def make_server(routes: Routes, settings: Settings, pages: Pages) -> GatewayServer:
    return AccordServer(routes, settings, pages) if settings.server == "accord" else GrpcioServer(routes, settings)


def _compressed(routes: Routes, settings: Settings) -> set[bytes]:
    """The paths of the methods whose responses gRPC and gRPC-Web compress."""
    if settings.grpc_compression == "off":
        return set()
    return {path.encode() for path, method in routes.methods.items() if may_compress(method.response)}


def _with_cors(application: Application, settings: Settings) -> Application:
    if not settings.allowed_origins:
        return application
    return Cors(application, settings.allowed_origins, credentials=settings.session_cookies)


def connection_limits(settings: Settings) -> ConnectionLimits:
    return ConnectionLimits(
        connections=settings.max_connections, connections_per_address=settings.max_connections_per_address
    )


def client_addresses(settings: Settings) -> ClientAddresses:
    return ClientAddresses(settings.proxy_networks, unix=settings.trusts_unix_socket)


def own_headers(settings: Settings) -> Headers:
    """Of every response. Browsers ignore Strict-Transport-Security on connections without TLS (RFC 6797, section 8.1)."""
    if settings.hsts == "off" or not (settings.tls_cert_file or settings.tls_at_proxy):
        return ()
    subdomains = b"; includeSubDomains" if settings.hsts == "subdomains" else b""
    return ((b"strict-transport-security", b"max-age=31536000" + subdomains),)


def _certificates(settings: Settings) -> Certificates | None:
    files = certificate_files(settings)
    try:
        return Certificates(files) if files else None
    except CertificateError as error:
        raise TlsError(str(error)) from None


def _bound(settings: Settings) -> Sequence[socket.socket]:
    if settings.unix_socket:
        return [bind_unix_socket(settings.unix_socket)]
    try:
        return bind_tcp(settings.host, settings.port, shared=settings.workers > 1)
    except OSError as error:
        raise _unavailable(settings, error) from None


def _unavailable(settings: Settings, error: OSError) -> PortUnavailable:
    address = settings.unix_socket or format_address(settings.host, settings.port)
    return PortUnavailable(f"Cannot listen on {address}: {error.strerror}.")


def channel_options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(settings.workers > 1)),
        # Unlimited by default, which lets one connection take any amount of memory.
        ("grpc.max_concurrent_streams", 100),
        # Calls that wait for the event loop to accept them. By default gRPC resets some beyond 1,000 at random.
        ("grpc.server.max_pending_requests", 20_000),
        ("grpc.server.max_pending_requests_hard_limit", 30_000),
        # Closes connections that never send anything.
        ("grpc.server_handshake_timeout_ms", 5 * SECOND),
        # Makes clients reconnect, so that they spread over workers and machines that started later.
        ("grpc.max_connection_age_ms", 30 * MINUTE),
        ("grpc.max_connection_age_grace_ms", 1 * MINUTE),
        ("grpc.max_connection_idle_ms", 15 * MINUTE),
        # Detects clients that vanished, and disconnects those that ping more often than every 10 s.
        ("grpc.keepalive_time_ms", 2 * MINUTE),
        ("grpc.keepalive_timeout_ms", 20 * SECOND),
        ("grpc.http2.min_ping_interval_without_data_ms", 10 * SECOND),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_receive_message_length", 4 * MIB),
        # Between the soft and the hard limit gRPC rejects calls at random. Equal limits reject the same calls each time.
        ("grpc.max_metadata_size", 16 * KIB),
        ("grpc.absolute_max_metadata_size", 16 * KIB),
    ]
