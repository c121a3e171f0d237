"""A client that keeps calling over one HTTP/2 connection, and never retries: it follows GOAWAY as RFC 9113, section 6.8 says, and counts
every call without a response as an error."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from ngh2 import Configuration, Connection, GoAwayReceived, NGH2Error, ResponseReceived, Role, StreamClosed

_SECONDS: Final = 30.0
_STREAMS: Final = 4


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._http = Connection(Role.CLIENT, Configuration())
        self._http.initiate_connection({})
        self._responses: dict[int, asyncio.Future[int]] = {}
        self._statuses: dict[int, int] = {}
        self._transport: asyncio.Transport | None = None
        self.leaving = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._flush()

    def call(self, headers: list[tuple[bytes, bytes]]) -> "asyncio.Future[int]":
        """The HTTP status."""
        stream = self._http.send_request(headers, end_stream=True)
        self._responses[stream] = asyncio.get_running_loop().create_future()
        self._flush()
        return self._responses[stream]

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._report()
        self._flush()

    def _report(self) -> None:
        event: Any
        for event in self._http.events():
            match event:
                case ResponseReceived():
                    self._statuses[event.stream_id] = int(dict(event.headers)[b":status"])
                case StreamClosed():
                    self._close(event.stream_id, event.error_code)
                case GoAwayReceived():
                    self.leaving = True

    def _close(self, stream: int, code: int) -> None:
        status = self._statuses.pop(stream, None)
        response = self._responses.pop(stream, None)
        if response is None or response.done():
            return
        if status is None or code:
            response.set_exception(ConnectionError(f"stream {stream} was reset with code {code}"))
        else:
            response.set_result(status)

    def _flush(self) -> None:
        assert self._transport is not None
        if data := self._http.data_to_send():
            self._transport.write(data)
        self._report()
        if self.leaving and not self._responses:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.leaving = True
        for response in self._responses.values():
            if not response.done():
                response.set_exception(ConnectionError(f"the connection was lost during a call: {error}"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Http2Caller:
    """Calls `path` on several streams at a time, from `start` to `stop`."""

    def __init__(
        self, address: str, path: str, headers: Mapping[str, str], *, pause: float = 0, reconnects: bool = True
    ) -> None:
        """`pause`: seconds after each call of a stream. Without `reconnects`, it ends when its connection does."""
        self._pause = pause
        self._reconnects = reconnects
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._headers = [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", address.encode()),
            (b":path", path.encode()),
            *((name.encode(), value.encode()) for name, value in headers.items()),
        ]
        self.responses = 0
        self.connections = 0
        self.errors: list[str] = []
        self._connection: _Connection | None = None
        self._opening = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._call_repeatedly()) for _ in range(_STREAMS)]

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*tasks)
        if self._connection is not None:
            self._connection.close()

    async def _call_repeatedly(self) -> None:
        while self._tasks:
            try:
                async with asyncio.timeout(_SECONDS):
                    connection = await self._open()
                    if connection is None:
                        return
                    status = await connection.call(self._headers)
                if status == 200:
                    self.responses += 1
                    await asyncio.sleep(self._pause)
                else:
                    self.errors.append(f"status {status}")
            except (OSError, NGH2Error) as error:  # TimeoutError is an OSError
                self.errors.append(repr(error))
                await asyncio.sleep(0.05)

    async def _open(self) -> _Connection | None:
        async with self._opening:
            if self._connection is None or self._connection.leaving:
                if self.connections and not self._reconnects:
                    return None
                self._connection = None
                loop = asyncio.get_running_loop()
                _, self._connection = await loop.create_connection(_Connection, self._host, self._port)
                self.connections += 1
            return self._connection


async def let_all_call(callers: list[Http2Caller], count: int = 20) -> None:
    wanted = [caller.responses + count for caller in callers]
    async with asyncio.timeout(_SECONDS):
        while any(caller.responses < least for caller, least in zip(callers, wanted, strict=True)):
            await asyncio.sleep(0.01)
