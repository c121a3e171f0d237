"""The application of the server: chooses the protocol of each exchange."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence

from accord_rpc.server.exchange import Exchange


class ProtocolHandler(ABC):
    """Serves the exchanges of one protocol."""

    @abstractmethod
    def accepts(self, exchange: Exchange, content_type: bytes) -> bool:
        """Called for each exchange, so it must be cheap. `content_type` is as sent; empty if it was not."""

    @abstractmethod
    async def serve(self, exchange: Exchange) -> None:
        """Always responds."""


class Dispatcher:
    """The first protocol that accepts an exchange serves it, so the most frequent one comes first."""

    def __init__(self, protocols: Sequence[ProtocolHandler]) -> None:
        self._protocols = tuple(protocols)

    def __call__(self, exchange: Exchange) -> Awaitable[None]:
        content_type = header(exchange, b"content-type")
        for protocol in self._protocols:
            if protocol.accepts(exchange, content_type):
                return protocol.serve(exchange)
        return _refuse(exchange)


async def _refuse(exchange: Exchange) -> None:
    exchange.respond(415 if exchange.method == b"POST" else 404, ())


def header(exchange: Exchange, name: bytes) -> bytes:
    """The first value of a header; empty without one."""
    for key, value in exchange.headers:
        if key == name:
            return value
    return b""
