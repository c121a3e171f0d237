"""One connection: TLS, and which HTTP the client speaks. Hands the transport over to that version."""

import asyncio
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

from accord_rpc.server.exchange import Exchange
from accord_rpc.server.limits import ConnectionLimits
from accord_rpc.server.own_headers import OwnHeaders

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of an HTTP/2 client (RFC 9113, section 3.4)."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The client of a connection. The fields are those of its exchanges; see `Exchange`."""

    name: str
    uris: Sequence[bytes]
    secure: bool


class Host(Protocol):
    """What a connection uses of the server."""

    loop: asyncio.AbstractEventLoop
    limits: ConnectionLimits
    own_headers: OwnHeaders

    def serve(self, exchange: Exchange) -> "asyncio.Task[None]":
        """Runs the application in a task. If it raises, the exchange gets a 500, or is reset if its response has started.

        The connection keeps the task, and cancels it if the client resets the exchange or disconnects."""

    def refuse(self, exchange: Exchange) -> bool:
        """Whether the exchange was refused at once, and gets no task."""

    def sent(self, size: int) -> None:
        """Counts bytes of responses that a connection has taken over, and may close connections that have too many."""

    def closed(self, connection: "Connection") -> None:
        """Must be called by `connection_lost`."""


class Connection(asyncio.Protocol, ABC):
    """The protocol of a transport whose version of HTTP is known. `data_received` is called with the first bytes right after the
    connection was made; `connection_made` is not called."""

    __slots__ = ("host", "peer", "transport")

    def __init__(self, host: Host, transport: asyncio.Transport, peer: Peer) -> None:
        self.host = host
        self.transport = transport
        self.peer = peer

    @property
    @abstractmethod
    def exchanges(self) -> int:
        """How many are under way."""

    @property
    @abstractmethod
    def unsent(self) -> int:
        """The bytes of responses that wait for the client."""

    @abstractmethod
    def tick(self, now: float) -> None:
        """Called about once a second with `loop.time()`. Closes the connection if one of its times has passed: headers, idle, age,
        stall."""

    @abstractmethod
    def drain(self) -> None:
        """Accepts no further exchange, and closes the connection when those under way have ended."""

    @abstractmethod
    def abort(self) -> None:
        """Closes the connection at once, and cancels its exchanges."""


class Acceptor(Host, Protocol):
    """What a connection that begins uses of the server."""

    def connect(
        self, old: "NewConnection", transport: asyncio.Transport, peer: Peer, *, http2: bool
    ) -> "Connection | None":
        """The connection that takes the place of `old`. None if the server has stopped."""

    def ended(self, connection: "NewConnection") -> None: ...


class NewConnection(asyncio.Protocol):
    """From the accepted socket to the first bytes of HTTP."""

    __slots__ = ("_first", "_server", "_since", "_transport", "opening")

    def __init__(self, server: Acceptor) -> None:
        self._server = server
        self._since = server.loop.time()
        self._first = b""
        self._transport: asyncio.Transport | None = None
        self.opening: asyncio.Task[None] | None = None

    async def open(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        """Until the transport is made, TLS handshake included."""
        limits = self._server.limits
        times = {"ssl_handshake_timeout": limits.handshake_seconds, "ssl_shutdown_timeout": limits.linger_seconds}
        try:
            await self._server.loop.connect_accepted_socket(
                lambda: self, sock, ssl=context, **(times if context else {})
            )
        except (OSError, asyncio.CancelledError):  # ssl.SSLError is an OSError
            self._server.ended(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if (tls := transport.get_extra_info("ssl_object")) and tls.selected_alpn_protocol() == "h2":
            self._hand_over(self._transport, http2=True)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._first += data
        if self._first.startswith(PREFACE):
            self._hand_over(self._transport, http2=True)
        elif not PREFACE.startswith(self._first):  # `PRI` is no method of HTTP/1.1
            self._hand_over(self._transport, http2=False)

    def _hand_over(self, transport: asyncio.Transport, *, http2: bool) -> None:
        connection = self._server.connect(self, transport, _peer(transport), http2=http2)
        if connection is None:
            transport.close()
        else:
            transport.set_protocol(connection)
            connection.data_received(self._first)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.ended(self)

    def tick(self, now: float) -> None:
        if now - self._since > self._server.limits.handshake_seconds:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        elif self.opening is not None:
            self.opening.cancel()


def _peer(transport: asyncio.Transport) -> Peer:
    certificate = transport.get_extra_info("peercert") or {}
    uris = tuple(name.encode() for kind, name in certificate.get("subjectAltName", ()) if kind == "URI")
    secure = transport.get_extra_info("ssl_object") is not None
    return Peer(_name(transport.get_extra_info("peername")), uris, secure)


def _name(place: object) -> str:
    """As grpcio writes it."""
    if not isinstance(place, tuple):
        return "unix:"
    host, port = place[:2]
    return f"ipv4:{host}:{port}" if len(place) == 2 else f"ipv6:[{host}]:{port}"
