"""A caller that speaks HTTP/2 without gRPC's manners: it says what no gRPC library would, and hears what comes back."""

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

Headers = Iterable[tuple[str | bytes, str | bytes]]

FRAME = 16_384  # bytes; the most that every server takes

_RUDE = H2Configuration(
    client_side=True,
    header_encoding="latin-1",
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


@dataclass
class Answer:
    """What came back on one stream. Headers and trailers are one: an error has both in one frame."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    reset: int | None = None  # the code of RST_STREAM
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> int | None:
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None


class Wire:
    """One connection. `closed` is set when the server has ended it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.http = H2Connection(_RUDE)
        self.answers: dict[int, Answer] = {}
        self.closed = asyncio.Event()
        self.ready = asyncio.Event()  # the server's settings are here

    def begin(self, path: str, headers: Headers = (), *, over: bool = False, base: Headers | None = None) -> int:
        """Sends the headers of a call, after those that every gRPC call has (or `base`). Returns its stream."""
        stream = self.http.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.http.send_headers(stream, [*(gRPC(path) if base is None else base), *headers], end_stream=over)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, over: bool = False) -> None:
        """As much as fits into the first window (64 KiB): nobody waits here for another."""
        for start in range(0, len(data), FRAME):
            self.http.send_data(stream, data[start : start + FRAME])
        if over:
            self.http.end_stream(stream)
        self.flush()

    def reset(self, stream: int) -> None:
        self.http.reset_stream(stream)
        self.flush()

    async def answer(self, stream: int, seconds: float = 10) -> Answer:
        """Raises TimeoutError if there is none, which is what must not happen."""
        answer = self.answers[stream]
        async with asyncio.timeout(seconds):
            await answer.over.wait()
        return answer

    async def call(self, path: str, data: bytes, headers: Headers = (), *, base: Headers | None = None) -> Answer:
        stream = self.begin(path, headers, base=base)
        self.send(stream, data, over=True)
        return await self.answer(stream)

    def flush(self) -> None:
        self.writer.write(self.http.data_to_send())

    async def listen(self) -> None:
        while data := await self._read():
            for event in self.http.receive_data(data):
                self._hear(event)
            self.flush()
        self.closed.set()
        for answer in self.answers.values():
            answer.over.set()

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(65_536)
        except ConnectionError:
            return b""

    def _hear(self, event: Event) -> None:
        answer = self.answers.get(getattr(event, "stream_id", None) or 0, Answer())
        match event:
            case ResponseReceived() | TrailersReceived():
                answer.headers |= {str(name): str(value) for name, value in event.headers or ()}
            case DataReceived():
                answer.data += event.data or b""
                self.http.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            case StreamReset():
                answer.reset = int(event.error_code or 0)
                answer.over.set()
            case StreamEnded():
                answer.over.set()
            case RemoteSettingsChanged():
                self.ready.set()
            case ConnectionTerminated():
                self.closed.set()


@asynccontextmanager
async def connected(address: str, *, hasty: bool = False) -> AsyncIterator[Wire]:
    """The server's limits hold for a client once it has acknowledged them; a hasty one has not heard of them yet."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    wire = Wire(reader, writer)
    wire.http.initiate_connection()
    wire.flush()
    listening = asyncio.create_task(wire.listen())
    try:
        if not hasty:
            await wire.ready.wait()
        yield wire
    finally:
        listening.cancel()
        writer.close()


def gRPC(path: str) -> list[tuple[str, str]]:
    """The headers that every call has."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    """A message as gRPC puts it on a stream."""
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message
