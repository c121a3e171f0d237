"""An HTTP/2 client below the level of gRPC, which sends frames that no gRPC library would send."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hyperframe.frame import Frame

Headers = Iterable[tuple[str | bytes, str | bytes]]

FRAME = 16_384  # bytes; the largest frame that every server accepts

_UNVALIDATED = H2Configuration(
    client_side=True,
    header_encoding="latin-1",
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


@dataclass
class Response:
    """The response on one stream. Headers and trailers share one dict, because an error sends both in one frame."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    reset: int | None = None  # error code of RST_STREAM
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> int | None:
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None


class Wire:
    """One connection. `closed` is set when the server closes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.unread: list[Frame] = []  # for tests that read frames themselves, instead of `listen`
        self.http = H2Connection(_UNVALIDATED)
        self.responses: dict[int, Response] = {}
        self.closed = asyncio.Event()
        self.error: int | None = None  # of the server's GOAWAY
        self.ready = asyncio.Event()  # set when the server's settings have arrived

    def begin(self, path: str, headers: Headers = (), *, end_stream: bool = False, base: Headers | None = None) -> int:
        """Sends the headers that every gRPC call has (or `base`), then `headers`. Returns the stream id."""
        stream = self.http.get_next_available_stream_id()
        self.responses[stream] = Response()
        self.http.send_headers(stream, [*(gRPC(path) if base is None else base), *headers], end_stream=end_stream)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, end_stream: bool = False) -> None:
        """Sends at most the initial flow-control window (64 KiB); it does not wait for a window update."""
        for start in range(0, len(data), FRAME):
            self.http.send_data(stream, data[start : start + FRAME])
        if end_stream:
            self.http.end_stream(stream)
        self.flush()

    def reset(self, stream: int) -> None:
        self.http.reset_stream(stream)
        self.flush()

    async def response(self, stream: int, seconds: float = 10) -> Response:
        """Raises TimeoutError if the stream has not ended after `seconds`."""
        response = self.responses[stream]
        async with asyncio.timeout(seconds):
            await response.ended.wait()
        return response

    async def call(self, path: str, data: bytes, headers: Headers = (), *, base: Headers | None = None) -> Response:
        stream = self.begin(path, headers, base=base)
        self.send(stream, data, end_stream=True)
        return await self.response(stream)

    def flush(self) -> None:
        self.writer.write(self.http.data_to_send())

    async def listen(self) -> None:
        while data := await self._read():
            for event in self.http.receive_data(data):
                self._handle(event)
            self.flush()
        self.closed.set()
        for response in self.responses.values():
            response.ended.set()

    async def _read(self) -> bytes:
        try:
            return await self.reader.read(65_536)
        except ConnectionError:
            return b""

    def _handle(self, event: Event) -> None:
        response = self.responses.get(getattr(event, "stream_id", None) or 0, Response())
        match event:
            case ResponseReceived() | TrailersReceived():
                response.headers |= {str(name): str(value) for name, value in event.headers or ()}
            case DataReceived():
                response.data += event.data or b""
                self.http.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            case StreamReset():
                response.reset = int(event.error_code or 0)
                response.ended.set()
            case StreamEnded():
                response.ended.set()
            case RemoteSettingsChanged():
                self.ready.set()
            case ConnectionTerminated():
                self.error = int(event.error_code or 0)
                self.closed.set()


@asynccontextmanager
async def connected(address: str, *, before_settings: bool = False) -> AsyncIterator[Wire]:
    """Waits for the server's settings unless `before_settings`: limits bind a client once it has acknowledged them."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    wire = Wire(reader, writer)
    wire.http.initiate_connection()
    wire.flush()
    listening = asyncio.create_task(wire.listen())
    try:
        if not before_settings:
            await wire.ready.wait()
        yield wire
    finally:
        listening.cancel()
        writer.close()


def gRPC(path: str) -> list[tuple[str, str]]:
    """The headers of every gRPC call."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    """The message with its gRPC length prefix."""
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message
