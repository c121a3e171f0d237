"""One connection: finds out which HTTP a client speaks, and hands it over to that version."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from accord_rpc.server.exchange import Exchange
from accord_rpc.server.limits import ConnectionLimits


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
        """Runs the application in a task of its own. If it raises, the exchange gets a 500, or is reset if its response has started.

        To be cancelled by the connection if the client resets the exchange or disconnects."""

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
        """Called about once a second with `loop.time()`. Closes the connection if one of its times has passed: headers, idle, age, stall."""

    @abstractmethod
    def drain(self) -> None:
        """Accepts no further exchange, and closes the connection when those under way have ended."""

    @abstractmethod
    def abort(self) -> None:
        """Closes the connection at once, and cancels its exchanges."""
