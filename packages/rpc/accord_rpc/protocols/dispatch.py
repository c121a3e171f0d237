"""The application of the server: chooses the protocol of each exchange."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence

from accord_rpc.client_address import ClientAddresses
from accord_rpc.protocols.refused import Refused, RefusedRequests
from accord_rpc.server.exchange import Exchange


class ProtocolHandler(ABC):
    """Serves the exchanges of one protocol."""

    refused: RefusedRequests
    """Records requests that are no call. The dispatcher sets it."""

    @abstractmethod
    def accepts(self, exchange: Exchange, content_type: bytes) -> bool:
        """Called for each exchange, so it must be cheap. `content_type` is as sent; empty if it was not."""

    @abstractmethod
    async def serve(self, exchange: Exchange) -> None:
        """Always responds."""


class Dispatcher:
    """The first protocol that accepts an exchange serves it, so the most frequent one comes first."""

    def __init__(self, protocols: Sequence[ProtocolHandler], peers: ClientAddresses = ClientAddresses()) -> None:  # noqa: B008  # has no state but caches
        self._protocols = tuple(protocols)
        self._refused = RefusedRequests(peers)
        for protocol in self._protocols:
            protocol.refused = self._refused

    def __call__(self, exchange: Exchange) -> Awaitable[None]:
        content_type = header(exchange, b"content-type")
        for protocol in self._protocols:
            if protocol.accepts(exchange, content_type):
                return protocol.serve(exchange)
        return self._refuse(exchange)

    async def _refuse(self, exchange: Exchange) -> None:
        status = 415 if exchange.method == b"POST" else 404
        exchange.respond(status, ())
        self._refused.record(exchange, Refused(status))


def header(exchange: Exchange, name: bytes) -> bytes:
    """The first value of a header; empty without one."""
    for key, value in exchange.headers:
        if key == name:
            return value
    return b""
