"""A gRPC client that makes many calls at a time and reports how each ended: what h2load does not do."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import cycle
from time import perf_counter
from typing import Final, NamedTuple, cast

from ngh2 import Connection, ResponseReceived, Role, StreamClosed, TrailersReceived

from benchmarks.load import Request

STREAMS: Final = 100  # that the server permits on a connection
TICK: Final = 0.002  # seconds between the calls that are sent together
PATIENCE: Final = 10.0  # seconds for the last calls


class Ended(NamedTuple):
    """`status` is a gRPC code, or None if the stream was reset. `details`: of grpc-status-details-bin, in base64."""

    status: int | None
    details: bytes
    seconds: float


class _Call:
    __slots__ = ("began", "details", "on_end", "status")

    def __init__(self, on_end: Callable[[Ended], None]) -> None:
        self.began = perf_counter()
        self.on_end = on_end
        self.status: int | None = None
        self.details = b""


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._http = Connection(Role.CLIENT)
        self._http.initiate_connection({})
        self._calls: dict[int, _Call] = {}
        self._transport = cast(asyncio.Transport, None)
        self._will_flush = False

    @property
    def open_calls(self) -> int:
        return len(self._calls)

    def call(self, request: Request, on_end: Callable[[Ended], None], *, sends_message: bool = True) -> None:
        """Without its message, the call stays half-sent."""
        headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", request.path.encode()),
            (b":authority", b"localhost"),
            *((name.encode(), value.encode()) for name, value in request.headers.items()),
        ]
        stream = self._http.send_request(headers)
        self._calls[stream] = _Call(on_end)
        if sends_message:
            self._http.send_data(stream, request.body or b"", end_stream=True)
        if not self._will_flush:
            self._will_flush = True
            asyncio.get_running_loop().call_soon(self._flush)

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        for event in self._http.events():
            match event:
                case ResponseReceived() | TrailersReceived():
                    self._read(event.stream_id, event.headers)
                case StreamClosed():
                    self._end(event.stream_id)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        for stream in tuple(self._calls):
            self._end(stream)

    def _read(self, stream: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        call = self._calls.get(stream)
        for name, value in headers if call is not None else ():
            if name == b"grpc-status":
                call.status = int(value)
            elif name == b"grpc-status-details-bin":
                call.details = value

    def _end(self, stream: int) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            call.on_end(Ended(call.status, call.details, perf_counter() - call.began))

    def _flush(self) -> None:
        self._will_flush = False
        if data := self._http.data_to_send():
            self._transport.write(data)


async def connect(port: int, connections: int) -> list[Client]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(connections)]


async def until_ended(clients: Sequence[Client]) -> None:
    async with asyncio.timeout(PATIENCE):
        while any(client.open_calls for client in clients):  # noqa: ASYNC110  # an event would cost time in each call
            await asyncio.sleep(TICK)


async def keep_busy(
    clients: Sequence[Client], requests: Sequence[Request], at_a_time: int, seconds: float
) -> list[Ended]:
    """So many calls at a time, the next one when one has ended."""
    ended: list[Ended] = []
    until = perf_counter() + seconds
    order, turn = cycle(requests), cycle(clients)

    def again(last: Ended) -> None:
        ended.append(last)
        begin()

    def begin() -> None:
        if perf_counter() < until:
            next(turn).call(next(order), again)

    for _ in range(at_a_time):
        begin()
    await asyncio.sleep(seconds)
    during = len(ended)
    await until_ended(clients)
    return ended[:during]


async def offer(clients: Sequence[Client], requests: Sequence[Request], rate: float, seconds: float) -> list[Ended]:
    """So many calls a second, however long they take. Returns those that ended in this time."""
    ended: list[Ended] = []
    order, free = cycle(requests), deque(clients)
    began, sent = perf_counter(), 0
    while (now := perf_counter() - began) < seconds:
        while sent < now * rate:
            free.rotate()
            if free[0].open_calls < STREAMS:
                free[0].call(next(order), ended.append)
            sent += 1
        await asyncio.sleep(TICK)
    during = len(ended)
    await until_ended(clients)
    return ended[:during]


def by_status(ended: Sequence[Ended]) -> Counter[int | None]:
    return Counter(each.status for each in ended)
