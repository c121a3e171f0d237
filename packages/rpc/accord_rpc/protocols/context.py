"""What the pipeline and its handlers use of grpcio's `ServicerContext`, for calls that our own server carries."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Final, NoReturn, TypeAlias

import grpc
from grpc.aio import AbortError

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

# How clients write the time that a call may take: `grpc-timeout` has a unit, `connect-timeout-ms` is in milliseconds.
SECONDS_OF_UNIT: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
MILLISECONDS: Final = re.compile(rb"[0-9]{1,10}")


class ProtocolContext(ABC):
    """One call. Each protocol implements `read` and `write`, and translates the status at the end.

    `deadline` is a value of `time.monotonic()`; None if the client set none."""

    __slots__ = (
        "_auth_context",
        "_peer",
        "cookie",
        "deadline",
        "message",
        "metadata",
        "response_headers",
        "status",
        "trailers",
    )

    cookie: str
    """The header `Cookie`, which is not metadata. Empty for protocols that browsers do not speak."""
    response_headers: list[tuple[bytes, bytes]] | None
    """What stages add to the head of the response. None for protocols that browsers do not speak."""

    def take_cookies(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """For protocols that browsers speak. HTTP/2 may split the header."""
        self.cookie = b"; ".join(value for name, value in headers if name == b"cookie").decode("latin-1")
        self.response_headers = []

    def __init__(self, metadata: Metadata, peer: str, peer_uris: Sequence[bytes], deadline: float | None) -> None:
        self.metadata = metadata
        self._peer = peer
        self._auth_context = {"peer_uri": peer_uris} if peer_uris else {}
        self.deadline = deadline
        self.status: int | None = None
        self.message = ""
        self.trailers: Metadata = ()
        self.cookie = ""
        self.response_headers = None

    @property
    def request_has_arrived(self) -> bool:
        """Whether `read` need not wait."""
        return False

    @property
    def request_is_read(self) -> bool:
        """Whether `read` would return EOF without waiting. May be False nevertheless."""
        return False

    @abstractmethod
    async def read(self) -> object:
        """The next message, as bytes; `grpc.aio.EOF` at the end."""

    def encoded(self, response: bytes) -> bytes:
        """The only response, in the form in which the protocol sends it. Called once, within the outermost stage."""
        return response

    @abstractmethod
    async def write(self, message: bytes) -> None:
        """Sends a message of a stream of responses."""

    def invocation_metadata(self) -> Metadata:
        return self.metadata

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._auth_context

    def time_remaining(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self.trailers = metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self.status = code.value[0]

    def set_details(self, message: str) -> None:
        self.message = message

    def code(self) -> int | None:
        return self.status

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self.status, self.message = code.value[0], details
        raise AbortError(details)
