"""One request and response on an HTTP/1.1 connection."""

import asyncio
from typing import TYPE_CHECKING, Final

from accord_rpc.server.exchange import Exchange, Headers
from accord_rpc.server.http1_messages import CHUNKED, CLOSE, CONTINUE, Request, content_length, response_head

if TYPE_CHECKING:
    from accord_rpc.server.http1 import Http1Connection

_WITHOUT_BODY: Final = (204, 304)


class Http1Exchange(Exchange):
    __slots__ = (
        "_bodiless",
        "_chunked",
        "_connection",
        "_more",
        "_room",
        "_started",
        "awaits_continue",
        "closed",
        "finished",
        "is_last",
        "keep_alive",
        "task",
    )

    def __init__(self, connection: "Http1Connection", request: Request) -> None:
        peer = connection.peer
        self.method, self.target, self.authority = request.method, request.target, request.authority
        self.headers, self.http_version = request.headers, 1
        self.peer, self.peer_uris, self.secure = peer.name, peer.uris, peer.secure
        self.is_last = not request.keep_alive  # the client sends no other request
        self.keep_alive = request.keep_alive
        self.finished = self.closed = self._started = False
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self.awaits_continue = request.expects_continue  # until it was sent
        self._bodiless = request.method == b"HEAD"
        self._chunked = not request.version_1_0
        self._more: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    @property
    def request_ended(self) -> bool:
        return self._connection.body_has_arrived

    @property
    def started(self) -> bool:
        return self._started

    async def receive(self) -> bytes | None:
        connection = self._connection
        while True:
            self._require_open()
            data = connection.take_body()
            if data is None or data:
                return data
            self._require_open()  # the body may turn out to be malformed
            if self.awaits_continue and not self._started:
                connection.write(CONTINUE)
            self.awaits_continue = False
            self._more = connection.host.loop.create_future()
            await self._more

    def respond(self, status: int, headers: Headers, body: bytes = b"", trailers: Headers = ()) -> None:
        own = b"" if status in _WITHOUT_BODY else content_length(body)
        head = self._head(status, headers, own, reusable=self._connection.is_reusable(self.awaits_continue))
        self._put(head if self._bodiless else head + body)
        self.finished = True

    def start(self, status: int, headers: Headers) -> None:
        self._bodiless |= status in _WITHOUT_BODY
        self._chunked &= not self._bodiless
        # Whether the client sends the rest of its request is not known yet.
        reusable = not self._connection.draining
        self._put(self._head(status, headers, CHUNKED if self._chunked else b"", reusable=reusable))

    async def send(self, data: bytes) -> None:
        self._require_open()
        connection = self._connection
        self._put(self._part(data))
        while connection.stalled and not self.closed:
            self._room = connection.host.loop.create_future()
            await self._room

    def finish(self, data: bytes = b"", trailers: Headers = ()) -> None:
        self._put(self._part(data) + b"0\r\n\r\n" if self._chunked else self._part(data))
        self.finished = True

    def reset(self) -> None:
        """Ends a response that cannot be completed. The client notices, because the connection ends within the body."""
        self.finished = True
        self._connection.transport.abort()

    def wake(self) -> None:
        """More bytes have arrived, or the client has read what waited for it."""
        for future in (self._more, self._room):
            if future is not None and not future.done():
                future.set_result(None)

    def close(self) -> None:
        self.closed = True
        self.wake()
        if self.task is not None and not self.finished:
            self.task.cancel()

    def _require_open(self) -> None:
        if self.closed:  # the task was cancelled, and went on
            raise asyncio.CancelledError

    def _head(self, status: int, headers: Headers, own: bytes, *, reusable: bool) -> bytes:
        self.keep_alive = self.keep_alive and reusable
        own = self._connection.host.own_headers.lines() + own
        head = response_head(status, headers, own if self.keep_alive else own + CLOSE)
        self._started = True
        return head

    def _part(self, data: bytes) -> bytes:
        if not data or self._bodiless:
            return b""
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _put(self, data: bytes) -> None:
        if data and not self.closed:
            self._connection.write(data)
