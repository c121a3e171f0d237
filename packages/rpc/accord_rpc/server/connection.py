"""One connection: TLS, and which HTTP the client speaks. Hands the transport over to that version."""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, cast

from accord_rpc.server.exchange import Exchange
from accord_rpc.server.limits import ConnectionLimits

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

    def serve(self, exchange: Exchange) -> "asyncio.Task[None]":
        """Runs the application in a task. If it raises, the exchange gets a 500, or is reset if its response has started.

        The connection keeps the task, and cancels it if the client resets the exchange or disconnects."""

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

    def accept(self, connection: "NewConnection", address: str | None) -> bool:
        """Counts the connection. False if there are too many. `address` is None for a unix socket."""

    def connect(
        self, old: "NewConnection", transport: asyncio.Transport, peer: Peer, *, http2: bool
    ) -> "Connection | None":
        """The connection that takes the place of `old`. None if the server has stopped."""

    def tls_context(self) -> ssl.SSLContext | None:
        """None for plaintext. Asked per connection, so that a renewed certificate is used at once."""

    def ended(self, connection: "NewConnection") -> None: ...


class NewConnection(asyncio.Protocol):
    """From the accepted socket to the first bytes of HTTP."""

    def __init__(self, server: Acceptor) -> None:
        self._server = server
        self._transport = cast(asyncio.Transport, None)
        self._raw = cast(asyncio.Transport, None)
        self._first = b""
        self._is_secure = self._is_ready = False
        self._since = server.loop.time()
        self._handshake: asyncio.Task[None] | None = None
        self.address: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = self._transport = cast(asyncio.Transport, transport)
        place = transport.get_extra_info("peername")
        self.address = place[0] if place and isinstance(place, tuple) else None
        if not self._server.accept(self, self.address):
            self._raw.abort()
        elif context := self._server.tls_context():
            self._raw.pause_reading()  # until the handshake reads
            self._handshake = self._server.loop.create_task(self._start_tls(context))
        else:
            self._is_ready = True

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        loop, limits = self._server.loop, self._server.limits
        try:
            transport = await loop.start_tls(
                self._raw, self, context, server_side=True, ssl_handshake_timeout=limits.handshake_seconds
            )
        except (OSError, asyncio.CancelledError):  # ssl.SSLError is an OSError
            transport = None
        if transport is None or transport.is_closing():
            self._raw.abort()
            self._server.ended(self)
        else:
            self._begin_secure(transport)

    def _begin_secure(self, transport: asyncio.Transport) -> None:
        self._transport, self._is_secure, self._is_ready = transport, True, True
        version = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        if version == "h2":
            self._hand_over(http2=True)
        elif self._first:
            self._recognize()

    def data_received(self, data: bytes) -> None:
        self._first += data
        if self._is_ready:
            self._recognize()

    def _recognize(self) -> None:
        """`PRI` is no method of HTTP/1.1."""
        if self._first.startswith(PREFACE):
            self._hand_over(http2=True)
        elif not PREFACE.startswith(self._first):
            self._hand_over(http2=False)

    def _hand_over(self, *, http2: bool) -> None:
        connection = self._server.connect(self, self._transport, self._peer(), http2=http2)
        if connection is None:
            self._transport.close()
        else:
            self._transport.set_protocol(connection)
            connection.data_received(self._first)

    def _peer(self) -> Peer:
        place = self._transport.get_extra_info("peername")
        certificate = self._transport.get_extra_info("peercert") or {}
        uris = [name.encode() for kind, name in certificate.get("subjectAltName", ()) if kind == "URI"]
        return Peer(_name(place), uris, self._is_secure)

    def connection_lost(self, error: Exception | None) -> None:
        if self._handshake is None or self._is_ready:
            self._server.ended(self)

    def tick(self, now: float) -> None:
        if now - self._since > self._server.limits.handshake_seconds:
            self.abort()

    def abort(self) -> None:
        if self._handshake is not None:
            self._handshake.cancel()
        with suppress(AttributeError):
            self._raw.abort()


def _name(place: object) -> str:
    """As grpcio writes it."""
    if not isinstance(place, tuple):
        return "unix:"
    host, port = place[:2]
    return f"ipv4:{host}:{port}" if len(place) == 2 else f"ipv6:[{host}]:{port}"
