"""Listens, counts connections, runs the application for each exchange, and stops without a lost call."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from accord_rpc.client_address import peer_network
from accord_rpc.server.connection import Connection, NewConnection, Peer
from accord_rpc.server.exchange import Application, Exchange, Headers
from accord_rpc.server.http1 import Http1Connection
from accord_rpc.server.http2 import Http2Connection
from accord_rpc.server.limits import ConnectionLimits
from accord_rpc.server.listening import Certificates, Listener
from accord_rpc.server.own_headers import OwnHeaders

_POLL: Final = 0.01  # seconds
_FIRST_REQUEST_SECONDS: Final = 1.0  # for connections that were accepted just before the drain


def _never(_: object) -> bool:
    return False


class Server:
    """Create it in a running event loop. `headers` are added to every response. `exempt` returns whether an address has no limit
    of its own, such as a trusted proxy's. `refuse` may respond to an exchange before the application gets it, and returns whether
    it did: cheaply, under overload."""

    TICK: Final = 1.0  # seconds

    def __init__(
        self,
        application: Application,
        *,
        limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008  # frozen
        headers: Headers = (),
        certificates: Certificates | None = None,
        exempt: Callable[[str], bool] = _never,
        refuse: Callable[[Exchange], bool] = _never,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self.own_headers = OwnHeaders(headers)
        self._application = application
        self._certificates = certificates
        self._exempt = exempt
        self.refuse = refuse
        self._connections: dict[Connection | NewConnection, str | None] = {}
        self._per_network: Counter[str] = Counter()
        self._running: set[Exchange] = set()
        self._listeners: Sequence[Listener] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._unsent = 0  # bytes of responses that wait for clients, at most
        self._log = structlog.get_logger()

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def exchanges(self) -> int:
        return sum(each.exchanges for each in self._connections if isinstance(each, Connection))

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts connections on bound sockets. The server closes them. Raises OSError."""
        self._listeners = [Listener(sock, self._accept) for sock in sockets]
        self._tick()

    def stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners = ()

    async def stop(self, grace: float | None) -> None:
        """Closes the sockets, sends GOAWAY to clients, and waits `grace` seconds for exchanges under way. Then cancels them.

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
        self._timer = self.loop.call_later(self.TICK, self._tick)  # first: without it no time limit holds any more
        now = self.loop.time()
        for connection in tuple(self._connections):
            try:
                connection.tick(now)
            except Exception:  # noqa: BLE001  # a fault of one connection, which must not keep the others from being checked
                self._log.exception("connection_failed")
                connection.abort()
        if self._certificates is not None:
            self._certificates.reload_if_changed()

    # --- called by connections ---
    def serve(self, exchange: Exchange) -> asyncio.Task[None]:
        return self.loop.create_task(self._run(exchange))

    async def _run(self, exchange: Exchange) -> None:
        self._running.add(exchange)
        try:
            await self._application(exchange)
        except Exception:  # noqa: BLE001  # the server outlives a fault of its application
            self._log.exception("exchange_failed", path=exchange.target.partition(b"?")[0][:200].decode("latin-1"))
            if exchange.started:
                exchange.reset()
            else:
                exchange.respond(500, ())
        else:
            if not exchange.finished:
                self._log.error(
                    "exchange_not_finished", path=exchange.target.partition(b"?")[0][:200].decode("latin-1")
                )
                exchange.reset()
        finally:
            self._running.discard(exchange)

    def _accept(self, sock: socket.socket, address: object) -> None:
        host = str(address[0]) if isinstance(address, tuple) else ""
        network = peer_network(host) if host and not self._exempt(host) else None
        full = len(self._connections) >= self.limits.connections
        if full or (network and self._per_network[network] >= self.limits.connections_per_address):
            sock.close()
            return
        connection = NewConnection(self)
        self._connections[connection] = network
        if network:
            self._per_network[network] += 1
        # The context is that of this moment, so that a renewed certificate is used at once.
        context = self._certificates.context if self._certificates else None
        connection.opening = self.loop.create_task(connection.open(sock, context))

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

    def sent(self, size: int) -> None:
        self._unsent += size
        if self._unsent > self.limits.unsent_bytes:
            self._limit_unsent()

    def _limit_unsent(self) -> None:
        """Counts what waits indeed, which takes long, and so is not done for each response."""
        connections = (each for each in self._connections if isinstance(each, Connection))
        unsent = {each: each.unsent for each in connections if not each.transport.is_closing()}
        self._unsent = sum(unsent.values())
        for connection in sorted(unsent, key=unsent.__getitem__, reverse=True):
            if self._unsent <= self.limits.unsent_bytes // 2:
                break
            self._log.warning("unread_responses_dropped", peer=connection.peer.name, bytes=unsent[connection])
            self._unsent -= unsent[connection]
            connection.abort()  # its other tasks add no responses
            connection.transport.abort()

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
