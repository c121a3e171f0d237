"""HTTP/2 connections and exchanges over the engine.

One flush per turn of the event loop sends what all exchanges of a connection have written meanwhile."""

import asyncio
from collections.abc import Iterable
from random import uniform
from typing import Final

from accord_rpc.server.connection import Connection, Host, Peer
from accord_rpc.server.engine import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Broken,
    Engine,
)
from accord_rpc.server.exchange import Exchange, Headers

_PIECE: Final = 64 * 1024  # bytes that the engine hands to the transport at once
_ALIVE: Final = b"alive?  "  # pings, of eight bytes
_LEAVING: Final = b"goaway  "
# Bytes of frames that carry nothing which each request and each part of a body may bring with it: frame headers, padding, PRIORITY.
_OVERHEAD: Final = 512
_ABORT_SECONDS: Final = 0.5  # for the last bytes of an aborted connection
_STATUS: Final = {status: (b":status", b"%d" % status) for status in range(200, 600)}
# A gRPC client reads the status there: RESOURCE_EXHAUSTED.
_HEADERS_TOO_LARGE: Final = (_STATUS[431], (b"content-type", b"application/grpc"), (b"grpc-status", b"8"))


class Http2Exchange(Exchange):
    __slots__ = (
        "_connection",
        "_parts",
        "_room",
        "_started",
        "_waiter",
        "closed",
        "ended",
        "finished",
        "stalled",
        "stream",
        "task",
    )

    def __init__(self, connection: "Http2Connection", stream: int, *, request_ended: bool) -> None:
        self._connection = connection
        self.stream = stream
        self.ended = request_ended
        self.closed = self.finished = self._started = False
        self.task: asyncio.Task[None] | None = None
        self.stalled: tuple[int, float] | None = None  # bytes that waited for the client, and since when
        self._parts: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    @property
    def request_ended(self) -> bool:
        return self.ended

    @property
    def body_is_read(self) -> bool:
        return self.ended and not self._parts

    @property
    def started(self) -> bool:
        return self._started

    async def receive(self) -> bytes | None:
        parts = self._parts
        while not parts:
            if self.ended:
                return None
            self._require_open()
            self._waiter = self._connection.host.loop.create_future()
            await self._waiter
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._connection.consumed(self.stream, len(data))
        return data

    def respond(self, status: int, headers: Headers, body: bytes = b"", trailers: Headers = ()) -> None:
        self._started = True
        if self.method == b"HEAD":
            body = b""
        connection = self._connection
        head = (_STATUS[status], *headers, *connection.host.own_headers.headers())
        connection.engine.respond(self.stream, head, body, trailers)
        connection.finished(self)
        connection.host.sent(len(body))

    def start(self, status: int, headers: Headers) -> None:
        self._started = True
        connection = self._connection
        connection.engine.start(self.stream, (_STATUS[status], *headers, *connection.host.own_headers.headers()))
        connection.wake()

    async def send(self, data: bytes) -> None:
        self._require_open()
        if self.method == b"HEAD":
            return
        connection = self._connection
        connection.engine.send(self.stream, data)
        connection.wake()
        connection.host.sent(len(data))
        while not self.closed and connection.is_full(self.stream):
            self._room = connection.host.loop.create_future()
            connection.wait(self)
            await self._room

    def finish(self, data: bytes = b"", trailers: Headers = ()) -> None:
        self._connection.engine.finish(self.stream, b"" if self.method == b"HEAD" else data, trailers)
        self._connection.finished(self)

    def reset(self) -> None:
        self._connection.reset(self.stream, INTERNAL_ERROR)
        self._connection.finished(self)

    def _require_open(self) -> None:
        if self.closed:  # the task was cancelled, and went on
            raise asyncio.CancelledError

    # --- called by the connection ---
    def feed(self, data: bytes, *, ended: bool) -> None:
        if data:
            self._parts.append(data)
        if ended:
            self.ended = True
        if self._waiter is not None:
            _wake(self._waiter)
            self._waiter = None

    def make_room(self) -> None:
        if self._room is not None:
            _wake(self._room)
            self._room = None

    def close(self) -> int:
        """Cancels the task if it has not responded. Returns the bytes of the body that it has not read: the window of the connection
        must not shrink by them."""
        self.closed = True
        unread = 0
        if self._parts:
            unread = sum(map(len, self._parts))
            self._parts.clear()
        self.make_room()
        if not self.finished and self.task is not None:
            self.task.cancel()
        return unread


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class Http2Connection(Connection):
    __slots__ = (
        "_age",
        "_client_leaves",
        "_draining",
        "_exchanges",
        "_greeted",
        "_half_open",
        "_heard",
        "_incomplete",
        "_limits",
        "_moved",
        "_new",
        "_overhead",
        "_paused",
        "_ping_minute",
        "_pinged",
        "_pings",
        "_refusing",
        "_sent",
        "_since",
        "_terminated",
        "_waiting",
        "_will_flush",
        "_written",
        "engine",
    )

    def __init__(self, host: Host, transport: asyncio.Transport, peer: Peer) -> None:
        super().__init__(host, transport, peer)
        limits = host.limits
        self._limits = limits
        self.engine = Engine(self, limits)
        self._exchanges: dict[int, Http2Exchange] = {}
        # Tuples, because an empty one takes no memory and most connections are idle.
        self._new: tuple[Http2Exchange, ...] = ()
        self._half_open: tuple[Http2Exchange, ...] = ()  # responded, while the client has not ended its request
        self._waiting: tuple[Http2Exchange, ...] = ()  # their client reads more slowly than they send
        self._paused = self._will_flush = False
        self._draining = self._refusing = self._client_leaves = self._terminated = self._greeted = False
        now = host.loop.time()
        self._since = self._heard = self._ping_minute = self._moved = now
        self._incomplete: float | None = None  # since when bytes have completed nothing
        self._age = limits.age_seconds * uniform(0.9, 1.1)  # noqa: S311  # so that clients do not all reconnect at once
        self._pinged: float | None = None  # when, if the client has sent nothing since
        self._pings = self._written = self._sent = self._overhead = 0
        self.wake()

    @property
    def exchanges(self) -> int:
        return len(self._exchanges)

    @property
    def unsent(self) -> int:
        return self.transport.get_write_buffer_size() + sum(map(self.engine.queued, self._exchanges))

    # --- asyncio.Protocol ---
    def data_received(self, data: bytes) -> None:
        self._heard, self._pinged = self.host.loop.time(), None
        self._will_flush = True  # below, so that no exchange asks for another one
        try:
            if self.engine.receive(data):
                self._incomplete = None
            elif self._incomplete is None:
                self._incomplete = self._heard
        except Broken:
            self._terminated = True
        self._limit_overhead(len(data))
        if self._new:
            self._serve_new()
        self.flush()

    def _limit_overhead(self, received: int) -> None:
        """Frames that carry nothing cost little each, and can be sent without end. The events of these bytes have been counted.

        Of a stream that the server has reset, data may be on its way: not more than the window of the connection."""
        self._overhead = max(-self._limits.connection_window, self._overhead + received)
        if self._overhead > self._limits.overhead_bytes:
            self._disturb()

    def _disturb(self) -> None:
        self.engine.terminate(ENHANCE_YOUR_CALM)
        self._terminated = True

    def _serve_new(self) -> None:
        """After all events of the same bytes, so that a request finds its body there."""
        new, self._new = self._new, ()
        for exchange in new:
            if not (exchange.closed or self.host.refuse(exchange)):
                exchange.task = self.host.serve(exchange)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        exchanges = list(self._exchanges.values())
        self._exchanges.clear()
        for exchange in exchanges:
            exchange.close()
        # What exchanges and the engine refer to is freed at once, with the responses that wait, instead of by the garbage collector.
        self._half_open = self._waiting = ()
        self.engine.detach()
        self.host.closed(self)

    # --- events of the engine ---
    def on_request(self, stream: int, headers: Headers, ended: bool) -> None:
        size = _size(headers)
        self._overhead -= size + _OVERHEAD
        if len(self._exchanges) >= self._limits.streams:  # the client has not read our settings
            self.reset(stream, REFUSED_STREAM)
        elif len(headers) > self._limits.header_count or size > self._limits.header_bytes:
            self.engine.respond(stream, (*_HEADERS_TOO_LARGE, *self.host.own_headers.headers()), b"", ())
        else:
            self._begin(stream, headers, ended)

    def _begin(self, stream: int, headers: Headers, ended: bool) -> None:
        exchange = Http2Exchange(self, stream, request_ended=ended)
        exchange.http_version = 2
        exchange.peer, exchange.peer_uris, exchange.secure = self.peer.name, self.peer.uris, self.peer.secure
        exchange.target = exchange.authority = b""
        fields: list[tuple[bytes, bytes]] = []
        cookies: list[bytes] = []
        for field in headers:
            name = field[0]
            if name[0] == 58:  # ":"
                if name == b":path":
                    exchange.target = field[1]
                elif name == b":method":
                    exchange.method = field[1]
                elif name == b":authority":
                    exchange.authority = field[1]
            elif name == b"host":
                if field[1] != (exchange.authority or field[1]):  # malformed (RFC 9113, section 8.3.1)
                    return self.reset(stream, PROTOCOL_ERROR)
                exchange.authority = field[1]
            elif name == b"cookie":
                cookies.append(field[1])
            else:
                fields.append(field)
        if cookies:  # a client may send each one alone (RFC 9113, section 8.2.3)
            fields.append((b"cookie", b"; ".join(cookies)))
        exchange.headers = fields
        self._exchanges[stream] = exchange
        self._new += (exchange,)
        self._pings = 0
        return None

    def on_data(self, stream: int, data: bytes, ended: bool) -> None:
        if data:
            self._overhead -= len(data) + _OVERHEAD
        exchange = self._exchanges.get(stream)
        if exchange is None or exchange.finished:
            self.consumed(stream, len(data))
            if exchange is not None and ended:
                exchange.ended = True
        else:
            exchange.feed(data, ended=ended)

    def on_end(self, stream: int) -> None:
        if exchange := self._exchanges.get(stream):
            exchange.feed(b"", ended=True)

    def on_closed(self, stream: int) -> None:
        if exchange := self._exchanges.pop(stream, None):
            self.consumed(stream, exchange.close())
        else:  # libnghttp2 has reset it before it was an exchange
            self._overhead -= self._limits.header_bytes + self._limits.stream_window

    def on_settings(self) -> None:
        if self._greeted:
            self.on_ping()  # it costs as much
        self._greeted = True

    def on_ping(self) -> None:
        """Clients measure their bandwidth by pings while they exchange data, so only others count."""
        self._pings += 1
        if self._pings > self._limits.pings_per_minute:
            self._disturb()

    def on_pong(self, data: bytes) -> None:
        if data == _LEAVING:
            self._refuse_streams()

    def on_goaway(self) -> None:
        self._client_leaves = True

    # --- what exchanges use ---
    def consumed(self, stream: int, size: int) -> None:
        if size:
            self._pings = 0
            self.engine.consumed(stream, size)
            if not self._will_flush and self.engine.wants_to_send:  # the engine collects small updates of the window
                self.wake()

    def reset(self, stream: int, code: int) -> None:
        self._overhead -= self._limits.stream_window  # which may be on its way
        self.engine.reset(stream, code)

    def wait(self, exchange: Http2Exchange) -> None:
        """Until the client has read, so that `is_full` is false."""
        self._waiting += (exchange,)

    def is_full(self, stream: int) -> bool:
        return self._paused or self.engine.queued(stream) > self._limits.write_buffer

    def finished(self, exchange: Http2Exchange) -> None:
        exchange.finished = True
        if not exchange.ended and not exchange.closed:
            self._half_open += (exchange,)
        self.wake()

    def wake(self) -> None:
        self._pings = 0
        if not self._will_flush:
            self._will_flush = True
            self.host.loop.call_soon(self.flush)

    def flush(self) -> None:
        self._will_flush = False
        if self.transport.is_closing():
            return
        self._write()
        if self._half_open:
            self._end_requests()
        self.engine.report()
        if self._waiting:
            self._resume_waiting()
        if self._is_over():
            self.transport.close()

    def _write(self) -> None:
        while not self._paused and (data := self.engine.take(_PIECE)):
            self._written += len(data)
            self._overhead -= len(data)  # a client grants windows for what it receives
            self.transport.write(data)
            if len(data) < _PIECE:
                break

    def _is_over(self) -> bool:
        if self._terminated or self.engine.is_over:
            return True
        if self._exchanges or not (self._refusing or self._client_leaves):
            return False
        return not self.engine.wants_to_send

    def _end_requests(self) -> None:
        """A client need not send the rest of a request that has its whole response (RFC 9113, section 8.1)."""
        half_open = [exchange for exchange in self._half_open if not (exchange.closed or exchange.ended)]
        sent = [exchange for exchange in half_open if not self.engine.queued(exchange.stream)]
        self._half_open = tuple(exchange for exchange in half_open if exchange not in sent)
        for exchange in sent:
            self.reset(exchange.stream, NO_ERROR)
        self._write()

    def _resume_waiting(self) -> None:
        waiting, self._waiting = self._waiting, ()
        for exchange in waiting:
            if exchange.closed or not self.is_full(exchange.stream):
                exchange.make_room()
            else:
                self.wait(exchange)

    # --- time ---
    def tick(self, now: float) -> None:
        limits = self._limits
        if now - self._ping_minute > 60.0:
            self._ping_minute, self._pings = now, 0
        age = now - self._since
        greeted = self._greeted or age < limits.handshake_seconds
        if not greeted or self._has_stalled(now) or self._is_dead(now) or self._trickles(now):
            self.transport.abort()
            return
        if age > self._age + limits.age_grace_seconds:
            self.abort()
        elif age > self._age or (not self._exchanges and now - self._heard > limits.idle_seconds):
            self.drain()
        if self._exchanges:
            for exchange in tuple(self._exchanges.values()):
                if exchange.finished:
                    self._reset_if_stalled(exchange, now)
        else:
            self._exchanges.clear()  # frees the table that it had, while the connection is idle

    def _trickles(self, now: float) -> bool:
        """Whether the client sends a frame or a header block in pieces that do not complete it. A frame that reports nothing,
        such as PRIORITY, is no such piece unless more follow."""
        since = self._incomplete
        return since is not None and self._heard > since and now - since > self._limits.header_seconds

    def _has_stalled(self, now: float) -> bool:
        """Whether bytes wait in the transport of which the client has read none for a while."""
        waiting = self.transport.get_write_buffer_size()
        sent = self._written - waiting
        if not waiting or sent != self._sent:
            self._sent, self._moved = sent, now
        return now - self._moved > self._limits.write_stall_seconds

    def _reset_if_stalled(self, exchange: Http2Exchange, now: float) -> None:
        """A response whose client grants no window. The deadline of the call has no effect on it any more."""
        queued = self.engine.queued(exchange.stream)
        if exchange.stalled is None or exchange.stalled[0] != queued:
            exchange.stalled = queued, now
        elif now - exchange.stalled[1] > self._limits.write_stall_seconds:
            self.reset(exchange.stream, CANCEL)
            self.wake()

    def _is_dead(self, now: float) -> bool:
        """Pings a client that is silent. Whether it has not acknowledged in time."""
        if self._pinged is not None:
            return now - self._pinged > self._limits.keepalive_timeout_seconds
        if now - self._heard > self._limits.keepalive_seconds:
            self._pinged = now
            self.engine.ping(_ALIVE)
            self.wake()
        return False

    def drain(self) -> None:
        """Streams that the client began before it has read the first GOAWAY are accepted: until it acknowledges the ping after it."""
        if not self._draining:
            self._draining = True
            self.engine.announce_shutdown()
            self.flush()  # libnghttp2 would send the ping first
            self.engine.ping(_LEAVING)
            self.wake()
            self.host.loop.call_later(self._limits.goaway_seconds, self._refuse_streams)

    def _refuse_streams(self) -> None:
        if not self._refusing:
            self._refusing = True
            self.engine.refuse_streams()
            self.wake()

    def abort(self) -> None:
        if not self.transport.is_closing():
            self.engine.terminate(NO_ERROR)
            self.transport.write(self.engine.take())
            self.transport.close()
        for exchange in tuple(self._exchanges.values()):
            exchange.close()
        self.host.loop.call_later(_ABORT_SECONDS, self.transport.abort)


def _size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """As SETTINGS_MAX_HEADER_LIST_SIZE counts it."""
    size = 0
    for name, value in headers:
        size += len(name) + len(value) + 32
    return size
