"""Listens, counts connections, runs the application for each exchange, and stops without a lost call."""

import asyncio
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from accord_rpc.client_address import peer_network
from accord_rpc.server.connection import Connection, NewConnection, Peer
from accord_rpc.server.exchange import Application, Exchange
from accord_rpc.server.http1 import Http1Connection
from accord_rpc.server.http2 import Http2Connection
from accord_rpc.server.limits import ConnectionLimits
from accord_rpc.server.listening import Certificates

BACKLOG: Final = 1024
_POLL: Final = 0.01  # seconds
_FIRST_REQUEST_SECONDS: Final = 1.0  # for connections that were accepted just before the drain
# Otherwise Python 3.13 removes the path when the server closes, though other processes still accept connections there.
_KEEP_UNIX_SOCKET: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
_PAUSE: Final = 0.1  # seconds, after a connection could not be accepted: most likely there are too many open files


def _never(_: str) -> bool:
    return False


class Server:
    """Create it in a running event loop. `exempt` returns whether an address has no limit of its own, such as a trusted proxy's."""

    TICK: Final = 1.0  # seconds

    def __init__(
        self,
        application: Application,
        *,
        limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008  # frozen
        certificates: Certificates | None = None,
        exempt: Callable[[str], bool] = _never,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self._application = application
        self._certificates = certificates
        self._exempt = exempt
        self._connections: dict[Connection | NewConnection, str | None] = {}
        self._per_network: Counter[str] = Counter()
        self._running: set[Exchange] = set()
        self._listeners: list[asyncio.Server] = []
        self._secure_listeners: list[socket.socket] = []
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._log = structlog.get_logger()

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def exchanges(self) -> int:
        return sum(each.exchanges for each in self._connections if isinstance(each, Connection))

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts connections on bound sockets. The server closes them."""
        for sock in sockets:
            if self._certificates is None:
                self._listeners.append(await self._create_listener(sock))
            else:
                sock.listen(BACKLOG)
                sock.setblocking(False)
                self._secure_listeners.append(sock)
                self.loop.add_reader(sock, self._accept_secure, sock)
        self._tick()

    async def _create_listener(self, sock: socket.socket) -> asyncio.Server:
        if sock.family != socket.AF_UNIX:
            return await self.loop.create_server(lambda: NewConnection(self), sock=sock, backlog=BACKLOG)
        return await self.loop.create_unix_server(
            lambda: NewConnection(self), sock=sock, backlog=BACKLOG, **_KEEP_UNIX_SOCKET
        )

    def _accept_secure(self, listener: socket.socket) -> None:
        """`create_server(ssl=…)` would keep one certificate for ever, and not count handshakes. With `start_tls`, uvloop loses the
        handshake of a client that sends it at once. `sock_accept` loses a connection when it is cancelled."""
        try:
            sock, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another process accepted it
            return
        except OSError:  # too many open files
            self.loop.remove_reader(listener)
            self.loop.call_later(_PAUSE, self._accept_again, listener)
            return
        sock.setblocking(False)
        NewConnection(self).start_handshake(sock, address)

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._secure_listeners:
            self.loop.add_reader(listener, self._accept_secure, listener)

    def stop_listening(self) -> None:
        for sock in self._secure_listeners:
            self.loop.remove_reader(sock)
            sock.close()
        self._secure_listeners.clear()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def stop(self, grace: float | None) -> None:
        """Closes the sockets, tells clients to leave, and waits `grace` seconds for exchanges under way. Then cancels them.

        None cancels them at once. May be called again, or while another call waits."""
        self.stop_listening()
        if grace is not None:
            await self._drain(grace)
        for connection in tuple(self._connections):
            connection.abort()
        await self._until_gone(1.0)
        if self._timer is not None:
            self._timer.cancel()

    async def _drain(self, grace: float) -> None:
        """Connections that were just accepted may send a request that is on its way."""
        self._draining = True
        for connection in tuple(self._connections):
            if isinstance(connection, Connection):
                connection.drain()
        timer = self.loop.call_later(_FIRST_REQUEST_SECONDS, self._abort_new)
        await self._until_gone(grace)
        timer.cancel()

    def _abort_new(self) -> None:
        for connection in tuple(self._connections):
            if isinstance(connection, NewConnection):
                connection.abort()

    async def _until_gone(self, seconds: float) -> None:
        until = self.loop.time() + seconds
        # An event would cost time in each exchange, and this runs once.
        while (self._connections or self._running) and self.loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(_POLL)

    def _tick(self) -> None:
        now = self.loop.time()
        for connection in tuple(self._connections):
            connection.tick(now)
        if self._certificates is not None:
            self._certificates.reload_if_changed()
        self._timer = self.loop.call_later(self.TICK, self._tick)

    # --- called by connections ---
    def serve(self, exchange: Exchange) -> asyncio.Task[None]:
        return self.loop.create_task(self._run(exchange))

    async def _run(self, exchange: Exchange) -> None:
        self._running.add(exchange)
        try:
            await self._application(exchange)
        except Exception:  # noqa: BLE001  # the server outlives a fault of its application
            self._log.exception("exchange_failed", target=exchange.target[:200].decode("latin-1"))
            if exchange.started:
                exchange.reset()
            else:
                exchange.respond(500, ())
        finally:
            self._running.discard(exchange)

    def accept(self, connection: NewConnection, address: str | None) -> bool:
        network = None if address is None or self._exempt(address) else peer_network(address)
        full = len(self._connections) >= self.limits.connections
        if full or (network and self._per_network[network] >= self.limits.connections_per_address):
            return False
        self._connections[connection] = network
        if network:
            self._per_network[network] += 1
        return True

    def connect(
        self, old: NewConnection, transport: asyncio.Transport, peer: Peer, *, http2: bool
    ) -> Connection | None:
        if old not in self._connections:
            return None
        connection = (Http2Connection if http2 else Http1Connection)(self, transport, peer)
        self._connections[connection] = self._connections.pop(old)
        if self._draining:
            self.loop.call_soon(connection.drain)  # after its first bytes
        return connection

    def tls_context(self) -> ssl.SSLContext | None:
        return self._certificates.context if self._certificates else None

    def closed(self, connection: Connection) -> None:
        self._forget(connection)

    def ended(self, connection: NewConnection) -> None:
        self._forget(connection)

    def _forget(self, connection: Connection | NewConnection) -> None:
        network = self._connections.pop(connection, None)
        if network:
            self._per_network[network] -= 1
            if not self._per_network[network]:
                del self._per_network[network]
