"""One HTTP request and its response, whichever version of HTTP carries them."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Names are in lower case. A name may repeat."""


class Exchange(ABC):
    """The application runs as one task per exchange. The server cancels it if the client resets the stream or disconnects."""

    __slots__ = ("authority", "headers", "http_version", "method", "peer", "peer_uris", "secure", "target")

    method: bytes
    target: bytes
    """The path and the query, as sent: percent-encoded."""
    authority: bytes
    """`:authority` or `Host`; empty if the client sent none."""
    headers: Headers
    """Without pseudo-headers, `Host` and the headers of the connection (RFC 9110, section 7.6.1)."""
    http_version: int
    """1 or 2. Only HTTP/2 sends trailers."""
    secure: bool
    """Whether the connection uses TLS."""
    peer: str
    """As grpcio writes it: `ipv4:127.0.0.1:4711`, `ipv6:[::1]:4711`, `unix:`."""
    finished: bool
    """Whether the response was sent to its end, or reset."""
    peer_uris: Sequence[bytes]
    """The URIs of the client's certificate (subjectAltName), which was verified."""

    @property
    @abstractmethod
    def request_ended(self) -> bool:
        """Whether the whole body has arrived."""

    @property
    def body_is_read(self) -> bool:
        """Whether `receive` would return None without waiting. May be False nevertheless."""
        return False

    @abstractmethod
    async def receive(self) -> bytes | None:
        """More of the body; None at its end."""

    @abstractmethod
    def respond(self, status: int, headers: Headers, body: bytes = b"", trailers: Headers = ()) -> None:
        """Sends a whole response. Once, instead of `start`."""

    @abstractmethod
    def start(self, status: int, headers: Headers) -> None:
        """Sends the head of a response whose body follows in parts."""

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Sends a part of the body. Waits while the client reads more slowly than parts are sent."""

    @abstractmethod
    def finish(self, data: bytes = b"", trailers: Headers = ()) -> None:
        """Sends the last part of the body, and ends the response."""

    @abstractmethod
    def reset(self) -> None:
        """Breaks off the response, so that the client does not take it for a whole one."""

    @property
    @abstractmethod
    def started(self) -> bool:
        """Whether the head of the response was sent."""


Application: TypeAlias = Callable[[Exchange], Awaitable[None]]
"""Serves one exchange. An exception is a fault of Accord: the server logs it and sends 500, or resets a response that has started."""
